"""Predicts how long a batch takes before it starts, by a few steps of its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.notebook import Tell, duration
from glamkit.plotting import count
from glamkit.sweeps.job import Job
from glamkit.sweeps.pool import Local
from glamkit.sweeps.ray import Cluster

DAY = 24.0  # hours that nobody has to agree to
SAME_COST = {"env.game": "Pong", "trainer.seed": 1}  # what does not change the cost of a run


class Estimate(NamedTuple):
    """How many runs are left to make, how many at once, and the hours until all are done."""

    runs: int
    at_once: int
    hours: float

    def __str__(self) -> str:
        if not self.runs:
            return "nothing is left to do"
        share = f"{self.at_once} at once" if self.at_once > 1 else "one after the other"
        about = f"{count(self.runs, 'run')} to make, {share}: about {duration(3600 * self.hours)}"
        return f"{about} (by a few steps, uncompiled; without evaluation)"

    def agree(self, agreed: bool, most: float = DAY) -> str:
        """The estimate as a sentence.

        Args:
            agreed: whether the user agreed to it.
            most: hours that need no agreement.

        Raises:
            GlamkitError: it is more, and nobody agreed.
        """
        if self.hours > most and not agreed:
            limit = "a day" if most == DAY else f"{60 * most:.0f} minutes"
            raise GlamkitError(f"{self}. That is more than {limit}; add --yes (in the notebook agree = True).")
        return f"{self}."


def estimate(jobs: Sequence[Job], engine: Local | Cluster, tell: Tell = lambda _: None) -> Estimate:
    """Hours of the unfinished part of a batch.

    Args:
        jobs: its runs; finished ones cost nothing, begun ones only the part that is left.
        engine: where they will be made, and where a few steps of each kind of run are timed.
        tell: is given lines about the progress: timing takes minutes for large models on a CPU.

    Raises:
        GlamkitError: a folder holds another experiment, or a run could not be timed.
    """
    for job in jobs:
        if job.run.started:
            job.run.check(job.config, resume=True)
    left, known, total = [job for job in jobs if not job.done()], dict[Config, float](), 0.0
    for job in left:
        kind = job.config.override(**SAME_COST)
        if kind not in known:
            tell(f"timing a few steps of {job.config.env.game} by {job.config.preset}")
            # Not compiled: that takes longer than the timing is worth.
            known[kind] = engine.hours(job.config.override(**{"runtime.compile": "off"}))
        total += known[kind] * job.progress().work / job.work(0)
    at_once = min(engine.at_once, len(left))
    rounds = math.ceil(len(left) / max(1, at_once))
    return Estimate(len(left), at_once, rounds * total / max(1, len(left)))
