"""Makes runs side by side; a run that fails is tried again a few times.

A run that is evaluated is finished and left as it is; an interrupted one is resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from glamkit.errors import INTERRUPTED
from glamkit.sweeps.job import Job, JobRecord
from glamkit.sweeps.local import Local, LocalProcess
from glamkit.sweeps.ray import PATIENCE, Cluster, RayProcess


class Pool:
    """The runs to be made and those in progress; a run that failed is tried again `retries` times.

    A GlamkitError, before anything is started, says which folder holds another experiment or cannot be written.
    """

    def __init__(self, jobs: Sequence[Job], engine: Local | Cluster, retries: int = 0) -> None:
        for job in jobs:
            job.run.check(job.config, resume=True)
        self.jobs, self.engine, self.retries = list(jobs), engine, retries
        self.waiting = [(job, 1) for job in jobs if not job.done()]  # each with its attempt
        self.running: list[LocalProcess | RayProcess] = []
        self.failed: dict[str, list[str]] = {}
        self.stopped: dict[str, list[str]] = {}  # by a time limit or a file STOP: they are not tried again
        self.stopping = False

    def tend(self) -> list[Job]:
        """Starts as many jobs as may run; returns the jobs that have ended since the last call."""
        ended: list[Job] = []
        for process in list(self.running):
            if (status := process.poll()) is not None:
                self.running.remove(process)
                self.settle(process, status)
                ended.append(process.job)
        while self.waiting and len(self.running) < self.engine.capacity:
            job, attempt = self.waiting.pop(0)
            if job.done():  # made meanwhile by another process
                ended.append(job)
            else:
                self.running.append(self.engine.start(job, attempt))
        return ended

    def settle(self, process: LocalProcess | RayProcess, status: int) -> None:
        """Handles the end of a process: a failed run is queued again or noted as failed, a stopped one noted."""
        job, attempt, text = process.job, process.attempt, ""
        if job.errors_file.exists():
            text = job.errors_file.read_text(encoding="utf-8", errors="replace")
            if not text.strip() or (job.notebook and not status):  # of a notebook that succeeded: Jupyter's warnings
                job.errors_file.unlink()
        errors = [line for line in text.splitlines() if line.strip()]
        if not status or self.stopping:
            return
        if status == INTERRUPTED:
            self.stopped[job.name] = errors or ["stopped"]
            return
        if status < 0:
            errors.append(f"killed by signal {-status}; was there memory enough?")
        errors = errors or [f"status {status}"]
        record = JobRecord.read(job.run.folder)
        if status < 0 or not (record and record.alive):  # alive: of another process, to which this one gave way
            job.fail(attempt, errors)
        if attempt <= self.retries:
            self.waiting.append((job, attempt + 1))
        else:
            self.failed[job.name] = errors

    def stop(self) -> list[str]:
        """Lets all processes save and end. Those that take too long are killed; a second interrupt kills all.

        Returns the names of the runs that were killed, of which only the last checkpoint is left.
        """
        self.waiting, self.retries, self.stopping = [], 0, True
        for process in self.running:
            process.finish()
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(KeyboardInterrupt):
            while self.running and time.monotonic() < deadline:
                self.tend()
                time.sleep(0.05)
        killed = list(self.running)
        for process in killed:
            process.kill()
            process.job.fail(process.attempt, ["killed before it had saved"])
        self.tend()
        return [process.job.name for process in killed]
