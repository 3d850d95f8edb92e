"""Makes runs side by side, each in a process of its own; a run that fails is tried again a few times.

A run that is evaluated is finished and left as it is; an interrupted one is resumed. The starter of a process holds the
other end of its standard input. When that closes, by the stop button or because the starter ended, it saves and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from glamkit.bench import timing
from glamkit.config import Config, at_least
from glamkit.errors import INTERRUPTED
from glamkit.runtime import only_gpu, own_cores, visible_gpus
from glamkit.sweeps.job import Job, JobRecord

if TYPE_CHECKING:
    from glamkit.sweeps.ray import Cluster, RayProcess

PATIENCE = 60.0  # seconds in which a process that was asked to stop must have saved
PAUSE = 3.0  # seconds before a failed run is tried again: a killed process's kernel needs one or two to notice


class LocalProcess(subprocess.Popen[str]):
    """A run in a process on this machine, in a session of its own: Ctrl+C in a terminal reaches only its starter."""

    def __init__(self, job: Job, attempt: int, environment: dict[str, str], place: str = "") -> None:
        self.place = place  # the GPU that it has, if any
        with job.errors_file.open("w", encoding="utf-8") as errors:
            super().__init__(
                [sys.executable, "-m", "glamkit.sweeps.worker", str(job.run.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                text=True,
                start_new_session=True,
            )
        notebook = str(job.notebook) if job.notebook else None
        order = {"config": asdict(job.config), "attempt": attempt, "notebook": notebook}
        assert self.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its status will say why
            self.stdin.write(json.dumps(order) + "\n")
            self.stdin.flush()

    def poll(self) -> int | None:
        """None while it works, then its exit status: 0, `INTERRUPTED` if its run was stopped and is saved, another
        positive number, or minus the number of the signal that killed it.
        """
        status = super().poll()
        if status is not None:
            self.finish()
        return status

    def finish(self) -> None:
        """Closes its standard input, at which it saves and ends."""
        if self.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()

    def kill(self) -> None:
        """Ends it at once."""
        super().kill()
        self.wait()


class Local:
    """The engine for this machine: runs share its cores, and each has one GPU if there are any.

    Attributes:
        capacity: runs that may be started.
        at_once: runs that will be made at the same time, as many.

    Args:
        jobs: what is to be made; there are no more places than unfinished runs.
        workers: runs at once; None for one per CPU core, or as many as the GPUs take.
        per_gpu: runs that share a GPU.

    Raises:
        GlamkitError: a number is below one.
    """

    def __init__(self, jobs: Sequence[Job], workers: int | None = None, per_gpu: int = 1) -> None:
        workers = None if workers is None else at_least("workers", workers)
        gpus = visible_gpus() if any(job.config.runtime.device != "cpu" for job in jobs) else []
        places = gpus * at_least("runs_per_gpu", per_gpu) or [""] * (workers or own_cores())
        self.places = places[: min(workers or len(places), max(1, sum(not job.done() for job in jobs)))]
        self.capacity = self.at_once = len(self.places)
        self.running: list[LocalProcess] = []

    def environment(self, place: str) -> dict[str, str]:
        """The environment variables of a process: its share of the cores, and its GPU."""
        share = threads(max(1, own_cores() // self.capacity)) | (only_gpu(place) if place else {})
        return share | importing()

    def start(self, job: Job, attempt: int) -> LocalProcess:
        """Starts a process that trains and evaluates a job, in the first free place."""
        self.running = [process for process in self.running if process.poll() is None]
        taken = Counter(process.place for process in self.running)
        place = next((Counter(self.places) - taken).elements())
        process = LocalProcess(job, attempt, self.environment(place), place)
        self.running.append(process)
        return process

    def hours(self, config: Config) -> float:
        """Hours that a run takes, by a few of its steps in a process such as runs have; errors as `measured_apart`."""
        return timing.measured_apart("hours", config, self.environment(self.places[0]))


class Task(NamedTuple):
    """A job in progress."""

    job: Job
    attempt: int
    process: LocalProcess | RayProcess


class Pool:
    """The runs to be made and those in progress.

    Args:
        jobs: the runs, in the order in which they are started.
        engine: where they are made.
        retries: how often a run that failed is tried again.

    Raises:
        GlamkitError: a job's folder holds another experiment or cannot be written; nothing is started then.
    """

    def __init__(self, jobs: Sequence[Job], engine: Local | Cluster, retries: int = 0) -> None:
        for job in jobs:
            job.run.check(job.config, resume=True)
        self.jobs, self.engine, self.retries = list(jobs), engine, retries
        self.waiting = [(0.0, job, 1) for job in jobs if not job.done()]  # not before this time, which attempt
        self.running: list[Task] = []
        self.failed: dict[str, list[str]] = {}
        self.stopped: dict[str, list[str]] = {}  # by a time limit or a file STOP: they are not tried again
        self.stopping = False

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.running)

    def tend(self) -> list[Job]:
        """Starts as many jobs as may run; returns the jobs that have ended since the last call."""
        ended: list[Job] = []
        for task in list(self.running):
            if (status := task.process.poll()) is not None:
                self.running.remove(task)
                self.settle(task, status)
                ended.append(task.job)
        now = time.monotonic()
        for entry in list(self.waiting):
            when, job, attempt = entry
            if when <= now and len(self.running) < self.engine.capacity:
                self.waiting.remove(entry)
                self.running.append(Task(job, attempt, self.engine.start(job, attempt)))
        return ended

    def settle(self, task: Task, status: int) -> None:
        """Handles the end of a process: a failed run is queued again, or noted as failed; a stopped one is noted."""
        job, errors = task.job, errors_of(task.job)
        if not status and job.notebook:
            job.errors_file.unlink(missing_ok=True)  # Jupyter's own warnings; what the run wrote is in its notebook
        if not status or self.stopping:
            return
        if status == INTERRUPTED:
            self.stopped[job.name] = errors or ["stopped"]
            return
        if status < 0:
            errors.append(f"killed by signal {-status}; was there memory enough?")
        errors = errors or [f"status {status}"]
        record = JobRecord.read(job.run.folder)
        if status < 0 or record is None or not record.alive:  # else another process works there, and says so itself
            job.fail(task.attempt, errors)
        if task.attempt <= self.retries:
            self.waiting.append((time.monotonic() + PAUSE, job, task.attempt + 1))
        else:
            self.failed[job.name] = errors

    def stop(self) -> list[str]:
        """Lets all processes save and end. Those that take too long are killed; a second interrupt kills all.

        Returns:
            The names of the runs that were killed, of which only the last checkpoint is left.
        """
        self.waiting, self.retries, self.stopping = [], 0, True
        for task in self.running:
            task.process.finish()
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(KeyboardInterrupt):
            while self.running and time.monotonic() < deadline:
                self.tend()
                time.sleep(0.05)
        killed = list(self.running)
        for task in killed:
            task.process.kill()
            task.job.fail(task.attempt, ["killed before it had saved"])
        self.tend()
        return [task.job.name for task in killed]


def importing() -> dict[str, str]:
    """The environment variable with which a process finds all modules that this one finds, such as custom games.

    A module may be beside the started program or in a path added by hand, where other processes do not search.
    """
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for path in map(Path.absolute, map(Path, sys.path)):
        packages = {"site-packages", "dist-packages"} & {*path.parts}
        if path.is_dir() and not packages and not any(map(path.is_relative_to, installed)):
            paths.append(str(path))
    return {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}


def threads(count: int) -> dict[str, str]:
    """This process's environment variables, for a process of `count` threads.

    OMP_NUM_THREADS, if it is set, replaces `count`.
    """
    number = os.environ.get("OMP_NUM_THREADS") or str(count)
    return {f"{library}_NUM_THREADS": number for library in ("OMP", "MKL", "OPENBLAS")} | os.environ


def errors_of(job: Job) -> list[str]:
    """The lines that a process wrote about its failure; an empty file is removed."""
    if not job.errors_file.exists():
        return []
    text = job.errors_file.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        job.errors_file.unlink()
    return [line for line in text.splitlines() if line.strip()]
