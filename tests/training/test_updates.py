"""The phases hand on what the next one needs, and nobody keeps what a recording will overwrite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import finished, log, short
from torch import Tensor
from torch.utils._pytree import tree_flatten

from glamkit.models.actor_critic import ActorCritic
from glamkit.models.mamba import Mamba
from glamkit.runtime import Machine, seed_everything
from glamkit.training.accelerate import rules
from glamkit.training.accelerate.rules import swap
from glamkit.training.accelerate.windows import FusedMamba
from glamkit.training.trainer import Trainer
from glamkit.types import Context, Rollout

CATCH = {"game": "glamkit/Catch-v0"}


class Lent:
    """A function whose results are spoilt as soon as it or another such function is called: as recordings may do."""

    given: list[Tensor] = []

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        read = {id(leaf) for leaf in tree_flatten(inputs)[0]}
        for tensor in self.given:
            if id(tensor) not in read:
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        outputs = self.function(*inputs)
        self.given[:] = [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]
        return outputs


@pytest.mark.parametrize("contexts", ["replay", "batch"])
def test_nobody_keeps_what_a_recording_overwrites(
    contexts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short(f"imagination.contexts={contexts}", **CATCH)
    plain = finished(config, tmp_path / "plain")
    monkeypatch.setattr(Machine, "record", lambda _, function: Lent(function))
    lent = finished(config, tmp_path / "lent")
    assert Lent.given and log(lent) == log(plain)
    own, other = plain.agent.state_dict(), lent.agent.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_dreams_in_low_precision_follow_the_weights(tmp_path: Path) -> None:
    trainer = Trainer(short("runtime.precision=bfloat16 world_model_optimizer.learning_rate=0.01", **CATCH), tmp_path)
    while trainer.step < 50:
        trainer.advance()
    real = trainer.replay.sample(8, 8)
    context = trainer.phases.encode(real.frames, real.actions)
    for _ in range(2):
        trainer.train_world_model(trainer.replay.sample())
        seed_everything(1)
        dreamt = trainer.phases.imagine(Context(*context), 3)
        seed_everything(1)
        with torch.no_grad(), trainer.machine.autocast():
            expected = trainer.agent.world_model.imagine(trainer.agent.actor_critic.act, context, 3)
        assert torch.equal(dreamt.states, expected.states) and torch.equal(dreamt.rewards, expected.rewards)


def test_dreams_have_the_kernel_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mark(module: torch.nn.Module, *_: Any) -> str:
        for part in module.modules():
            if isinstance(part, Mamba):
                swap(part, FusedMamba)
        return "marked"

    monkeypatch.setattr(rules, "select_kernel", mark)
    trainer = Trainer(short("runtime.precision=bfloat16", **CATCH), tmp_path)
    blocks = [part for part in trainer.phases.imaginer.twin.modules() if isinstance(part, Mamba)]
    assert blocks and all(isinstance(block, FusedMamba) for block in blocks) and trainer.kernel == "marked"


def test_actor_and_critic_know_how_far_the_training_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, given, loss = finished(short(), tmp_path), list[float](), ActorCritic.loss

    def noted(self: ActorCritic, rollout: Rollout, progress: torch.Tensor) -> Any:
        given.append(float(progress))
        return loss(self, rollout, progress)

    monkeypatch.setattr(ActorCritic, "loss", noted)
    batch = trainer.replay.sample()
    rollout = trainer.imagine(batch, trainer.train_world_model(batch))
    for step in (0, trainer.config.trainer.env_steps):
        trainer.step = step
        trainer.train_actor_critic(rollout)
    assert given == [0, 1]


def test_only_a_past_of_full_length_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {}

    def record(_: Machine, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*inputs: Any) -> Any:
            if len(inputs) == 4:  # a choice: now, frames, actions, sampled
                seen.setdefault("lengths", []).append(inputs[2].shape[1])
            return function(*inputs)

        return noted

    monkeypatch.setattr(Machine, "record", record)
    trainer = Trainer(short("agent.context=reset trainer.warmup=50 trainer.env_steps=80", **CATCH), tmp_path)
    list(trainer)
    assert set(seen["lengths"]) == {trainer.config.agent.context_length}
    assert len(seen["lengths"]) < 30  # of 30 steps the policy chose


@pytest.mark.cuda
def test_on_a_gpu_losses_are_the_plain_ones(tmp_path: Path) -> None:
    phases = Trainer(short("runtime.device=cuda", **CATCH), tmp_path).phases
    model, compiled = phases.agent.actor_critic, phases.critic
    assert compiled is not model
    draw = [torch.randn(6, steps, device="cuda") for steps in (5, 5)]
    states, actions = torch.randn(6, 6, model.features, device="cuda"), torch.randint(3, (6, 5), device="cuda")
    rollout = Rollout(states, actions, draw[0], (draw[1] > 1).float())
    (plain, _), (loss, _) = model.loss(rollout), compiled.loss(rollout)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-3)
