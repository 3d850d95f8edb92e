"""An evaluation says how far it is, is stopped by any means, and run again ends in the same report."""

from __future__ import annotations

import itertools
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finished, log

from glamkit.config import preset
from glamkit.errors import StoppedError
from glamkit.runs import status
from glamkit.training import evaluation
from glamkit.training.trainer import Trainer

CONFIG = preset(
    "debug",
    "evaluation.episodes=5 evaluation.games=3 trainer.env_steps=50 runtime.device=cpu",
    game="glamkit/Catch-v0",
)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return finished(CONFIG, tmp_path_factory.mktemp("run"))


def report(trainer: Trainer, **given: Any) -> dict[str, Any]:
    with evaluation.asked(trainer.run) as stop:
        return evaluation.evaluate(trainer.agent, CONFIG, trainer.machine, trainer.step, **{"stop": stop, **given})


def after(looks: int) -> Any:
    """Asks to stop at the look of that number."""
    numbers = itertools.count(1)
    return lambda: next(numbers) >= looks


def test_a_stopped_evaluation_begins_anew_and_ends_in_the_same_report(trainer: Trainer) -> None:
    whole = report(trainer)
    with pytest.raises(StoppedError, match=r"stopped after \d of 5 episodes; run again, it plays all of them\.$"):
        report(trainer, stop=after(15))
    assert report(trainer) == whole


def test_how_far_it_is_is_told_before_each_step(trainer: Trainer) -> None:
    lines: list[str] = []
    with pytest.raises(StoppedError):
        report(trainer, stop=after(20), tell=lines.append)
    assert len(lines) == 20
    before = "evaluation 0 of 5 episodes  step 6/40  "
    assert lines[6].startswith(before) and re.search(r"\d steps/s$", lines[6])
    lines.clear()
    report(trainer, tell=lines.append)
    assert lines[-1].startswith("evaluation 3 of 5 episodes  ")


def test_the_stop_button_ends_it_in_one_sentence(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = trainer.agent.act
    numbers = itertools.count()

    def pressed(*given: Any, **named: Any) -> Any:
        if next(numbers) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(*given, **named)

    monkeypatch.setattr(trainer.agent, "act", pressed)
    with pytest.raises(StoppedError, match=r"^the evaluation was stopped after \d of 5 episodes;"):
        report(trainer)
    monkeypatch.undo()
    assert len(report(trainer)["episodes"]) == 5


def test_the_file_stop_ends_one_evaluation_and_no_other(trainer: Trainer) -> None:
    trainer.run.stop_file.touch()
    with pytest.raises(StoppedError):
        report(trainer)
    assert not trainer.run.stop_file.exists()
    assert len(report(trainer)["episodes"]) == 5


@pytest.mark.parametrize("every", [49, 52])  # amid the run, and after its last step
def test_a_stop_in_training_does_not_wait_for_an_evaluation(tmp_path: Path, every: int) -> None:
    config = CONFIG.override({"evaluation.every": every, "trainer.env_steps": 52})
    once = finished(config, tmp_path / "once")
    stopped = Trainer(config, tmp_path / "twice")
    usual = stopped.agent.act
    seen: list[int] = []

    def pressed(frames: Any, *given: Any, **named: Any) -> Any:
        seen.append(len(frames))
        if seen.count(3) == 4:
            stopped.session.stops.reason = "asked"
        return usual(frames, *given, **named)

    stopped.agent.act = pressed  # type: ignore[method-assign]
    assert list(stopped)[-1][:2] == ("stopped", every)
    assert status.read(stopped.run.status_file).state == "stopped"
    again = Trainer(config, tmp_path / "twice")
    kinds = [event.kind for event in again]
    assert (kinds[0], kinds[-1]) == ("evaluation", "done")
    files = [run.run.folder / "evaluations" / f"0000000{every}.json" for run in (once, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert log(once) == log(again)
    with pytest.raises(StoppedError):  # the final one
        evaluation.evaluate(again.agent, config, again.machine, 52, stop=after(3))
    assert [event.kind for event in Trainer(config, tmp_path / "twice")] == ["done"]
    assert log(once) == log(again)  # opening it once more takes no line away
