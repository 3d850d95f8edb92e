"""Every rule computes what the plain models do, forward and gradient; and rules can be left out."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from tiny_runs import finished, log, short
from torch import Tensor, nn

from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.models import sequence_model
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent
from glamkit.models.sequence_model import LMamba, SequenceModel
from glamkit.models.world_model import WorldModel
from glamkit.training.accelerate import RULES, accelerate, left_out, plainly
from glamkit.training.accelerate.rules import plain_class, swap
from glamkit.training.trainer import Trainer
from glamkit.types import Batch, Rollout

A, T = 3, 12
CPU, NAMES = torch.device("cpu"), [rule.name for rule in RULES]
DEVICES = [CPU.type, pytest.param("cuda", marks=pytest.mark.cuda)]


def made(changes: str = "") -> Agent:
    torch.manual_seed(0)
    config = preset("debug", f"world_model.width=32 {changes}")
    world_model = WorldModel(config.world_model, A)
    world_model.sample = torch.exp  # probabilities for latents: no random numbers
    return Agent(config.agent, world_model, ActorCritic(config.actor_critic, world_model.features, A))


def outcome(agent: Agent, device: torch.device) -> list[Tensor]:
    """Losses, gradients, rollouts of both memories, and many frames encoded in evaluation."""
    torch.manual_seed(1)
    model, critic = agent.world_model, agent.actor_critic
    frames = torch.randint(256, (3, T, 3, 32, 32), dtype=torch.uint8).to(device)
    actions, rewards = torch.randint(A, (3, T)).to(device), torch.randn(3, T).to(device)
    loss, parts = model.train().loss(Batch(frames, actions, rewards, (rewards > 1).float()))
    states = torch.randn(4, 6, model.features).to(device)
    rollout = Rollout(
        states, torch.randint(A, (4, 5)).to(device), rewards[0, :5].repeat(4, 1), torch.zeros_like(states[:, :5, 0])
    )
    (loss + critic.loss(rollout)[0]).backward()
    results = [loss.detach(), parts["variation"], *(p.grad for p in agent.parameters() if p.grad is not None)]
    agent.eval()
    with torch.no_grad():
        results.append(model.embed(frames.repeat(4, 1, 1, 1, 1)))
        for memory in ("window", "recurrent"):
            start = model.context(frames[:, :8], actions[:, :8])
            results += [*model.imagine(lambda s: (s[:, 0] > 0.25).long(), start, 5, memory)]
    return results


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_a_rule_computes_what_the_plain_models_do(name: str, blocks: int, device: str) -> None:
    where = torch.device(device)
    plain = made(f"world_model.blocks={blocks}").to(where)
    fast = copy.deepcopy(plain)
    if name == "all":
        accelerate(fast, where)
    else:  # put in on any device: what needs kernels looks for them itself
        for part, faster in list(next(rule for rule in RULES if rule.name == name).swaps(fast)):
            swap(part, faster)
    for mine, theirs in zip(outcome(fast, where), outcome(plain, where), strict=True):
        scale = float(theirs.float().abs().max()) + 1e-6
        torch.testing.assert_close(mine.float() / scale, theirs.float() / scale, rtol=1e-3, atol=5e-4)


class Zero(LMamba):
    """A researcher's own."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros_like(super().forward(tokens))


@pytest.mark.parametrize("memory", ["window", "recurrent"])
def test_a_class_of_ones_own_is_not_bypassed(memory: str, caplog: pytest.LogCaptureFixture) -> None:
    model, tokens = made().world_model.sequence_model, torch.randn(2, 8, 32)
    model.lmamba.__class__ = Zero
    accelerate(model, CPU)
    assert caplog.messages == [
        "Zero is no class of glamkit's: nothing is accelerated, as faster classes would bypass it."
    ]
    assert type(model) is SequenceModel and type(model.lmamba) is Zero
    past = model.memory(tokens, memory)
    assert torch.equal(past.hidden, past.variation) and not model.lmamba(tokens).any()
    assert torch.equal(past.read(torch.randn(2, 32)), past.variation)


def test_with_a_class_of_ones_own_no_weights_are_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_model, "LMamba", Zero)
    trainer = Trainer(short("runtime.precision=bfloat16", game="glamkit/Catch-v0"), tmp_path)
    assert trainer.phases.imaginer.twin is trainer.agent


@pytest.mark.parametrize("where", ["cpu", "meta"])  # "meta" is given what GPUs are, where no kernel is needed
def test_another_activation_in_the_place_of_relu_stays(where: str) -> None:
    plain = made()
    for network in [part for part in plain.modules() if isinstance(part, nn.Sequential)]:
        for place, layer in enumerate(network):
            if isinstance(layer, nn.ReLU):
                network[place] = nn.SiLU()
    fast = copy.deepcopy(plain)
    accelerate(fast, torch.device(where))
    for name in ("layer_norm", "sampling"):
        assert not list(next(rule for rule in RULES if rule.name == name).swaps(fast))
    for mine, theirs in zip(outcome(fast, CPU), outcome(plain, CPU), strict=True):
        scale = float(theirs.float().abs().max()) + 1e-6
        torch.testing.assert_close(mine.float() / scale, theirs.float() / scale, rtol=1e-3, atol=5e-4)


def test_each_rule_gives_modules_another_class_and_off_none() -> None:
    for rule in RULES:
        agent = made()
        parts = [part for part, _ in rule.swaps(agent)]
        assert parts, f"{rule.name} finds nothing"
        before = {part: type(part) for part in agent.modules()}
        accelerate(agent, CPU, set(NAMES) - {rule.name})
        changed = {part for part, kind in before.items() if type(part) is not kind}
        assert changed == (set(parts) if rule.where(CPU) else set()), rule.name
        assert all(plain_class(part) is kind for part, kind in before.items())
    agent = made()
    accelerate(agent, CPU, left_out("off"))
    assert all(type(part).__module__.startswith(("glamkit.models", "torch")) for part in agent.modules())


def test_weights_are_shared_and_keep_their_names() -> None:
    agent = made()
    before = {name: value.data_ptr() for name, value in agent.state_dict().items()}
    for device in (CPU, torch.device("meta")):  # "meta" is given what GPUs are, where no kernel is needed
        accelerate(agent, device)
        assert {name: value.data_ptr() for name, value in agent.state_dict().items()} == before
    kinds = [type(part) for part in agent.modules()]
    with plainly(agent):
        assert [type(part) for part in agent.modules()] == [type(part) for part in made().modules()]
        pickle.dumps(agent)
    assert [type(part) for part in agent.modules()] == kinds
    accelerate(agent, CPU)
    assert [type(part) for part in agent.modules()] == kinds, "twice is as good as once"


def test_names_of_rules_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    assert left_out("on") == set() and left_out("off") >= set(NAMES)
    assert left_out("scan,layer_norm") == {"scan", "layer_norm"}
    with pytest.raises(GlamkitError, match=r"runtime\.accelerate = 'scam'.*did you mean 'scan'"):
        Trainer(short("runtime.accelerate=scam"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_acceleration_a_run_learns_the_same(tmp_path: Path) -> None:
    """Sums in another order: after a dozen updates no loss is a thousandth off."""
    logs = []
    for choice in ("on", "off", "scan,shared_windows"):
        config = short(f"runtime.accelerate={choice} trainer.env_steps=60 trainer.log_every=4", game="glamkit/Catch-v0")
        trainer = finished(config, tmp_path / choice)
        assert (type(trainer.agent.world_model.sequence_model).__module__ == "glamkit.models.sequence_model") == (
            choice != "on"
        )
        logs.append([line for line in log(trainer) if "world_model/total" in line])
    assert logs[0]
    for other in logs[1:]:
        for one, two in zip(logs[0], other, strict=True):
            for key in ("world_model/total", "world_model/variation", "actor_critic/value"):
                if key in one:
                    assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4), (key, one["step"])


@pytest.mark.parametrize("memory", ["window", "recurrent"])
def test_off_is_neither_compiled_nor_bypassed_by_a_twin(memory: str, tmp_path: Path) -> None:
    """But rollouts of the recurrent memory step through GMamba, so that not all of it is called."""
    settings = f"runtime.accelerate=off runtime.precision=bfloat16 imagination.memory={memory}"
    trainer, heard = Trainer(short(settings, game="glamkit/Catch-v0"), tmp_path), list[str]()
    g = "sequence_model.gmamba"
    stepped = {g, f"{g}.blocks", f"{g}.blocks.0", f"{g}.blocks.0.mixer", f"{g}.blocks.0.mixer.conv1d"}
    model = {"encoder.0", f"{g}.out", f"{g}.blocks.0.norm", "sequence_model.lmamba", *stepped}
    for name in model:
        part = trainer.agent.world_model.get_submodule(name)
        part.register_forward_hook(lambda _m, _i, _o, name=name: heard.append(name))
    trainer.agent.actor_critic.actor[0].register_forward_hook(lambda *_: heard.append("actor"))
    assert not trainer.machine.compiles and trainer.machine.recorder is None

    def count(function: object, *given: object) -> set[str]:
        heard.clear()
        result = function(*given)  # type: ignore[operator]
        counted.append(result)
        return set(heard)

    counted: list[object] = []
    while trainer.step < 49:
        trainer.collect()
    batch = trainer.replay.sample()
    assert count(trainer.train_world_model, batch) == model
    dreamt = model - stepped if memory == "recurrent" else model
    assert count(trainer.imagine, batch, counted[-1]) == dreamt | {"actor"}
    assert count(trainer.collect) == model | {"actor"}
    assert isinstance(trainer.agent, nn.Module)
