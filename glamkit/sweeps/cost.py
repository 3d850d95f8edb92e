"""Predicts the cost of a batch before it starts: hours of each run, from a benchmark or from a short timing.

As a program it times one run, whose config it reads from its standard input. So it gets a GPU and threads as runs do.
"""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from glamkit.bench import hardware
from glamkit.bench.timing import TimedTrainer, run_hours, step_costs
from glamkit.config import Config, differences
from glamkit.errors import GlamkitError
from glamkit.notebook import Tell, duration
from glamkit.plotting import count
from glamkit.runs.files import read_json
from glamkit.runtime import Machine
from glamkit.sweeps.job import Job
from glamkit.sweeps.pool import Local
from glamkit.sweeps.ray import Cluster

SPAN = 0.3  # seconds over which playing is timed
DAY = 24.0  # hours of machine time that nobody has to agree to
QUICK = {"runtime.compile": "off"}  # compiling takes longer than the timing is worth
SAME_COST = {"env.game": "Pong", "trainer.seed": 1}  # what does not change the cost of a run


class Estimate(NamedTuple):
    """The hours of each unfinished run, in the order in which they begin, and how many are made at once."""

    each: tuple[float, ...]
    at_once: int
    devices: int
    basis: str

    @property
    def runs(self) -> int:
        """How many."""
        return len(self.each)

    @property
    def hours(self) -> float:
        """Hours of all runs, one after the other."""
        return sum(self.each)

    @property
    def wall(self) -> float:
        """Hours until all are done: each begins where a place is free first."""
        places = [0.0] * max(1, self.at_once)
        for hours in self.each:
            heapq.heapreplace(places, places[0] + hours)
        return max(places)

    @property
    def machine(self) -> float:
        """Hours of machine time: of the CPU that runs share, or of all GPUs or nodes that they use, together."""
        return self.wall * min(self.devices, self.at_once, self.runs)

    def __str__(self) -> str:
        share = f"{self.at_once} at once" if self.at_once > 1 else "one after the other"
        runs = count(self.runs, "run")
        return f"{runs} to make, {share}: about {duration(3600 * self.wall)} ({self.basis}; without evaluation)"


def estimate(
    jobs: Sequence[Job], engine: Local | Cluster, benchmark: str | Path = "", tell: Tell = lambda _: None
) -> Estimate:
    """Hours of the unfinished part of a batch.

    Args:
        jobs: its runs; finished ones cost nothing, begun ones only the part that is left.
        engine: where they will be made; it times configs that the benchmark does not cover.
        benchmark: path of the JSON of `glamkit benchmark` on such a machine; empty for none.
        tell: is given lines about the progress: timing takes minutes for large models on a CPU.

    Raises:
        GlamkitError: the benchmark cannot be read, a folder holds another experiment, or a run could not be timed.
    """
    known, hours, bases = read_benchmark(benchmark), dict[Config, float](), set[str]()
    for job in jobs:
        if job.run.started:
            job.run.check(job.config, resume=True)
    left = [job for job in jobs if not job.done()]
    each, start = list[float](), 0.0
    for job in left:
        key = job.config.override(SAME_COST)
        if key not in hours:
            hours[key], begins, basis = predict(job.config, engine, known, tell)
            start = max(start, begins)
            bases.add(basis)
        each.append(hours[key] * job.work(job.step()) / job.work(0))
    basis = " and ".join(sorted(bases)) or "nothing is left to do"
    return Estimate(tuple(one + start for one in each), engine.at_once, engine.devices, basis)


def predict(
    config: Config, engine: Local | Cluster, known: dict[str, Any] | None, tell: Tell
) -> tuple[float, float, str]:
    """Hours of one run, hours of starting its processes, and the basis of these numbers as text.

    A run is a process of its own, and its notebook another one. Both take as long to start as the timing does.
    """
    if known is not None:
        measured = Config.from_dict(known["settings"]["config"])
        same = {"env.game", "trainer.seed", "trainer.env_steps"}
        if not [k for k in differences(measured, config) if k not in same and not k.startswith("runtime.")]:
            costs = {int(k): float(v) for k, v in known["predicted_hours"]["step_s_at_horizon"].items()}
            return run_hours(config, costs, known["environment"]), 0.0, "from the benchmark"
    began = time.perf_counter()
    what = f"predicting the cost of {config.env.game} by {config.preset}"
    tell(f"{what}: a process starts")
    answer = engine.ask("glamkit.sweeps.cost", config.to_json(), lambda line: tell(f"{what}: {line}"))
    took = time.perf_counter() - began
    try:
        timed = json.loads(answer.splitlines()[-1])
        start = 2 * max(took - float(timed.get("seconds", took)), 0.0) / 3600
        basis = "from a quick timing" + (", uncompiled: runs are faster" if timed.get("compiles") else "")
        return float(timed["hours"]), start, basis
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        reason = (answer.strip().splitlines() or ["it printed nothing"])[-1]
        raise GlamkitError(f"a run of {config.env.game} could not be timed: {reason}") from None


def read_benchmark(path: str | Path) -> dict[str, Any] | None:
    """A benchmark's result with predicted hours, or None for no path.

    Raises:
        GlamkitError: it cannot be read or is none.
    """
    if not path:
        return None
    data = read_json(Path(path).expanduser())
    try:
        Config.from_dict(data["settings"]["config"])
        float(data["environment"]["acting_and_game"])
        if data["predicted_hours"]["step_s_at_horizon"]:
            return dict(data)
    except (GlamkitError, ValueError, KeyError, TypeError):
        pass
    raise GlamkitError(f"{str(path)!r} is no result of glamkit benchmark --json.")


def time_run(config: Config) -> float:
    """Hours of a whole run, from the times of a few steps.

    It takes seconds for small models, and minutes for large ones on a CPU.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = TimedTrainer(config.override(QUICK), folder).trainer
        costs = step_costs(trainer, 1, lambda line: sys.stderr.write(f"{line}\n"))
        return run_hours(config, costs, hardware.game_speeds(trainer, SPAN))


def main() -> int:
    """Times the run whose config is on the standard input; returns the exit status."""
    began = time.perf_counter()
    try:
        config = Config.from_dict(json.load(sys.stdin))
        compiles = Machine(config.runtime, config.trainer.updates).compiles
        hours = time_run(config)
    except GlamkitError as error:
        sys.stdout.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps({"hours": hours, "compiles": compiles, "seconds": time.perf_counter() - began}) + "\n")
    return 0
