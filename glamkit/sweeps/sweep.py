"""Batches: games x seeds x variants, each run an executed notebook in a run folder of its own.

    python -m glamkit.sweeps.sweep study.yaml
    python -m glamkit.sweeps.sweep --games "Pong Boxing" --seeds 1-5 --preset atari100k --folder runs/study
    python -m glamkit.sweeps.sweep --status runs/study

Finished runs are left alone, cut ones resumed, and what fails is tried again a few times; so the same command goes on.
With ``--engine ray --address ..`` Ray places the runs on the machines of a cluster that share the folder.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glamkit.config import coerce
from glamkit.errors import GlamkitError, command, nearest
from glamkit.notebook import Table
from glamkit.plotting import Picture
from glamkit.runs.folder import resolve
from glamkit.sweeps import plan as planning
from glamkit.sweeps import status_table, summary
from glamkit.sweeps.cost import DAY, Estimate, estimate
from glamkit.sweeps.job import Job, JobProgress
from glamkit.sweeps.plan import NOTEBOOK, SweepPlan
from glamkit.sweeps.pool import Local
from glamkit.sweeps.ray import Cluster

ENGINES = ("local", "ray")
RETRIES = 2

logger = logging.getLogger(__name__)


class Sweep:
    """A batch of runs: what it consists of, and where each of them is.

    Args:
        plan: its runs, see `sweep_plan.make`; or the folder of one that was begun.
    """

    def __init__(self, plan: SweepPlan | str | Path) -> None:
        self.plan = plan if isinstance(plan, SweepPlan) else planning.load(resolve(plan))
        self.folder = self.plan.folder

    @property
    def jobs(self) -> list[Job]:
        """All its runs."""
        return [entry.job(self.folder) for entry in self.plan.entries]

    def engine(
        self,
        engine: str = "local",
        workers: int | None = None,
        runs_per_gpu: int = 1,
        address: str = "auto",
        cpus: int = 1,
    ) -> Local | Cluster:
        """Where its runs will be made.

        Args:
            engine: ``local`` for this machine, ``ray`` for a cluster.
            workers: runs at once; None for as many as there are cores, or as the GPUs take.
            runs_per_gpu: runs that share a GPU.
            address: of the Ray cluster, as host:port; ``auto`` finds the one that this machine belongs to.
            cpus: cores of each run, for Ray.

        Raises:
            GlamkitError: an unknown engine, a number out of range, or no cluster at that address.
        """
        if engine not in ENGINES:
            raise GlamkitError(f"unknown engine {engine!r}; {nearest(engine, ENGINES)}")
        if engine == "ray":
            return Cluster(self.jobs, workers, runs_per_gpu, address, cpus)
        return Local(self.jobs, workers, runs_per_gpu)

    def run(
        self, engine: Local | Cluster, retries: int = RETRIES, interactive: bool | None = None, every: float = 10.0
    ) -> None:
        """Makes the runs that are not finished; see `board.run_jobs`.

        Raises:
            GlamkitError: a folder holds another experiment, a run failed for good, or it was stopped.
        """
        retries = coerce("retries", retries, int)
        if not NOTEBOOK.exists():
            raise GlamkitError(f"{NOTEBOOK} is not there; install glamkit from a checkout: pip install -e .")
        if retries < 0:
            raise GlamkitError(f"retries = {retries} is outside its range: at least 0.")
        for job in self.jobs:
            job.run.check(job.config, resume=True)
        self.plan = planning.save(self.plan)
        status_table.run_jobs(self.jobs, engine, retries, interactive, every)

    def progress(self) -> dict[str, JobProgress]:
        """Where each run is, from the files alone."""
        return {job.name: job.progress() for job in self.jobs}

    def status(self) -> Table:
        """The same, as a table."""
        seen = self.progress()
        return Table(status_table.rows(seen), status_table.summary(seen))

    def figure(self) -> Picture:
        """A row of panels for each game: learning curves of its variants, and final scores."""
        groups: dict[str, dict[str, list[summary.VariantSummary]]] = {}
        for entry, job in zip(self.plan.entries, self.jobs, strict=True):
            variant = entry.folder.split("/")[-1].rpartition("seed")[0].rstrip("-") or entry.preset
            groups.setdefault(entry.game, {}).setdefault(variant, []).append(summary.read(job))
        longest = max(job.total for job in self.jobs)
        title = f"{self.folder.name}: {len(self.jobs)} runs of {longest:,} agent steps"
        return summary.figure(groups, longest, title, one_game=False)

    def __repr__(self) -> str:
        return repr(self.overview())

    def _repr_html_(self) -> str:
        return self.overview()._repr_html_()

    def overview(self) -> Table:
        """What is to be run, and what is finished."""
        entries, seen = self.plan.entries, self.progress()
        common = {key: value for key, value in entries[0].overrides.items() if all_have(entries, key, value)}
        rows = [
            ("games", ", ".join(dict.fromkeys(entry.game for entry in entries))),
            ("seeds", ", ".join(map(str, dict.fromkeys(entry.seed for entry in entries)))),
            ("preset", ", ".join(dict.fromkeys(entry.preset for entry in entries))),
            (
                "agent steps",
                ", ".join(f"{total:,}" for total in dict.fromkeys(p.total for p in seen.values())) + " a run",
            ),
        ]
        for entry in entries:
            own = {key: value for key, value in entry.overrides.items() if key not in common}
            row = (entry.folder.split("/")[-1].rpartition("-seed")[0] or "", text(own))
            if row[0] and row not in rows:
                rows.append((row[0], row[1] or "as the preset"))
        rows += [("changed for all", text(common))] if common else []
        rows += [("runs", status_table.summary(seen).partition("  ")[0]), ("folder", str(self.folder))]
        return Table(rows)


def all_have(entries: Sequence[planning.PlannedRun], key: str, value: Any) -> bool:
    """Whether all runs have a setting at this value."""
    return all(key in entry.overrides and entry.overrides[key] == value for entry in entries)


def text(changes: Mapping[str, Any]) -> str:
    """``trainer.warmup=300 env.sticky=0``."""
    return " ".join(f"{key}={value}" for key, value in changes.items())


def agree(cost: Estimate, agreed: bool) -> str:
    """What is said of the cost.

    Raises:
        GlamkitError: it is over a day of machine time, and nobody agreed.
    """
    if cost.machine > DAY and not agreed:
        raise GlamkitError(
            f"{cost}. That is more than a day of machine time; add --yes (in the notebook agree = True)."
        )
    return f"{cost}."


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser().parse_args(arguments)
    if given.status:
        sys.stdout.write(f"{Sweep(given.status).status()}\n")
        return
    batch = Sweep(planning.make(**chosen(given)))
    sys.stdout.write(f"{batch}\n")
    if given.dry_run:
        return
    engine = batch.engine(given.engine, given.workers, given.runs_per_gpu, given.address, given.cpus)
    cost = estimate(batch.jobs, engine, given.benchmark)
    sys.stdout.write(f"{agree(cost, given.yes)}\n")
    sys.stdout.flush()
    batch.run(engine, given.retries)


def chosen(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `sweep_plan.make`: the file's, and what is said on the command line instead."""
    plan = planning.read_file(given.file) if given.file else {}
    for name in planning.KEYS:
        value = getattr(given, name)
        if value is not None:
            plan[name] = value
    if given.variants:
        pairs = [variant.partition(":")[::2] for variant in given.variants]
        plan["variants"] = dict(pairs)
    if "games" not in plan:
        raise GlamkitError("no games are named; give a sweep file or --games, such as --games 'Pong Boxing'.")
    return plan


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    made = argparse.ArgumentParser(
        "python -m glamkit.sweeps.sweep", description="Trains games x seeds x variants, each a notebook."
    )
    add = made.add_argument
    add("file", nargs="?", help=f"YAML with the keys {', '.join(planning.KEYS)}; arguments count more")
    add("--games", help="names with spaces between, or atari100k for its 26")
    add("--seeds", help="such as '1 2 3' or 1-5")
    add("--preset", help="quick, atari100k, debug")
    add("--env-steps", type=int, help="agent steps of each run (default: the preset's)")
    add("--overrides", help="more settings for all runs, as in 'trainer.warmup=300 ...'")
    add("--variants", nargs="+", metavar="NAME:KEY=VALUE", help="each is run with every game and seed")
    add("--folder", help="of run folders <game>/<variant>-seed<N>")
    add("--workers", type=int, help="runs at once (default: as many as there are cores, or as the GPUs take)")
    add("--runs-per-gpu", type=int, default=1, help="runs that share a GPU")
    add("--retries", type=int, default=RETRIES, help="times that a failed run is tried again; %(default)s")
    add("--engine", choices=ENGINES, default="local", help="this machine, or a Ray cluster")
    add("--address", default="auto", help="of the cluster, host:port (default: the one this machine belongs to)")
    add("--cpus", type=int, default=1, help="cores of a run on the cluster; %(default)s")
    add("--benchmark", default="", metavar="FILE", help="result of glamkit.benchmark --json, for the estimate")
    add("--yes", action="store_true", help="agree to more than a day of machine time")
    add("--dry-run", action="store_true", help="check and show what would be run, and stop")
    add("--status", metavar="FOLDER", help="only say where the runs of a batch are, from its files")
    return made


if __name__ == "__main__":
    sys.exit(main())
