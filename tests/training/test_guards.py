"""Numbers that are none, memory that is not there, games that crash: each costs as little as it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from square import SQUARE, square
from tiny_runs import finished, short

from glamkit.config import Config, preset
from glamkit.errors import GlamkitError
from glamkit.runtime import Machine
from glamkit.training import checkpoint, guards
from glamkit.training.trainer import Trainer

CATCH = {"game": "glamkit/Catch-v0"}


# Numbers --------------------------------------------------------------------------------------------------------------


def spoil(trainer: Trainer, model: str, step: int) -> None:
    """Makes one model's loss infinite from a step on."""

    def spoilt(loss: Callable[..., Any]) -> Callable[..., Any]:
        def lose(*given: Any) -> Any:
            value, metrics = loss(*given)
            return (value * float("inf") if trainer.step >= step else value), metrics

        return lose

    if model == "world_model":
        trainer.phases.world_model_loss = spoilt(trainer.phases.world_model_loss)  # type: ignore[method-assign]
    else:
        trainer.agent.actor_critic.loss = spoilt(trainer.agent.actor_critic.loss)  # type: ignore[method-assign]


@pytest.mark.parametrize("model", ["world_model", "actor_critic"])
def test_a_loss_that_is_not_finite_stops_before_it_is_saved(model: str, tmp_path: Path) -> None:
    config = short("trainer.save_every=10", **CATCH)
    trainer = Trainer(config, tmp_path)
    spoil(trainer, model, 57)
    sentence = rf"{model}\S+ is n.*; the last good checkpoint is intact.* {model}_optimizer"
    with pytest.raises(GlamkitError, match=sentence):
        list(trainer)
    assert checkpoint.steps(tmp_path / "checkpoint") == [40, 50]
    for step in (40, 50):
        weights = checkpoint.read(tmp_path / "checkpoint", step)["agent"]
        assert all(bool(value.isfinite().all()) for value in weights.values())
    with pytest.raises(GlamkitError, match="left half-way; make the trainer again"):  # the same cell, run again
        list(trainer)
    assert checkpoint.steps(tmp_path / "checkpoint") == [40, 50]
    assert finished(config, tmp_path).step == 64  # the spoiling was ours, so a new trainer gets through


def test_spoilt_weights_are_not_saved(tmp_path: Path) -> None:
    trainer = Trainer(short("trainer.save_every=20", **CATCH), tmp_path)
    with pytest.raises(GlamkitError, match=r"world_model\.prior\.weight is not finite, so it is not saved"):
        for event in trainer:
            if event.step == 30:
                with torch.no_grad():
                    trainer.agent.world_model.prior.weight[0, 0] = float("nan")
    assert checkpoint.steps(tmp_path / "checkpoint") == [20]


# Games ----------------------------------------------------------------------------------------------------------------


def crashing(flaw: str, most: int) -> Config:
    square(flaw=flaw, length=30)
    return short(f"runtime.env_crashes={most}", game=SQUARE)


@pytest.mark.parametrize(("flaw", "crashes"), [("crash", 3), ("reward", 7)])
def test_a_game_that_crashes_is_started_anew(
    flaw: str, crashes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does so at step 21, or brings a reward that is no number at step 9, of every episode."""
    trainer = Trainer(crashing(flaw, 10), tmp_path)
    with caplog.at_level(logging.WARNING, "glamkit"):
        events = list(trainer)
    assert [event.metrics["crashes"] for event in events if event.kind == "crash"] == [*range(1, crashes + 1)]
    assert (trainer.step, trainer.replay.count) == (64, 64)  # crashed steps are none
    assert [event.step for event in events if event.kind == "step"] == [*range(1, 65)]
    assert trainer.replay.rewards[:64].isfinite().all()
    assert f"{SQUARE} crashed" in caplog.text and "of at most 10 times" in caplog.text


def test_after_too_many_crashes_what_was_saved_is_intact(tmp_path: Path) -> None:
    with pytest.raises(GlamkitError, match=r"crashed 2 times; what was saved is intact: mend the game and go on"):
        list(Trainer(crashing("crash", 1), tmp_path))
    assert checkpoint.steps(tmp_path / "checkpoint") == [25]
    assert finished(crashing("", 1), tmp_path).step == 64  # mended


def test_a_game_that_cannot_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(crashing("crash", 3), tmp_path)

    def broken(*_: object) -> None:
        raise OSError("no display")

    monkeypatch.setattr("square.Square.reset", broken)
    with pytest.raises(GlamkitError, match="crashed 4 times"):
        list(trainer)


# Memory ---------------------------------------------------------------------------------------------------------------


def test_a_replay_that_cannot_fit_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(GlamkitError, match=r"^replay\.capacity = 1,000,000,000,000 needs 2,8.* GiB of memory.*use at"):
        Trainer(short("replay.capacity=1000000000000", **CATCH), tmp_path / "run")
    assert not list(tmp_path.glob("run/*"))


def test_the_figure_that_is_said_to_fit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "memory", lambda _: 2**30)
    config = preset("atari100k", "runtime.device=cpu")
    machine = Machine(config.runtime)
    with pytest.raises(GlamkitError, match=r"replay\.capacity = 100,000 needs 1\.1 GiB.*use at most") as error:
        guards.check_memory(config, machine)
    most = int(str(error.value).split("use at most ")[1].rstrip(".").replace(",", ""))
    guards.check_memory(config.override({"replay.capacity": most}), machine)
    with pytest.raises(GlamkitError):
        guards.check_memory(config.override({"replay.capacity": most + 1}), machine)
