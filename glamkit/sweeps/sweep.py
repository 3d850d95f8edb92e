"""Batches: games x seeds x variants, each run an executed notebook in a run folder of its own.

The same command goes on after a stop: finished runs are left as they are, interrupted ones are resumed. A run that
fails is tried again a few times. Ray can place the runs on the machines of a cluster, which share the folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from glamkit.config import Config, at_least
from glamkit.errors import GlamkitError, nearest
from glamkit.notebook import Table, Tell, duration, require
from glamkit.plotting import Picture, count
from glamkit.runs.folder import resolve
from glamkit.sweeps import plan as planning
from glamkit.sweeps import status_table, summary
from glamkit.sweeps.job import Job, JobProgress
from glamkit.sweeps.local import Local
from glamkit.sweeps.plan import SweepPlan
from glamkit.sweeps.pool import Pool
from glamkit.sweeps.ray import Cluster
from glamkit.sweeps.summary import VariantSummary

ENGINES = ("local", "ray")
RETRIES = 2
DAY = 24.0  # hours that nobody has to agree to
SAME_COST = {"env.game": "Pong", "trainer.seed": 1}  # what does not change the cost of a run
NOTE = "Mean return: of the evaluation's episodes, then over seeds. Interval: Student's t over the seeds' means. "
NOTE += "Minutes are of training, without evaluation."


class Sweep:
    """A batch of runs and their progress.

    Args:
        plan: its runs, see `plan.make`; or the folder of a batch that was begun.
        notebook: what makes each run; None for the library alone.

    Raises:
        GlamkitError: the folder holds no batch or a damaged one, or a folder of the plan's runs another experiment.
    """

    def __init__(self, plan: SweepPlan | str | Path, notebook: Path | None = planning.NOTEBOOK) -> None:
        self.plan = plan if isinstance(plan, SweepPlan) else planning.load(resolve(plan))
        self.folder, self.notebook = self.plan.folder, notebook
        for job in self.jobs if isinstance(plan, SweepPlan) else ():
            if job.run.started:
                job.run.changes(job.config)

    @property
    def jobs(self) -> list[Job]:
        """All its runs."""
        return [entry.job(self.folder, self.notebook) for entry in self.plan.entries]

    def engine(
        self,
        engine: str = "local",
        workers: int | None = None,
        runs_per_gpu: int = 1,
        address: str = "auto",
        cpus: int = 1,
    ) -> Local | Cluster:
        """The engine that will make its runs.

        Args:
            engine: ``local`` for this machine, ``ray`` for a cluster.
            workers: runs at once; None for as many as there are cores, or as the GPUs take.
            runs_per_gpu: runs that share a GPU.
            address: of the Ray cluster, as host:port; ``auto`` finds the one that this machine belongs to.
            cpus: cores of each run, for Ray.

        Raises:
            GlamkitError: an unknown engine, a number out of range, no cluster at that address, or no papermill.
        """
        if self.notebook:
            require("papermill")
        if engine not in ENGINES:
            raise GlamkitError(f"unknown engine {engine!r}; {nearest(engine, ENGINES)}")
        if engine == "ray":
            return Cluster(self.jobs, workers, runs_per_gpu, address, cpus)
        return Local(self.jobs, workers, runs_per_gpu)

    def cost(
        self, engine: Local | Cluster, agreed: bool = False, tell: Tell = lambda _: None, most: float = DAY
    ) -> str:
        """How long the unfinished runs will take, as a sentence: by a few steps of each kind of run, timed now.

        Args:
            engine: where they will be made, and where the steps are timed.
            agreed: whether the user agreed to it.
            tell: is given lines about the progress: timing takes minutes for large models on a CPU.
            most: hours that need no agreement.

        Raises:
            GlamkitError: it is more and nobody agreed, or a run cannot be timed.
        """
        left, known, total = [job for job in self.jobs if not job.done()], dict[Config, float](), 0.0
        if not left:
            return "nothing is left to do."
        for job in left:
            kind = job.config.override(SAME_COST)
            if kind not in known:
                tell(f"timing a few steps of {job.config.env.game} by {job.config.preset}")
                # Not compiled: that takes longer than the timing is worth.
                known[kind] = engine.hours(job.config.override({"runtime.compile": "off"}))
            total += known[kind] * job.progress().work / job.work(0)
        at_once = min(engine.at_once, len(left))
        hours = total / len(left) * math.ceil(len(left) / at_once)
        share = f"{at_once} at once" if at_once > 1 else "one after the other"
        sentence = f"{count(len(left), 'run')} to make, {share}: about {duration(3600 * hours)}"
        sentence += " (by a few steps, uncompiled; without evaluation)."
        if hours > most and not agreed:
            limit = "a day" if most == DAY else f"{60 * most:.0f} minutes"
            raise GlamkitError(f"{sentence} That is more than {limit}; add --yes (in the notebook agree = True).")
        return sentence

    def run(self, engine: Local | Cluster, retries: int = RETRIES) -> None:
        """Makes the runs that are not finished, of this batch only; one that fails is tried again `retries` times.

        Raises:
            GlamkitError: a folder holds another experiment, a run failed for good, or it was stopped.
        """
        pool = Pool(self.jobs, engine, at_least("retries", retries, 0))
        planning.save(self.plan)
        status_table.run_jobs(pool)

    def progress(self) -> dict[str, JobProgress]:
        """The progress of each run, read from the files alone."""
        return {job.name: job.progress() for job in self.jobs}

    def status(self) -> Table:
        """The progress of all runs, as a table."""
        seen = self.progress()
        return Table(status_table.rows(seen), status_table.summary(seen))

    def groups(self) -> dict[str, dict[str, list[VariantSummary]]]:
        """The results of the runs, however far they are: game -> variant -> its seeds."""
        groups: dict[str, dict[str, list[VariantSummary]]] = {}
        for entry, job in zip(self.plan.entries, self.jobs, strict=True):
            group = groups.setdefault(entry.game, {}).setdefault(entry.variant or entry.preset, [])
            group.append(summary.read(job))
        return groups

    def title(self, group: str) -> str:
        """What stands over the panels of one of `groups`."""
        return group

    def table(self) -> Table:
        """A row for each variant: mean return of the evaluations, and interval over seeds."""
        rows = {f"{name}: {label}": one for name, group in self.groups().items() for label, one in group.items()}
        return Table(summary.rows(rows), NOTE)

    def figure(self) -> Picture:
        """A row of panels for each of `groups`: learning curves of its variants, and final scores."""
        entries, groups = self.plan.entries, {self.title(name): group for name, group in self.groups().items()}
        runs, steps = count(len(entries), "run"), max(job.total for job in self.jobs)
        title = f"{self.folder.name}: {runs} of {steps:,} agent steps, "
        title += f"preset {listed(e.preset for e in entries)}, seeds {listed(e.seed for e in entries)}"
        return summary.figure(groups, title)

    def __repr__(self) -> str:
        return repr(self.overview())

    def _repr_html_(self) -> str:
        return self.overview()._repr_html_()

    def overview(self) -> Table:
        """The settings of all runs, and how many are finished."""
        entries = self.plan.entries
        rows = [
            ("games", listed(entry.game for entry in entries)),
            ("seeds", listed(entry.seed for entry in entries)),
            ("preset", listed(entry.preset for entry in entries)),
            ("agent steps", listed(f"{job.total:,}" for job in self.jobs) + " a run"),
        ]
        for variant, entry in {entry.variant: entry for entry in entries}.items():
            changes = " ".join(f"{key}={value}" for key, value in entry.overrides.items())
            rows.append((variant or "changed", changes or "as the preset"))
        runs = status_table.summary(self.progress()).partition("  ")[0]
        return Table([*rows, ("runs", runs), ("folder", self.folder)])


def listed(values: Iterable[object]) -> str:
    """Each value once, with commas between."""
    return ", ".join(dict.fromkeys(map(str, values)))
