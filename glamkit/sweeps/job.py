"""Runs to be made and their progress, read from their folders alone; so any machine that sees a folder can show it.

job.json     the process of a run: state, attempt, host, process number, time of its last sign of life, and error
errors.txt   what the process wrote when it failed
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runs.files import make_folder
from glamkit.runs.folder import IDLE, UNSCORED, Run, replace_text

BEAT = 5.0  # seconds between two signs of life
FRESH = 60.0  # seconds after which a run without one is no longer at work
SHOWN = 6  # lines of an error that are kept in job.json
STATES = ("running", "failed", "cut", "queued", "done")  # in the order of tables


class JobRecord(NamedTuple):
    """The record that the process of a run keeps in job.json; times are seconds since 1970."""

    state: str  # running, done, stopped or failed
    attempt: int  # from 1
    host: str
    pid: int
    beat: float
    error: list[str]

    @staticmethod
    def read(folder: Path) -> JobRecord | None:
        """The record in a run folder, or None if there is none that can be read."""
        try:
            return JobRecord(**json.loads((folder / "job.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def begin(attempt: int) -> JobRecord:
        """A new record, of a run that this process works on from now on."""
        return JobRecord("running", attempt, socket.gethostname(), os.getpid(), time.time(), [])

    def write(self, folder: Path) -> None:
        """Writes it as a whole, with the present time as its last sign of life."""
        replace_text(folder / "job.json", json.dumps(self._replace(beat=time.time())._asdict(), indent=1))

    @property
    def alive(self) -> bool:
        """Whether its process has given a sign of life recently."""
        return self.state == "running" and time.time() - self.beat < FRESH


class JobProgress(NamedTuple):
    """The progress of a run."""

    state: str  # one of `STATES`; ``cut`` is a run that was begun and that no process works on
    step: int  # agent steps that its log has reached
    total: int  # agent steps of the whole run
    speed: float  # agent steps per second with updates, from the log; 0 while it is not known
    score: float | None  # mean return of the final evaluation
    record: JobRecord | None  # of the process that works or worked on it
    work: int  # agent steps with updates that are left


class Job(NamedTuple):
    """A run to be made; without a notebook, the library alone trains and evaluates it."""

    name: str  # in tables
    run: Run
    config: Config
    notebook: Path | None = None

    @property
    def total(self) -> int:
        """Agent steps of the whole run."""
        return self.config.trainer.env_steps

    def work(self, step: int) -> int:
        """Agent steps with updates that are left after `step`; the random steps before them take almost no time."""
        return self.total - max(step, self.config.trainer.warmup)

    @property
    def errors_file(self) -> Path:
        """The file that its process writes errors to."""
        return self.run.folder / "errors.txt"

    def final(self) -> tuple[float | None, int]:
        """The mean return of the final evaluation, and after how many steps games of it were cut; 0 if all are whole.

        None and 0 while there is no evaluation, or only one by other settings.
        """
        try:
            report = json.loads(self.run.evaluation_file.read_text(encoding="utf-8"))
            score, cut = float(report["mean_return"]), any(game.get("cut") for game in report.get("episodes", ()))
            if report["step"] != self.total or self.run.changes(self.config).keys() - IDLE - UNSCORED:
                return None, 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError, GlamkitError):
            return None, 0
        return score, self.config.evaluation.episode_steps if cut else 0

    def done(self) -> bool:
        """Whether nothing is left to do: it is evaluated, and its process, if it left a record, has ended."""
        return self.progress().state == "done"

    def progress(self) -> JobProgress:
        """Its progress, read from its folder."""
        record, score = JobRecord.read(self.run.folder), self.final()[0]
        if score is not None and (record is None or record.state == "done"):
            state = "done"
        elif record is not None and record.alive:
            state = "running"
        elif record is not None and record.state == "failed":
            state = "failed"
        else:
            state = "cut" if self.run.started or record is not None else "queued"
        entries = log.added(self.run.log_file, -log.TAIL)[0]
        step = entries[-1]["step"] if entries else 0
        last = self.total - self.total % self.config.trainer.log_every  # after it the log has no line
        step = self.total if score is not None or 0 < last <= step else step
        return JobProgress(state, step, self.total, log.speed(entries, self.config), score, record, self.work(step))

    def fail(self, attempt: int, error: list[str]) -> None:
        """Records the end of an attempt whose process was killed before it could do so, with its errors."""
        make_folder(self.run.folder)  # it may have been removed meanwhile
        record = JobRecord.read(self.run.folder) or JobRecord.begin(attempt)
        record._replace(state="failed", error=error[-SHOWN:]).write(self.run.folder)
