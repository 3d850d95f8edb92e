"""Runs on this machine, each in a process of its own, which share its cores and GPUs.

The starter of a process holds the other end of its standard input. When that closes, by the stop button or because the
starter ended, it saves and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from glamkit.bench import timing
from glamkit.config import Config, at_least
from glamkit.runs.files import make_folder
from glamkit.runtime import only_gpu, own_cores, visible_gpus
from glamkit.sweeps.job import Job


class LocalProcess(subprocess.Popen[str]):
    """A run in a process on this machine, in a session of its own: Ctrl+C in a terminal reaches only its starter."""

    def __init__(self, job: Job, attempt: int, environment: dict[str, str], place: str = "") -> None:
        self.job, self.attempt, self.place = job, attempt, place  # the GPU that it has, if any
        make_folder(job.run.folder)  # it may have been removed since the job was queued
        with job.errors_file.open("w", encoding="utf-8") as errors:
            super().__init__(
                [sys.executable, "-m", "glamkit.sweeps.worker", str(job.run.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                text=True,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            )
        notebook = str(job.notebook) if job.notebook else None
        order = {"config": asdict(job.config), "attempt": attempt, "notebook": notebook}
        assert self.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its status will say why
            self.stdin.write(json.dumps(order) + "\n")
            self.stdin.flush()

    def poll(self) -> int | None:
        """None while it works, then its exit status: `INTERRUPTED` if its run was stopped and is saved."""
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

    Without `workers` there is one run per CPU core, or as many as the GPUs take with `per_gpu` on each.
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
        free = list(self.places)
        for process in self.running:
            free.remove(process.place)
        process = LocalProcess(job, attempt, self.environment(free[0]), free[0])
        self.running.append(process)
        return process

    def hours(self, config: Config) -> float:
        """Hours that a run takes, by a few of its steps in a process such as runs have; errors as `hours_apart`."""
        return timing.hours_apart(config, self.environment(self.places[0]))


def importing() -> dict[str, str]:
    """The environment variable with which a process finds all modules that this one finds, such as custom games."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for path in map(Path.absolute, map(Path, sys.path)):
        packages = {"site-packages", "dist-packages"} & {*path.parts}
        if path.is_dir() and not packages and not any(map(path.is_relative_to, installed)):
            paths.append(str(path))
    return {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}


def threads(count: int) -> dict[str, str]:
    """This process's environment variables, for a process of `count` threads, or OMP_NUM_THREADS if that is set."""
    number = os.environ.get("OMP_NUM_THREADS") or str(count)
    return {f"{library}_NUM_THREADS": number for library in ("OMP", "MKL", "OPENBLAS")} | os.environ
