"""The process of one run: asked to stop at any time it saves, and says that it was stopped, not that it failed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tiny_runs import catch_jobs, evaluated

from glamkit.config import preset
from glamkit.errors import INTERRUPTED, GlamkitError, StoppedError
from glamkit.runs import Run, session
from glamkit.sweeps import worker
from glamkit.sweeps.job import Job, JobRecord
from glamkit.sweeps.plan import NOTEBOOK
from glamkit.training import checkpoint, evaluation


class Input(io.StringIO):
    """A standard input, the other end of which is held here."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = os.pipe()

    def order(self, job: Job) -> None:
        """Has the worker make this job."""
        self.write(json.dumps({"config": asdict(job.config), "attempt": 1, "notebook": None}) + "\n")
        self.seek(0)

    def fileno(self) -> int:
        return self.inner

    def end(self) -> None:
        """Closes the other end, as a starter does that asks to stop or has ended."""
        if self.outer:
            os.close(self.outer)
        self.outer = 0


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Input]:
    """The worker's standard input."""
    result = Input()
    monkeypatch.setattr("sys.stdin", result)
    yield result
    result.end()


def made(folder: Path, **changes: Any) -> Job:
    """A run of 96 steps, of which 48 are random, with other settings."""
    (job,) = catch_jobs(folder, 1)
    job.run.folder.mkdir(parents=True)
    return job._replace(config=job.config.override(changes))


@pytest.mark.parametrize("step", [64, 96], ids=["during training", "at the end"])
def test_it_saves_when_it_is_asked_to_stop_in_an_evaluation(
    step: int, tmp_path: Path, given: Input, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = {"evaluation.episodes": 1000, "evaluation.games": 1, "trainer.save_every": 1000}
    job = made(tmp_path, **many, **{"evaluation.every": 64 if step == 64 else 0})
    given.order(job)
    evaluate, begun = evaluation.evaluate, list[int]()

    def played(*about: Any, **more: Any) -> dict[str, Any]:
        begun.append(about[3])
        given.end()
        return evaluate(*about, **more)

    monkeypatch.setattr(evaluation, "evaluate", played)
    assert worker.main(job.run.folder) == INTERRUPTED
    assert begun == [step]
    assert "stopped" in capsys.readouterr().err
    assert checkpoint.steps(job.run.checkpoints)[-1] == step
    assert not job.run.stop_file.exists()
    record = JobRecord.read(job.run.folder)
    assert record is not None and record.state == "stopped" and "stopped" in record.error[-1]


def test_a_time_limit_is_no_failure(tmp_path: Path, given: Input, capsys: pytest.CaptureFixture[str]) -> None:
    job = made(tmp_path, **{"runtime.max_hours": 1e-9})
    given.order(job)
    assert worker.main(job.run.folder) == INTERRUPTED
    assert "and saved (runtime.max_hours = 1e-09 is over)" in capsys.readouterr().err
    record = JobRecord.read(job.run.folder)
    assert record is not None and record.state == "stopped"


def test_a_run_that_is_done_is_not_made_again(tmp_path: Path, given: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(tmp_path)
    evaluated(job)
    JobRecord.begin(7)._replace(state="done").write(job.run.folder)
    given.order(job)
    monkeypatch.setattr(worker, "train", Mock(side_effect=AssertionError))
    assert worker.main(job.run.folder) == 0
    record = JobRecord.read(job.run.folder)
    assert record is not None and (record.state, record.attempt) == ("done", 7)


def test_what_can_be_mended_is_one_sentence_and_a_bug_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "make", Mock(side_effect=GlamkitError("seed = -1 is outside its range.")))
    assert worker.main(Path("run")) == 2
    assert capsys.readouterr() == ("", "seed = -1 is outside its range.\n")
    monkeypatch.setattr(worker, "make", Mock(side_effect=KeyError("step")))
    with pytest.raises(KeyError):
        worker.main(Path("run"))


@pytest.mark.slow
def test_a_notebook_that_stopped_is_no_failure(tmp_path: Path) -> None:
    job = made(tmp_path, **{"runtime.max_hours": 1e-9})
    with pytest.raises(StoppedError, match=r"stopped at step \d+ of 96 and saved \(runtime\.max_hours"):
        worker.execute(NOTEBOOK, job.config, job.run.folder)


def test_a_stop_in_the_evaluation_after_the_last_step_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file STOP then ended that evaluation alone, and the final one was played at once."""
    overrides = "runtime.device=cpu trainer.env_steps=50 evaluation.every=50"
    config, run = preset("debug", overrides, game="glamkit/Catch-v0"), Run(tmp_path / "run")
    usual = evaluation.play_round

    def asked(*given: Any) -> Any:
        run.stop_file.touch()
        return usual(*given)

    with monkeypatch.context() as patch:
        patch.setattr(session, "LOOK", 0.0)
        patch.setattr(evaluation, "play_round", asked)
        with pytest.raises(StoppedError, match=r"^stopped at step 50 and saved \(found STOP in the run folder\)\.$"):
            worker.train(config, run.folder)
    assert not run.stop_file.exists() and not run.evaluation_file.exists()
    worker.train(config, run.folder)
    assert run.evaluation_file.exists()
