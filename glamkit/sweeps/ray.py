"""Runs on a Ray cluster: Ray queues them and places them on its machines, all of which share the batch's folder.

Each run is the same process as on one machine, started by a Ray task. If the task's process is killed, the run notices
it, saves and ends. It is then begun again on any free machine of the cluster.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from glamkit.bench import timing
from glamkit.config import Config, at_least
from glamkit.errors import GlamkitError, install, reason
from glamkit.sweeps.job import Job
from glamkit.sweeps.local import LocalProcess, importing, threads

PATIENCE = 60.0  # seconds in which a process that was asked to stop must have saved
ALL = 1_000_000  # runs that are handed over at once: the queue is Ray's


class Cluster:
    """The engine for a Ray cluster; arguments and errors are those of `Sweep.engine`.

    It gives `capacity` runs to Ray's queue, of which the cluster makes `at_once` at the same time.
    """

    def __init__(self, jobs: Sequence[Job], workers: int | None, per_gpu: int, address: str, cpus: int) -> None:
        self.cpus, per_gpu = at_least("cpus", cpus), at_least("runs_per_gpu", per_gpu)
        self.capacity = ALL if workers is None else at_least("workers", workers)
        try:
            self.ray = importlib.import_module("ray")
        except ImportError:
            raise GlamkitError(f"engine = 'ray' needs Ray, which is not installed: {install('cluster')}.") from None
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise GlamkitError(
                f"no Ray cluster can be used at {address!r} ({reason(error)}); start one with 'ray start --head'."
            ) from None
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]  # a run is on one of them
        gpus = any(job.config.runtime.device != "cpu" for job in jobs) and any(node.get("GPU") for node in nodes)
        self.needs = {"num_cpus": cpus, "num_gpus": 1 / per_gpu if gpus else 0}
        places = sum(min(n.get("CPU", 0.0) // cpus, n.get("GPU", 0.0) * per_gpu if gpus else ALL) for n in nodes)
        if places < 1:
            raise GlamkitError(f"no machine of the cluster has room for a run of {cpus} CPU cores; lower cpus.")
        self.at_once = int(min(self.capacity, places))

    def start(self, job: Job, attempt: int) -> RayProcess:
        """Gives a run to Ray's queue."""
        return RayProcess(self.ray, self.task(hold, job, attempt), job, attempt)

    def hours(self, config: Config) -> float:
        """Hours that a run takes, by a few of its steps on a machine of the cluster."""
        try:
            return float(self.ray.get(self.task(hours, config)))
        except self.ray.exceptions.RayError as error:
            raise GlamkitError(last_line(error).removeprefix("glamkit.errors.GlamkitError: ")) from None

    def task(self, function: Callable[..., Any], *given: object) -> Any:
        """Has Ray call a function on any of its machines, with the cores and the module folders of a run."""
        return self.ray.remote(max_retries=0, **self.needs)(function).remote(*given, self.cpus, importing())


class RayProcess:
    """A run in Ray's queue or on one of its machines; used as `LocalProcess`."""

    def __init__(self, ray: Any, reference: Any, job: Job, attempt: int) -> None:
        self.ray, self.reference, self.job, self.attempt = ray, reference, job, attempt

    def poll(self) -> int | None:
        """As `LocalProcess.poll`."""
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(self.reference))
        except self.ray.exceptions.RayError as error:
            with contextlib.suppress(OSError):
                self.job.errors_file.write_text(f"{last_line(error)}\n", encoding="utf-8")
            return 1

    def finish(self) -> None:
        """Interrupts the task, which lets its run save."""
        self.ray.cancel(self.reference, force=False)

    def kill(self) -> None:
        """Ends it at once."""
        self.ray.cancel(self.reference, force=True)


def hold(job: Job, attempt: int, cpus: int, search: dict[str, str]) -> int:
    """Makes a run on the machine where Ray has put this task, see `local.importing`; returns its exit status."""
    if not job.run.folder.is_dir():
        raise GlamkitError(f"{socket.gethostname()} does not see {job.run.folder}; all machines must share the folder.")
    process = LocalProcess(job, attempt, threads(cpus) | search)
    try:
        while (status := process.poll()) is None:
            time.sleep(0.2)
        return status
    except KeyboardInterrupt:  # Ray's way to cancel
        process.finish()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        raise


def hours(config: Config, cpus: int, search: dict[str, str]) -> float:
    """Hours that a run takes on the machine where Ray has put this task."""
    return timing.hours_apart(config, threads(cpus) | search)


def last_line(error: Exception) -> str:
    """The last line of an error of Ray: its cause."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
