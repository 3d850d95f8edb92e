"""Games that misbehave off the beaten path, steps left half-way, and numbers that the heads cannot show."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from square import SQUARE, Square, square
from tiny_runs import finished, log, same, short

from glamkit.config import EnvConfig, override, preset
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.runs import status
from glamkit.runs.log import Means
from glamkit.runtime import available
from glamkit.training import checkpoint, evaluation, guards
from glamkit.training.load import open_run
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


@pytest.mark.parametrize("faults", [{"resets": (1, 2)}, {"steps": (1, 2)}, {"nan": (1, 2)}])
def test_a_fault_before_the_first_step_needs_no_eleven_tries(faults: dict[str, Any], tmp_path: Path) -> None:
    faulty(**faults)
    cause = "its reward was nan" if "nan" in faults else f"no answer to the {next(iter(faults))[:-1]}"
    with pytest.raises(GlamkitError, match=f"Square-v0 crashed 2 times before its first step: {cause}"):
        list(Trainer(short(game=SQUARE), tmp_path))
    told = status.read(tmp_path / "status.json")
    assert told.state == "failed" and cause in told.reason


def test_a_game_of_another_interface_is_named_in_status_json(tmp_path: Path) -> None:
    class NoReward(Square):
        def step(self, action: int) -> Any:
            frame, _, *rest = super().step(action)
            return frame, None, *rest

    square(NoReward)
    with pytest.raises(GlamkitError, match="returned the reward 'None', which is not one number"):
        list(Trainer(short(game=SQUARE), tmp_path))
    told = status.read(tmp_path / "status.json")
    assert told.state == "failed" and "returned the reward 'None'" in told.reason


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
        report, path = evaluation.evaluate_run(tmp_path, film=False)
    planned = (np.random.SeedSequence(0).generate_state(4) >> 1).tolist()
    assert [episode["seed"] for episode in report["episodes"]] == planned
    assert [episode["length"] for episode in report["episodes"]] == [10] * 4
    assert np.isfinite([episode["return"] for episode in report["episodes"]]).all()
    assert json.loads(path.read_text())["mean_return"] == report["mean_return"] and trainer.crashes.count == 0
    assert "crashed in an evaluation" in caplog.text and "of at most 10 times" in caplog.text


def test_an_evaluation_gives_up_after_too_many_and_what_was_trained_is_saved(tmp_path: Path) -> None:
    faulty(steps=tuple(range(41, 400)))
    config = short(f"{PLAYED} evaluation.every=40 trainer.save_every=30 runtime.env_crashes=1", game=SQUARE)
    with pytest.raises(GlamkitError, match=r"crashed 2 times in an evaluation before its first step: no answer to the"):
        list(Trainer(config, tmp_path))
    assert checkpoint.steps(tmp_path / "checkpoint") == [30, 40]
    faulty()
    assert finished(config, tmp_path).step == 64


@pytest.mark.parametrize("changes", [{"no_ops": 30}, {"sticky": "on"}, {"sticky": "off"}, {"no_ops": 1}])
def test_settings_that_mean_nothing_in_a_game_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    keys = {f"evaluation.{name}": value for name, value in changes.items()}
    (key, value), *_ = keys.items()
    config = override(short(game=CATCH), keys)
    with pytest.raises(GlamkitError, match=f"{key} = {value!r} means nothing in {CATCH}: .*; leave it at"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    evaluation.check_protocol(override(short(), keys))  # they are Pong's


def test_a_run_is_not_evaluated_by_settings_that_mean_nothing(tmp_path: Path, capsys: Any) -> None:
    finished(short("trainer.env_steps=50", game=CATCH), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert evaluation.main([str(tmp_path), "--no-ops", "30", "--sticky", "on"]) == 2
    assert "evaluation.no_ops = 30 means nothing in glamkit/Catch-v0" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


# A game that may exist once -------------------------------------------------------------------------------------------


class Single(Square):
    """A game of which only one may be open."""

    held: Single | None = None

    def __init__(self) -> None:
        if Single.held is not None:
            raise OSError("Address already in use")
        super().__init__(length=10)
        Single.held = self

    def step(self, action: int) -> Any:
        assert Single.held is self
        return super().step(action)

    def close(self) -> None:
        Single.held = None


def test_one_game_serves_trainers_and_evaluations(tmp_path: Path) -> None:
    Single.held = None
    square(length=10)
    config = short("evaluation.every=30 evaluation.games=1 evaluation.episode_steps=8", game=SQUARE)
    plain = log(finished(config, tmp_path / "plain"))
    square(Single)
    left = Trainer(config, tmp_path / "one")
    for event in left:
        if event.step == 33:
            break
    again = Trainer(config, tmp_path / "one")  # the cell that makes it, run again
    assert list(again)[-1].kind == "done" and again.crashes.count == 0
    assert log(again) == plain
    report, _ = evaluation.evaluate_run(tmp_path / "one")
    assert len(report["videos"]) == 3
    assert left.env.released


def test_an_evaluation_with_many_games_plays_one_after_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Single.held = None
    square(Single)
    with caplog.at_level(logging.WARNING, "glamkit"):
        finished(short("evaluation.every=60 evaluation.episodes=3", game=SQUARE), tmp_path)
    report = json.loads((tmp_path / "evaluations" / "000000060.json").read_text())
    assert [episode["length"] for episode in report["episodes"]] == [10, 10, 10]
    assert "can be open at a time" in caplog.text


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
def test_after_an_interrupt_inside_a_step_training_goes_on_from_the_checkpoint(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = short(game=CATCH)
    whole = finished(config, tmp_path / "whole")
    trainer = Trainer(config, tmp_path / "run")
    interrupted(trainer, where, 58)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()}
    with pytest.raises(GlamkitError, match="is not saved: its last step was left half-way"):
        trainer.save()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()} == before
    with caplog.at_level(logging.WARNING, "glamkit"):
        assert list(trainer)[-1].kind == "done"
    assert "was left half-way: going on from the checkpoint of step 50" in caplog.text
    assert log(trainer) == log(whole)
    states = (item.state_dict() | {"log_size": 0} for item in (trainer, whole))
    assert same(*states)
    assert open_run(tmp_path / "run").step == 64


def test_before_the_first_checkpoint_the_trainer_is_to_be_made_again(tmp_path: Path) -> None:
    trainer = Trainer(short(game=CATCH), tmp_path)
    interrupted(trainer, "stored", 10)
    with pytest.raises(GlamkitError, match="was left half-way and nothing is saved yet; make the trainer again"):
        list(trainer)
    assert finished(short(game=CATCH), tmp_path).step == 64


@pytest.mark.parametrize("spoil", ["count", "step"])
def test_what_could_not_be_opened_is_not_written(spoil: str, tmp_path: Path) -> None:
    trainer = finished(short(game=CATCH), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}
    if spoil == "count":
        trainer.replay.count += 1
    else:
        trainer.step += 1
    with pytest.raises(GlamkitError, match=r"is not saved: it has made \d\d steps and stored \d\d; make the trainer"):
        trainer.save()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pt")} == before


# Bins -----------------------------------------------------------------------------------------------------------------


class Paying(Square):
    """A square that pays the same at each of ten steps."""

    def __init__(self, reward: float) -> None:
        super().__init__(length=10)
        self.reward = reward

    def step(self, action: int) -> Any:
        frame, _, *rest = super().step(action)
        return frame, self.reward, *rest


LIMITS = "world_model.bin_limit=3 actor_critic.bin_limit=3"


def test_rewards_beyond_the_bins_are_warned_of_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square(Paying, reward=100.0)
    with caplog.at_level(logging.WARNING, "glamkit"):
        trainer = finished(short(LIMITS, game=SQUARE), tmp_path)
    warned = [line.getMessage() for line in caplog.records if "beyond the bins" in line.getMessage()]
    assert warned[0] == (
        "Rewards such as 100 lie beyond the bins, which end at 19.0855: they are learned as that; use "
        "world_model.bin_limit = 4.7 or more in a new run (it is 3), or smaller rewards."
    )
    returned = 100 * (1 - 0.985**10) / (1 - 0.985)
    assert f"Returns such as {returned:.6g} lie beyond" in warned[1] and "actor_critic.bin_limit = 6.9" in warned[1]
    lines = [line for line in log(trainer) if line["kind"] == "log"]
    assert {line["replay/reward_beyond"] for line in lines} == {100.0}
    assert [line["replay/return_beyond"] for line in lines] == [pytest.approx(returned)] * len(lines) and lines
    assert math.expm1(4.7) > 100 > math.expm1(4.6) and math.expm1(6.9) > returned > math.expm1(6.8)


@pytest.mark.parametrize(("reward", "keys"), [(1.0, set()), (-1.0, set()), (-2.5, {"replay/return_beyond"})])
def test_what_fits_the_bins_is_not_warned_of(
    reward: float, keys: set[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square(Paying, reward=reward)
    with caplog.at_level(logging.WARNING, "glamkit"):
        trainer = finished(short(LIMITS, game=SQUARE), tmp_path)
    assert ("beyond the bins" in caplog.text) == bool(keys)
    assert {key for line in log(trainer) for key in line if "beyond" in key} == keys


def test_returns_stop_at_terminations_and_count_the_largest() -> None:
    bins = guards.BinRange(preset("debug", LIMITS), Means())
    for reward, terminated in ((0.0, False), (10.0, False), (10.0, True), (0.0, False), (-25.0, False)):
        bins.add(reward, terminated, False)
    assert bins.largest_return() == -25.0
    bins.steps.pop()
    assert bins.largest_return() == pytest.approx(10 + 0.985 * 10)


def test_a_resumed_run_notices_the_same_returns(tmp_path: Path) -> None:
    square(Paying, reward=3.0)
    config = short(LIMITS, game=SQUARE)
    whole = finished(config, tmp_path / "whole")
    cut = Trainer(config, tmp_path / "cut")
    for event in cut:
        if event.step == 57:
            break
    again = finished(config, tmp_path / "cut")
    assert log(again) == log(whole) and any("replay/return_beyond" in line for line in log(again))


# Devices and folders of before ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("made") / "run"
    finished(short(game=CATCH), folder)
    yield folder


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_run_opens_and_is_evaluated_where_its_device_is_not(
    device: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("device_count", "is_available"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    folder = shutil.copytree(trained, tmp_path / "run")
    text = json.loads((folder / "config.json").read_text())
    text["config"]["runtime"] |= {"device": device, "compile": "on"}
    (folder / "config.json").write_text(json.dumps(text))
    monkeypatch.setenv("CXX", "/nowhere")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with caplog.at_level(logging.WARNING, "glamkit"):
        opened = open_run(folder)
    assert opened.machine.device.type == "cpu" and "it is opened on cpu" in caplog.text
    assert opened.config.runtime.device == device  # what it was trained on is not forgotten
    for changes in ({}, {"runtime.device": "cpu"}):
        assert evaluation.evaluate_run(folder, changes=changes, film=False)[0]["step"] == 64
    with pytest.raises(GlamkitError, match=rf"runtime\.device = '{device}', but"):
        evaluation.evaluate_run(folder, changes={"runtime.device": device}, film=False)


def test_what_is_here_is_left_as_it_is() -> None:
    config = preset("debug", "runtime.device=cpu").runtime
    assert available(config) == config


def test_a_run_with_keepsakes_opens_goes_on_and_is_evaluated(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "snapshots").rename(folder / "keepsakes")
    for path in (folder / "checkpoint").glob("000000064.*"):
        path.unlink()
    early = sorted(path.name for path in (folder / "keepsakes").glob("*.pt"))
    for path in (folder / "keepsakes").glob("000000060.*"):
        path.unlink()
    assert open_run(folder, 57).step == 57 and not (folder / "snapshots").exists()
    assert finished(short(game=CATCH), folder).step == 64
    assert sorted(path.name for path in (folder / "keepsakes").glob("*.pt")) == early
    assert evaluation.evaluate_run(folder, film=False)[0]["step"] == 64 and not (folder / "snapshots").exists()


def test_one_game_has_one_name(tmp_path: Path) -> None:
    names = ["Tennis", "ALE/Tennis-v5", "ale_py:Tennis", "ale_py:ALE/Tennis-v5"]
    assert {EnvConfig(game=name).game for name in names} == {"Tennis"}
    assert EnvConfig(game=f"glamkit.envs.tiny_games:{CATCH}").game == CATCH
    for name in ("ALE/Pong-ram-v5", "mine:Tennis", "PongNoFrameskip-v4", "ale_py:", "late_game:mine/Late-v0"):
        assert EnvConfig(game=name).game == name
    finished(short("trainer.env_steps=50", game="Pong"), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"game": "Pong"', '"game": "ALE/Pong-v5"'))
    assert finished(short("trainer.env_steps=50", game="ale_py:ALE/Pong-v5"), tmp_path).step == 50
    env = make_env(EnvConfig(game="Pong"))
    env.reset(1)
    env.restore(env.clone() | {"game": "ALE/Pong-v5"})
