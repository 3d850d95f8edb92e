"""Processes on this machine: what each is given of the cores and GPUs, and the files it finds and leaves alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import catch_jobs

from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run
from glamkit.sweeps import local
from glamkit.sweeps.job import Job
from glamkit.sweeps.local import Local, LocalProcess


def test_a_process_makes_its_folder_and_begins_its_errors_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = catch_jobs(tmp_path, 1)
    folder = job.run.folder
    monkeypatch.setattr("sys.executable", shutil.which("true"))

    def errors() -> str:
        process = LocalProcess(job, 1, dict(os.environ))
        process.wait()
        process.finish()
        return job.errors_file.read_text()

    assert errors() == ""
    shutil.rmtree(folder)
    job.fail(1, ["gone"])
    assert job.progress().state == "failed"
    job.errors_file.write_text("of before\n")
    assert errors() == ""


def test_the_cores_and_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = catch_jobs(tmp_path, 8)
    for library in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.delenv(f"{library}_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "own_cores", lambda: 6)
    threads = {n: Local(todo, n).environment("")["OMP_NUM_THREADS"] for n in (1, 2, 4, 7, None)}
    assert threads == {1: "6", 2: "3", 4: "1", 7: "1", None: "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # by hand; torch itself goes by MKL's
    by_hand = Local(todo, 2).environment("")
    assert {by_hand[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")} == {"5"}
    assert Local(todo[:2]).capacity == 2  # no more places than runs
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "3"])
    assert Local(todo).places == [""] * 6  # all of them want the CPU
    auto = [job._replace(config=job.config.override({"runtime.device": "auto"})) for job in todo]
    assert Local(auto).places == ["0", "3"]
    assert Local(auto, per_gpu=2).places == ["0", "3", "0", "3"]
    assert Local(auto, workers=3, per_gpu=2).places == ["0", "3", "0"]
    assert "3" in Local(auto).environment("3").values()
    with pytest.raises(GlamkitError, match="runs_per_gpu = 0 is outside its range: at least 1"):
        Local(auto, per_gpu=0)
    for job in auto:
        job.run.folder.mkdir(parents=True)
    engine = Local(auto, per_gpu=2)
    monkeypatch.setattr(local, "LocalProcess", Alive)
    started = [engine.start(job, 1) for job in auto[:4]]
    name = next(key for key, value in local.only_gpu("3").items())
    assert sorted(process.environment[name] for process in started) == ["0", "0", "3", "3"]


class Alive:
    def __init__(self, *given: Any) -> None:
        *_, self.environment, self.place = given

    def poll(self) -> None:
        return None


def test_a_run_whose_log_ends_before_its_last_step_comes_to_its_end(tmp_path: Path) -> None:
    job = Job("run", Run(tmp_path / "run"), preset("quick", "trainer.log_every=60"))  # 11,000 is no multiple of it
    job.run.folder.mkdir()
    job.run.begin(job.config, {})
    for step, shown in ((10_920, 10_920), (10_980, 11_000)):
        job.run.log_file.write_text(json.dumps({"step": step, "kind": "log", "time/steps_per_second": 8.0}) + "\n")
        assert job.progress().step == shown
    assert job.progress().work == 0
