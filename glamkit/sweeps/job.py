"""Runs to be made, and where each one is: read from its folder alone, so that any machine that sees it can say.

job.json     who works on a run: state, attempt, host, process, a beat of the clock, and the error that ended it
errors.txt   what its process wrote when it failed
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.runs.folder import IDLE, UNSCORED, Run, replace_text

TAIL = 65_536  # bytes of a log in which its last lines are looked for
BEAT = 5.0  # seconds between two signs of life
FRESH = 60.0  # seconds after which a run without one is no longer at work
SHOWN = 6  # lines of an error that are kept in job.json
STATES = ("done", "running", "queued", "cut", "failed")


class JobRecord(NamedTuple):
    """What the process of a run says of itself in job.json; times are seconds since 1970."""

    state: str  # running, done, stopped or failed
    attempt: int
    host: str
    pid: int
    started: float
    beat: float
    error: list[str]

    @staticmethod
    def read(folder: Path) -> JobRecord | None:
        """The record in a run folder, or None where there is none that can be read."""
        try:
            data = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            kinds = {"state": str, "attempt": int, "host": str, "pid": int, "started": float, "beat": float}
            return JobRecord(
                **{name: kind(data[name]) for name, kind in kinds.items()}, error=list(map(str, data["error"]))
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    @staticmethod
    def begin(attempt: int) -> JobRecord:
        """Of a run that this process works on from now on."""
        now = time.time()
        return JobRecord("running", attempt, socket.gethostname(), os.getpid(), now, now, [])

    def write(self, folder: Path) -> None:
        """Writes it at once, with the present time as its beat."""
        replace_text(folder / "job.json", json.dumps(self._replace(beat=time.time())._asdict(), indent=1))

    @property
    def alive(self) -> bool:
        """Whether its process has given a sign of life lately."""
        return self.state == "running" and time.time() - self.beat < FRESH


class JobProgress(NamedTuple):
    """Where a run is.

    Attributes:
        state: one of `STATES`; ``cut`` is a run that was begun and that nobody works on.
        step: agent steps that its log has reached, of `total`.
        speed: agent steps per second with updates, as it last wrote; 0 while that is not known.
        score: mean return of the final evaluation, if there is one.
        record: who works on it, or did.
        work: agent steps with updates that are left, see `Job.work`.
    """

    state: str
    step: int
    total: int
    speed: float
    score: float | None
    record: JobRecord | None
    work: int

    @property
    def left(self) -> float | None:
        """Seconds to its end, without the evaluation."""
        return self.work / self.speed if self.state == "running" and self.speed else None


class Job(NamedTuple):
    """A run to be made: its folder, its config, its name for people and the notebook that makes it.

    Without a notebook it is trained and evaluated by the library alone.
    """

    run: Run
    config: Config
    label: str = ""
    notebook: Path | None = None

    @property
    def name(self) -> str:
        """Its label, or the folder's name."""
        return self.label or self.run.folder.name

    @property
    def total(self) -> int:
        """Agent steps of the whole run."""
        return self.config.trainer.env_steps

    def work(self, step: int) -> int:
        """Agent steps with updates that are left after `step`; beside them the random ones take no time."""
        return self.total - max(step, self.config.trainer.warmup)

    @property
    def errors_file(self) -> Path:
        """Where its process writes what went wrong."""
        return self.run.folder / "errors.txt"

    def step(self) -> int:
        """Agent steps that the log has reached."""
        return next((int(entry["step"]) for entry in self.last_entries()), 0)

    def last_entries(self) -> list[dict[str, Any]]:
        """The last lines of the log, newest first; damaged ones are passed over."""
        try:
            with self.run.log_file.open("rb") as file:
                file.seek(max(0, self.run.log_file.stat().st_size - TAIL))
                lines = file.read().splitlines()
        except OSError:
            return []
        entries = []
        for line in reversed(lines):
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                entry = json.loads(line)
                entries.append({**entry, "step": int(entry["step"])})
        return entries

    def score(self) -> float | None:
        """The mean return of the final evaluation, or None while there is none."""
        try:
            report = json.loads(self.run.evaluation_file.read_text(encoding="utf-8"))
            return float(report["mean_return"]) if report["step"] == self.total else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def done(self) -> bool:
        """Whether there is nothing left to do: evaluated, and its process, if it left a record, came to its end."""
        record = JobRecord.read(self.run.folder)
        return self.score() is not None and (record is None or record.state == "done") and self.as_wanted()

    def as_wanted(self) -> bool:
        """Whether the run was made, and its score measured, by the settings that are wanted now."""
        try:
            return not {key for key in self.run.changes(self.config) if key not in (*IDLE, *UNSCORED)}
        except GlamkitError:  # another experiment: an error for whoever would run it
            return True

    def progress(self) -> JobProgress:
        """Where it is, from its folder."""
        record, score, entries = JobRecord.read(self.run.folder), self.score(), self.last_entries()
        # The first line after the warm-up still counts random steps, which say nothing of the speed.
        trained = self.config.trainer.warmup + self.config.trainer.log_every
        speeds = [float(entry.get("time/steps_per_second") or 0) for entry in entries if entry["step"] >= trained]
        if score is not None and (record is None or record.state == "done"):
            state = "done"
        elif record is not None and record.alive:
            state = "running"
        elif record is not None and record.state == "failed":
            state = "failed"
        else:
            state = "cut" if self.run.started or record is not None else "queued"
        step = entries[0]["step"] if entries else 0
        return JobProgress(state, step, self.total, next(filter(None, speeds), 0.0), score, record, self.work(step))

    def fail(self, attempt: int, error: list[str]) -> None:
        """Writes down that its process ended, on behalf of one that was killed before it could."""
        (JobRecord.read(self.run.folder) or JobRecord.begin(attempt))._replace(
            state="failed", error=error[-SHOWN:]
        ).write(self.run.folder)
