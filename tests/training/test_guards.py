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
from glamkit.training import checkpoint, evaluation, guards
from glamkit.training.guards import Guard
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
    with pytest.raises(
        GlamkitError, match=f"the loss of the {model.replace('_', ' ')}.* nan at step 57; the last good"
    ):
        list(trainer)
    assert checkpoint.steps(tmp_path / "checkpoint") == [40, 50]
    assert all(bool(value.isfinite().all()) for value in trainer.agent.state_dict().values())
    with pytest.raises(GlamkitError, match="left half-way; make the trainer again"):  # the same cell, run again
        list(trainer)
    assert checkpoint.steps(tmp_path / "checkpoint") == [40, 50]
    assert finished(config, tmp_path).step == 64  # the spoiling was ours, so a new trainer gets through


def test_where_nothing_is_waited_for_the_first_bad_update_is_found_later() -> None:
    watch = Guard()
    for step, value in ((51, 1.0), (52, float("nan")), (53, float("nan"))):
        watch.pending.append((step, "world_model", torch.tensor(value)))
    with pytest.raises(GlamkitError, match="nan at step 52;"):
        watch.check()


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


def test_after_too_many_crashes_all_is_saved(tmp_path: Path) -> None:
    with pytest.raises(GlamkitError, match=r"crashed 2 times; what was saved is intact: mend the game and go on"):
        list(Trainer(crashing("crash", 1), tmp_path))
    assert checkpoint.steps(tmp_path / "checkpoint") == [25, 40]
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


# CUDA's error, that of torch for the CPU, and Python's own.
SHORT_OF_MEMORY = [
    (
        "train_world_model",
        r"replay\.batch_size=2 instead of 4",
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    ),
    (
        "imagine",
        r"imagination\.starts=4 instead of 8",
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ),
    ("train_actor_critic", r"imagination\.starts=4 instead of 8", MemoryError()),
]


@pytest.mark.parametrize(("phase", "advice", "error"), SHORT_OF_MEMORY)
def test_out_of_memory_says_what_to_lower(phase: str, advice: str, error: Exception, tmp_path: Path) -> None:
    trainer = Trainer(short(**CATCH), tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    if phase == "train_world_model":
        trainer.phases.world_model_loss = fail  # type: ignore[method-assign, assignment]
    elif phase == "imagine":
        trainer.phases.imagine = fail  # type: ignore[method-assign]
    else:
        trainer.agent.actor_critic.loss = fail  # type: ignore[method-assign]
    with pytest.raises(GlamkitError, match=rf"the memory of cpu \(.* GiB\) ran out; .*{advice}"):
        list(trainer)


def test_out_of_memory_in_an_evaluation_needs_no_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = (
        r"ran out; what was saved is intact: free some and go on, or go on with evaluation\.games=10 instead of 20\."
    )
    trainer = finished(short(**CATCH), tmp_path)

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("glamkit.envs.registry.Games.step", fail)
    for play in (
        lambda: list(Trainer(short("evaluation.every=16", **CATCH), tmp_path / "amid")),
        lambda: evaluation.final(trainer),
        lambda: evaluation.evaluate_run(evaluation.opened(tmp_path)),
    ):
        with pytest.raises(GlamkitError, match=sentence):
            play()
    assert Trainer(short("evaluation.every=16 evaluation.games=10", **CATCH), tmp_path / "amid").step == 0


def test_memory_of_unknown_size_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    monkeypatch.setattr(Machine, "memory", lambda _: 2**63)  # as on Windows
    with (
        pytest.raises(GlamkitError, match=r"the memory of cpu ran out; "),
        guards.explained(config, Machine(config.runtime)),
    ):
        raise MemoryError


def test_other_errors_stay_what_they_are() -> None:
    config = Config()
    with pytest.raises(RuntimeError, match="something else"), guards.explained(config, Machine(config.runtime)):
        raise RuntimeError("something else")
