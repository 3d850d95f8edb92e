"""The training loop: tiny runs of the real thing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tiny_runs import SHORT, after_steps, finished, log, short

from glamkit.config import Config, preset
from glamkit.training.trainer import Event, Trainer
from glamkit.training.updates import adam, backward_and_clip
from glamkit.types import choose_contexts


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return finished(short(), tmp_path_factory.mktemp("unbroken"))


# What a run does -----------------------------------------------------------------------------------------------------


def test_a_run_tells_what_happens_and_leaves_its_folder(tmp_path: Path) -> None:
    trainer = Trainer(short(), tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
    events = list(trainer)
    assert [event.step for event in events if event.kind == "step"] == list(range(1, 65))
    assert [(event.kind, event.step) for event in events if event.kind not in ("step", "episode")] == [
        *[("log", 10), ("log", 20), ("saved", 25), ("log", 30), ("log", 40), ("log", 50), ("saved", 50)],
        *[("log", 60), ("done", 64)],
    ]
    left = "checkpoint config.json metrics.jsonl provenance.json replay snapshots status.json"
    assert sorted(p.name for p in (tmp_path / "run").glob("[!.]*")) == left.split()
    parts = [f"{first:09d}-{last:09d}.npz" for first, last in ((0, 25), (25, 50), (50, 64))]
    assert sorted(p.name for p in (tmp_path / "run" / "replay").iterdir()) == parts  # every step is written once
    assert (trainer.step, trainer.replay.count) == (64, 64)
    last = next(event for event in reversed(events) if event.kind == "log").metrics
    prefixes = {key.split("/")[0] for key in last}
    assert prefixes == {"world_model", "imagination", "actor_critic", "replay", "time"}
    losses = ("reconstruction", "reward", "termination", "dynamics", "representation", "variation", "total")
    assert {f"world_model/{name}" for name in (*losses, "gradient_norm")} <= set(last)
    assert {f"actor_critic/{name}" for name in ("policy", "value", "entropy", "total", "gradient_norm")} <= set(last)
    assert all(np.isfinite(value) for value in last.values())
    written = [{"step": e.step, "kind": e.kind, **e.metrics} for e in events if e.kind in ("log", "episode")]
    assert [json.loads(line) for line in trainer.run.log_file.read_text().splitlines()] == written
    frozen = ("world_model.variation_posterior.", "actor_critic.bins", "world_model.bins")
    for name, value in trainer.agent.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name
    assert json.loads((tmp_path / "run" / "config.json").read_text())["machine"]["kernel"] == "glamkit"


def test_random_steps_come_before_the_first_update(tmp_path: Path) -> None:
    trainer, updates = counted(short(), tmp_path)
    list(trainer)
    due = list(range(49, 65))
    assert updates == {"world_model": due, "imagine": due, "actor_critic": due}


@pytest.mark.parametrize("every", [2, 7])
def test_update_every(every: int, tmp_path: Path) -> None:
    trainer, updates = counted(short(f"trainer.update_every={every}"), tmp_path)
    list(trainer)
    due = [step for step in range(49, 65) if step % every == 0]
    assert updates == {"world_model": due, "imagine": due, "actor_critic": due}
    assert (trainer.config.trainer.updates, trainer.config.trainer.next_update(0)) == (len(due), due[0])


def counted(config: Config, folder: Path) -> tuple[Trainer, dict[str, list[int]]]:
    """A trainer that notes at which steps it does what, instead of doing it."""
    trainer = Trainer(config, folder)
    steps: dict[str, list[int]] = {"world_model": [], "imagine": [], "actor_critic": []}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: steps[name].append(trainer.step)

    trainer.train_world_model = note("world_model")  # type: ignore[method-assign, assignment]
    trainer.imagine = note("imagine")  # type: ignore[method-assign, assignment]
    trainer.train_actor_critic = note("actor_critic")  # type: ignore[method-assign]
    return trainer, steps


@pytest.mark.parametrize(
    ("step", "horizon"),
    [(0, 16), (1025, 16), (3124, 16), (3125, 17), (6249, 17), (6250, 18), (99_999, 47), (100_000, 48), (102_000, 48)],
)
def test_the_horizon_grows(step: int, horizon: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    trainer = _horizon_trainer(tmp_path_factory)
    trainer.step = step
    assert trainer.horizon == horizon == 16 + min(int(8 * step / 25_000), 32)  # the released schedule


_made: list[Trainer] = []


def _horizon_trainer(factory: pytest.TempPathFactory) -> Trainer:
    if not _made:
        _made.append(Trainer(short("imagination.horizon=16"), factory.mktemp("horizon")))
    return _made[0]


def test_dreams_are_as_long_as_the_horizon_and_leave_the_world_model_alone(tmp_path: Path) -> None:
    trainer = finished(short("imagination.horizon_growth=20"), tmp_path)  # 64 // 20 = 3 longer
    batch = trainer.replay.sample()
    observed = trainer.train_world_model(batch)
    rollout = trainer.imagine(batch, observed)
    assert rollout.actions.shape == (8, 4 + 3)
    assert not any(part.requires_grad for part in rollout)
    before = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
    trainer.optimizers["world_model"].zero_grad()
    trainer.train_actor_critic(rollout)
    assert all(p.grad is None for p in trainer.agent.world_model.parameters())
    after = trainer.agent.state_dict()
    assert not torch.equal(after["actor_critic.actor.0.weight"], before["actor_critic.actor.0.weight"])
    assert not torch.equal(after["actor_critic.slow_critic.0.weight"], before["actor_critic.slow_critic.0.weight"])
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("world_model."))


def test_gradients_are_clipped_and_adam_is_the_config_s(tmp_path: Path) -> None:
    adams = "world_model_optimizer"
    config = short(f"{adams}.learning_rate=0.5 {adams}.final_rate=0.2 {adams}.epsilon=1e-5 {adams}.clip=2.0")
    model = torch.nn.Linear(4, 1, bias=False)
    model.register_parameter("fixed", torch.nn.Parameter(torch.zeros(1), requires_grad=False))
    optimizer = adam(model, config.world_model_optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert (optimizer.defaults["lr"], optimizer.defaults["eps"]) == (0.5, 1e-5)
    trainer, before = Trainer(config, tmp_path), model.weight.detach().clone()
    trainer.optimizers["world_model"] = optimizer
    # Nothing of an update's gradient is left in the next, and at the end the step is `final_rate` times as large.
    for trainer.step in [0, 0, config.trainer.env_steps]:
        metrics = backward_and_clip(model, model(torch.full((1, 4), 3.0)).sum(), {}, 2.0)
        trainer.optimizer_step("world_model", metrics)
        assert metrics["gradient_norm"].item() == pytest.approx(6)  # before it was clipped
        assert model.weight.grad is not None
        assert model.weight.grad.norm().item() == pytest.approx(2, rel=1e-4)
    assert torch.allclose(model.weight, before - 1.1, atol=1e-3)


def test_world_model_updates_use_batch_statistics_and_acting_does_not(tmp_path: Path) -> None:
    trainer = Trainer(short(), tmp_path)
    list(trainer)
    assert not trainer.agent.training
    assert all(not part.training for part in trainer.agent.modules())
    name = "world_model.encoder.1.running_mean"
    before = trainer.agent.state_dict()[name].clone()
    trainer.collect()
    assert torch.equal(trainer.agent.state_dict()[name], before)
    trainer.train_world_model(trainer.replay.sample())
    assert not torch.equal(trainer.agent.state_dict()[name], before)


@pytest.mark.parametrize(
    "choice",
    [
        "imagination.contexts=batch",
        "imagination.memory=recurrent",
        "actor_critic.bootstrap=next",
        "replay.newest_windows=0",
        "world_model.variation_head=learned",
        "world_model.variation_scale=0",
        "world_model.modules=gmamba",
        "world_model.modules=lmamba",
        "world_model.modules=lmamba world_model.variation_scale=0",
        "world_model.latents=probabilities",
        "world_model.blocks=2",
        "runtime.precision=bfloat16",
        "imagination.contexts=batch imagination.memory=recurrent agent.acting=posterior agent.context=reset",
    ],
)
def test_every_choice_runs_and_makes_a_difference(choice: str, tmp_path: Path, unbroken: Trainer) -> None:
    usual = next(line for line in log(unbroken) if line["step"] == 60)
    assert last_line(f"trainer.env_steps=60 {choice}", tmp_path) != usual


@pytest.mark.parametrize(
    "choice", ["agent.acting=posterior", "agent.context=reset", "env.life_loss=false env.sticky=0"]
)
def test_choices_that_show_later_run(choice: str, tmp_path: Path) -> None:
    last_line(f"trainer.env_steps=51 trainer.log_every=3 {choice}", tmp_path)


def last_line(overrides: str, folder: Path) -> dict[str, Any]:
    line = log(finished(short(overrides), folder))[-1]
    assert line["step"] in (51, 60)
    assert len(line) > 20
    assert all(value is not None for value in line.values())
    return line


def test_contexts_from_the_batch_are_its_steps(tmp_path: Path) -> None:
    trainer = finished(short("trainer.env_steps=49"), tmp_path)
    batch = trainer.replay.sample()
    named = torch.arange(4.0 * 12, requires_grad=True).view(4, 12, 1)  # a latent that says which step it is
    latents, actions = choose_contexts(batch, named, 300, 8)
    assert latents.shape == (300, 8, 1)
    assert not latents.requires_grad
    steps = latents.squeeze(-1).long()
    assert (steps.diff(dim=1) == 1).all()
    assert torch.equal(actions, batch.actions.flatten()[steps])
    assert {divmod(first, 12) for first in steps[:, 0].tolist()} == {(r, f) for r in range(4) for f in range(5)}


# What reaches the replay ---------------------------------------------------------------------------------------------

LENGTHS = (5, 1, 9, 3)


class Scripted(gymnasium.Env):
    """Shows a number that grows with every picture; every other episode ends by a time limit instead of an end."""

    observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self) -> None:
        self.picture, self.episode, self.left = 0, -1, 0

    def show(self) -> np.ndarray:
        self.picture += 1
        return np.full((32, 32, 3), self.picture, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.episode += 1
        self.left = LENGTHS[self.episode % len(LENGTHS)]
        return self.show(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        over, cut = self.left == 0, self.episode % 2 == 1
        return self.show(), 100 * self.picture + action, over and not cut, over and cut, {}


@pytest.fixture
def scripted() -> Iterator[str]:
    gymnasium.register("glamkit-test/Scripted-v0", Scripted)
    yield "glamkit-test/Scripted-v0"
    del gymnasium.registry["glamkit-test/Scripted-v0"]


def script(steps: int) -> Iterator[tuple[int, float, bool, bool]]:
    """(picture, reward without the action, terminated, ended) of each step, told independently."""
    picture, episode, done = 0, 0, 0
    while done < steps:
        length = LENGTHS[episode % len(LENGTHS)]
        for place in range(length):
            picture += 1  # seen before this step's action; the step's own picture is the next number
            ended = place == length - 1
            yield picture, 100 * (picture + 1), ended and episode % 2 == 0, ended
            done += 1
            if done == steps:
                return
        picture += 1  # the last picture of an episode is seen by nobody: nothing was done there
        episode += 1


def test_the_replay_holds_exactly_the_steps_that_were_played(scripted: str, tmp_path: Path) -> None:
    trainer = Trainer(short("agent.context=reset", game=scripted), tmp_path)
    episodes: list[Event] = [event for event in trainer if event.kind == "episode"]
    part, steps = trainer.replay.part(0, 64), list(script(64))
    assert trainer.replay.count == 64
    assert part["frames"].flatten(1).unique(dim=1).flatten().tolist() == [picture for picture, *_ in steps]
    assert part["terminations"].tolist() == [float(terminated) for _, _, terminated, _ in steps]
    actions = part["actions"].tolist()
    assert set(actions) == {0, 1, 2}
    expected = [reward + action for (_, reward, *_), action in zip(steps, actions, strict=True)]
    assert part["rewards"].tolist() == pytest.approx(expected)
    ends = [place for place, step in enumerate(steps) if step[3]]
    assert [event.step for event in episodes] == [end + 1 for end in ends]
    starts = [0, *[end + 1 for end in ends]]
    for event, start, end in zip(episodes, starts, ends, strict=False):
        assert event.metrics == {"episode/return": sum(expected[start : end + 1]), "episode/length": end + 1 - start}
    length = min(8, 64 - starts[-1])
    assert trainer.past.lengths.tolist() == [length]
    assert torch.equal(trainer.past.frames[0, -length:], part["frames"][-length:])
    assert torch.equal(trainer.past.actions[0, -length:], part["actions"][-length:])


def test_a_game_that_does_not_come_back_starts_anew_and_says_so(
    scripted: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = short(game=scripted)
    after_steps(config, tmp_path, 30).save()
    with caplog.at_level(logging.WARNING, "glamkit"):
        resumed = Trainer(config, tmp_path)
    assert "cannot go on" in caplog.text
    assert "A new episode is started." in caplog.text
    assert resumed.episode == {"return": 0, "length": 0}
    assert resumed.step == resumed.replay.count == 30
    assert list(resumed)[-1].kind == "done"
    assert resumed.replay.count == 64


# On a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_run_on_the_gpu(precision: str, tmp_path: Path) -> None:
    config = preset("debug", f"{SHORT} runtime.device=cuda runtime.precision={precision}")
    after_steps(config, tmp_path, 55).save()
    trainer = finished(config, tmp_path)
    assert next(trainer.agent.parameters()).is_cuda
    assert trainer.replay.frames.is_cuda
    assert (line := log(trainer)[-1])["step"] == 60 and None not in line.values()


def test_until_dreams_begin_only_the_model_learns_and_actions_are_random(tmp_path: Path) -> None:
    trainer = Trainer(short("imagination.begin=60"), tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
    calls: list[int] = []
    player = trainer.phases.player
    act = player.act
    player.act = lambda *given, **named: calls.append(trainer.step) or act(*given, **named)
    changed: dict[int, set[str]] = {}
    for event in trainer:
        if event.kind == "step":
            now = trainer.agent.state_dict()
            changed[event.step] = {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])}
    assert changed[60] == {"world_model"}
    assert changed[61] == {"world_model", "actor_critic"}
    assert calls == [60, 61, 62, 63]
