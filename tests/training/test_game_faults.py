"""Games that misbehave off the beaten path, and steps left half-way."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from square import SQUARE, Square, square
from tiny_runs import after_steps, finished, log, same, short

from glamkit import cli
from glamkit.config import EnvConfig
from glamkit.errors import GlamkitError
from glamkit.runs import status
from glamkit.training import checkpoint, evaluation
from glamkit.training.trainer import Trainer

CATCH = "glamkit/Catch-v0"


class Faulty(Square):
    """A square whose numbered resets and steps, counted over all copies, go wrong; of a tenth of its length."""

    resets = itertools.count(1)
    steps_made = itertools.count(1)

    def __init__(self, resets: tuple[int, ...] = (), steps: tuple[int, ...] = (), nan: tuple[int, ...] = ()) -> None:
        super().__init__(length=10)
        self.faults = resets, steps, nan

    def reset(self, **options: Any) -> Any:
        if next(Faulty.resets) in self.faults[0]:
            raise OSError("no answer to the reset")
        return super().reset(**options)

    def step(self, action: int) -> Any:
        number = next(Faulty.steps_made)
        if number in self.faults[1]:
            raise OSError("no answer to the step")
        frame, reward, *rest = super().step(action)
        return frame, float("nan") if number in self.faults[2] else reward, *rest


def faulty(**faults: tuple[int, ...]) -> EnvConfig:
    Faulty.resets, Faulty.steps_made = itertools.count(1), itertools.count(1)
    return square(Faulty, **faults)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [1, 3])
def test_a_reset_that_fails_once_is_counted_and_the_run_goes_on(
    reset: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faulty(resets=(reset,))
    trainer = Trainer(short(game=SQUARE), tmp_path)
    with caplog.at_level(logging.WARNING, "glamkit"):
        events = list(trainer)
    crashes = [event.metrics["crashes"] for event in events if event.kind == "crash"]
    assert crashes == ([1.0] if reset > 1 else []) and trainer.crashes.count == 1
    assert (trainer.step, trainer.replay.count, events[-1].kind) == (64, 64, "done")


def test_a_game_that_cannot_be_played_costs_a_resumed_run_no_checkpoint(tmp_path: Path) -> None:
    faulty()
    unbroken = finished(short(game=SQUARE), tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    after_steps(short(game=SQUARE), stopped, 57).save()
    before = sorted(stopped.rglob("*.*"))
    faulty(resets=tuple(range(1, 9)))
    with pytest.raises(GlamkitError, match=r"crashed 2 times; .* no answer to the reset"):
        Trainer(short("runtime.env_crashes=1", game=SQUARE), stopped)
    assert sorted(stopped.rglob("*.*")) == before
    faulty()
    resumed = Trainer(short(game=SQUARE), stopped)
    assert resumed.step == 57
    list(resumed)
    assert same(resumed.agent.state_dict(), unbroken.agent.state_dict()) and log(resumed) == log(unbroken)


def test_a_run_whose_game_crashed_at_a_reset_goes_on_once_the_game_is_mended(tmp_path: Path) -> None:
    faulty(resets=(5, 6))
    with pytest.raises(GlamkitError, match="crashed 2 times"):
        list(Trainer(short("runtime.env_crashes=1", game=SQUARE), tmp_path))
    faulty()
    resumed = Trainer(short("runtime.env_crashes=1", game=SQUARE), tmp_path)
    assert resumed.step == 25
    list(resumed)
    assert (resumed.step, resumed.replay.count) == (64, 64)


@pytest.mark.parametrize("faults", [{"resets": (1, 2)}, {"steps": (1, 2)}, {"nan": (1, 2)}])
def test_a_fault_before_the_first_step_is_named_in_status_json(faults: dict[str, Any], tmp_path: Path) -> None:
    faulty(**faults)
    cause = "returned the reward 'nan'" if "nan" in faults else f"no answer to the {next(iter(faults))[:-1]}"
    with pytest.raises(GlamkitError, match=f"Square-v0 crashed 2 times; .*{cause}"):
        list(Trainer(short("runtime.env_crashes=1", game=SQUARE), tmp_path))
    reported = status.read(tmp_path / "status.json")
    assert reported.state == "failed" and cause in reported.reason


def test_a_game_of_another_interface_is_named_in_status_json(tmp_path: Path) -> None:
    class NoReward(Square):
        def step(self, action: int) -> Any:
            frame, _, *rest = super().step(action)
            return frame, None, *rest

    square(NoReward)
    with pytest.raises(GlamkitError, match=r"Square-v0 crashed 11 times; .* returned the reward 'None', which is not"):
        list(Trainer(short(game=SQUARE), tmp_path))
    reported = status.read(tmp_path / "status.json")
    assert reported.state == "failed" and "returned the reward 'None'" in reported.reason


def test_a_thousand_crashes_on_end_are_no_recursion(tmp_path: Path) -> None:
    faulty(steps=tuple(range(30, 1130)))
    trainer = after_steps(short("runtime.env_crashes=2000", game=SQUARE), tmp_path, 31)
    assert trainer.crashes.count == 1100


def test_the_last_cause_is_in_the_sentence(tmp_path: Path) -> None:
    faulty(steps=tuple(range(30, 40)))
    with pytest.raises(GlamkitError, match=r"crashed 3 times; .*env_crashes \(the last time: no answer to the step\)"):
        list(Trainer(short("runtime.env_crashes=2", game=SQUARE), tmp_path))
    assert "no answer to the step" in status.read(tmp_path / "status.json").reason


# Evaluation -----------------------------------------------------------------------------------------------------------

PLAYED = "evaluation.episodes=4 evaluation.games=2 evaluation.episode_steps=60"


@pytest.mark.parametrize("faults", [{"steps": (70,)}, {"nan": (70,)}, {"resets": (9,)}, {"steps": (65, 90, 110)}])
def test_an_evaluation_plays_the_seed_of_a_crashed_episode_again(
    faults: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faulty(**faults)
    trainer = finished(short(PLAYED, game=SQUARE), tmp_path)
    with caplog.at_level(logging.WARNING, "glamkit"):
        report, path = evaluation.evaluate_run(evaluation.opened(tmp_path), film=False)
    planned = (np.random.SeedSequence(0).generate_state(4) >> 1).tolist()
    assert [episode["seed"] for episode in report["episodes"]] == planned
    assert [episode["length"] for episode in report["episodes"]] == [10] * 4
    assert np.isfinite([episode["return"] for episode in report["episodes"]]).all()
    assert json.loads(path.read_text())["mean_return"] == report["mean_return"] and trainer.crashes.count == 0
    assert "crashed in an evaluation" in caplog.text and "of at most 10 times" in caplog.text


def test_an_evaluation_gives_up_after_too_many_and_what_was_saved_stays(tmp_path: Path) -> None:
    faulty(steps=tuple(range(41, 400)))
    config = short(f"{PLAYED} evaluation.every=40 trainer.save_every=30 runtime.env_crashes=1", game=SQUARE)
    with pytest.raises(GlamkitError, match=r"crashed 2 times in an evaluation; .*no answer to the"):
        list(Trainer(config, tmp_path))
    assert checkpoint.steps(tmp_path / "checkpoint") == [30]
    faulty()
    assert finished(config, tmp_path).step == 64


# A step that is left half-way -----------------------------------------------------------------------------------------


def interrupted(trainer: Trainer, where: str, step: int) -> None:
    """Interrupts a trainer inside a step: in the replay once it has stored, in an update, or in a game's step."""
    owner, name = {
        "stored": (trainer.replay, "add"),
        "updated": (trainer, "train_actor_critic"),
        "played": (trainer.env._game, "step"),
    }[where]
    honest = getattr(owner, name)

    def interrupt(*given: Any, **named: Any) -> Any:
        result = honest(*given, **named)
        if trainer.step + (where != "updated") == step:
            setattr(owner, name, honest)
            raise KeyboardInterrupt
        return result

    setattr(owner, name, interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(trainer)


@pytest.mark.parametrize("where", ["stored", "updated", "played"])
def test_half_a_step_is_not_saved_and_a_new_trainer_goes_on_from_the_checkpoint(where: str, tmp_path: Path) -> None:
    config = short(game=CATCH)
    whole = finished(config, tmp_path / "whole")
    trainer = Trainer(config, tmp_path / "run")
    interrupted(trainer, where, 58)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()}
    for go_on in (trainer.save, lambda: list(trainer)):
        with pytest.raises(GlamkitError, match="was left half-way; make the trainer again"):
            go_on()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()} == before
    again = finished(config, tmp_path / "run")
    assert log(again) == log(whole)
    states = (checkpoint.gather(item) | {"log_size": 0} for item in (again, whole))
    assert same(*states)


@pytest.mark.parametrize("where", ["000000050.pt", "000000049.json", "000000050-000000055.npz"])
def test_a_full_disk_costs_the_trainer_nothing(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is room again its loop goes on, be it a checkpoint, a snapshot or stored steps that did not fit."""
    config = short("trainer.save_every=5", game=CATCH)
    whole, trainer, usual = finished(config, tmp_path / "whole"), Trainer(config, tmp_path / "run"), os.fsync
    full = [where]

    def fails_once(number: int) -> None:
        if full and [*(tmp_path / "run").rglob(f"{where}.tmp")]:
            full.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        usual(number)

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(GlamkitError, match=f"{where} cannot be written: No space left on device"):
        list(trainer)
    assert list(trainer)[-1].kind == "done" and not full and log(trainer) == log(whole)
    assert same(trainer.agent.state_dict(), whole.agent.state_dict())
    assert same(*(checkpoint.load(item.run.checkpoints)["random"] for item in (trainer, whole)))  # type: ignore[index]


@pytest.mark.parametrize("spoil", ["count", "step"])
def test_what_could_not_be_opened_is_not_written(spoil: str, tmp_path: Path) -> None:
    trainer = finished(short(game=CATCH), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}
    if spoil == "count":
        trainer.replay.count += 1
    else:
        trainer.step += 1
    with pytest.raises(GlamkitError, match="was left half-way; make the trainer again"):
        trainer.save()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pt")} == before


@pytest.mark.parametrize("changes", [{"no_ops": 30}, {"sticky": "on"}, {"sticky": "off"}, {"no_ops": 1}])
def test_settings_that_mean_nothing_in_a_game_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    keys = {f"evaluation.{name}": value for name, value in changes.items()}
    (key, value), *_ = keys.items()
    config = short(game=CATCH).override(keys)
    with pytest.raises(GlamkitError, match=f"{key} = {value!r} means nothing in {CATCH}: .*; leave it at"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    evaluation.check_protocol(short().override(keys))  # they are Pong's


def test_a_run_is_not_evaluated_by_settings_that_mean_nothing(tmp_path: Path, capsys: Any) -> None:
    finished(short("trainer.env_steps=50", game=CATCH), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["evaluate", str(tmp_path), "--no-ops", "30", "--sticky", "on"]) == 1
    assert "evaluation.no_ops = 30 means nothing in glamkit/Catch-v0" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
