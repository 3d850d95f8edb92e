"""In what two runs differ, and whether their scores do beyond the spread between seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamkit.config import Config, differences
from glamkit.errors import GlamkitError
from glamkit.notebook import Table
from glamkit.plotting import interval
from glamkit.report import results
from glamkit.report.results import Result
from glamkit.runs import log, provenance
from glamkit.runs.folder import IDLE, UNSCORED, Run
from glamkit.training.shared_runs import locate

SEED = "trainer.seed"
MANY = 5  # settings; more are only counted in the verdict, as the table has them all


class Side(NamedTuple):
    """One of the two runs."""

    run: Run
    config: Config
    score: str  # its own, in words
    reason: str  # why it has no score that counts; empty where it has one
    peers: list[float]  # scores of all seeds of its experiment that lie beside the two, and its own
    cut: int  # agent steps after which some of their evaluation's games were cut; 0 where all are whole
    facts: Mapping[str, str]  # of its provenance


class Comparison:
    """Two runs side by side: run folders (a relative path counts from the checkout), shared files, or shipped runs."""

    def __init__(self, one: str | Path, other: str | Path) -> None:
        runs = [locate(one), locate(other)]
        folders = {run.folder for run in runs}
        if len({folder.resolve() for folder in folders}) == 1:
            raise GlamkitError(f"{one} and {other} are the same run; name two.")
        for run in runs:
            if not run.shared:  # others lie in a cache, beside runs that have nothing to do with them
                folders |= {file.parent for file in run.folder.parent.glob("*/config.json")}
        outcomes = {folder: outcome(folder) for folder in sorted(folders)}
        self.a, self.b = (side(run, outcomes) for run in runs)
        changed = differences(self.a.config, self.b.config)
        minor = [key for key in changed if key in (SEED, *IDLE, *UNSCORED) or key.startswith("runtime.")]
        self.settings = {key: pair for key, pair in changed.items() if key not in minor}
        self.minor = {key: changed[key] for key in minor}  # they make no other experiment
        names = dict.fromkeys([*self.a.facts, *self.b.facts])
        facts = {name: (self.a.facts.get(name, "unknown"), self.b.facts.get(name, "unknown")) for name in names}
        self.facts = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}

    def table(self) -> Table:
        """What differs, and what came out."""
        sides = (self.a, self.b)
        rows: list[tuple[object, ...]] = [
            ("", "what", "A", "B"),
            ("run", "folder", *(side.run.folder for side in sides)),
            ("", "game, preset", *(f"{side.config.env.game}, {side.config.preset}" for side in sides)),
        ]
        parts = {"settings": self.settings, "other settings": self.minor, "versions, machine": self.facts}
        for title, found in parts.items():
            rows += [(title, name, *pair) for name, pair in found.items()] or [(title, "no difference", "", "")]
        rows.append(("result", "mean return", *(side.score for side in sides)))
        rows.append(("", "over seeds", *(spread(side.peers) for side in sides)))
        return Table(rows, self.verdict())

    def verdict(self) -> str:
        """Whether the scores differ beyond what seeds do, and what may be the reason."""
        for one in (self.a, self.b):
            if one.reason:
                return f"{one.run.folder} has no score that counts: {one.reason}"
        others = [key for key in self.minor if self.settings or key != SEED]
        others += ["versions or machine"] if self.facts else []
        rest = f"What else differs: {', '.join(others) or 'nothing that is recorded'}."
        if self.settings:
            names = ", ".join(self.settings) if len(self.settings) <= MANY else len(self.settings)
            apart = "games that were cut and of others" if self.a.cut != self.b.cut else ""
            apart = "two games" if "env.game" in self.settings else apart
            chance = f"Returns of {apart} cannot be compared." if apart else self.chance()
            return f"Settings that differ: {names}. {rest} {chance}"
        if SEED in self.minor:
            return f"Settings are the same but for the seed: such a difference is the spread between seeds. {rest}"
        step = parting(self.a.run, self.b.run)
        if step is None:
            return "Settings and seed are the same, and so is every line of their logs."
        return f"Settings and seed are the same, but their logs part at step {step:,}. {rest}"

    def chance(self) -> str:
        """Whether the scores differ beyond the spread between seeds."""
        ends = interval(self.b.peers, self.a.peers)
        if ends is None:
            return "Whether the scores differ beyond the spread between seeds cannot be said: each needs two seeds."
        where = "beyond" if ends[0] > 0 or ends[1] < 0 else "within"
        difference = f"{np.mean(self.b.peers) - np.mean(self.a.peers):+.2f}"
        words = f"B minus A is {difference} over seeds, 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
        return f"{words}: {where} the spread between seeds."

    def __repr__(self) -> str:
        return repr(self.table())


def outcome(folder: Path) -> Result | str:
    """The final score of a run, or why none counts."""
    try:
        return results.read(folder)
    except GlamkitError as error:
        return str(error)


def side(run: Run, outcomes: Mapping[Path, Result | str]) -> Side:
    """One of the two runs, with its other seeds among the outcomes."""

    def kind(config: Config) -> tuple[Config, str]:
        return results.experiment(config), config.env.game

    config, own = run.config(), outcomes[run.folder]
    counted = [result for result in (*outcomes.values(), own) if isinstance(result, Result)]
    same = {result.seed: result for result in counted if kind(result.config) == kind(config)}
    cut = max((result.config.evaluation.episode_steps for result in same.values() if result.cut), default=0)
    peers = [result.score for result in same.values()]
    if isinstance(own, str):
        return Side(run, config, "none that counts", own, peers, cut, facts(run))
    score = f"{own.score:.2f}" + (f" of games cut after {cut:,} steps" if cut else "")
    return Side(run, config, score, "", peers, cut, facts(run))


def facts(run: Run) -> dict[str, str]:
    """Versions, git state and machine of a run, from its provenance; an arrow stands where a resume changed them."""
    found: dict[str, dict[str, None]] = {}
    for session in provenance.sessions(run.provenance_file):
        for part in ("git", "versions", "machine"):
            table = session.get(part)
            for name, value in table.items() if isinstance(table, dict) else ():
                found.setdefault(f"{part} {name}", {})[str(value)] = None
    found.pop("git branch", None)  # old runs have it, and it changes nothing
    return {name: " -> ".join(values) for name, values in found.items()}


def parting(one: Run, other: Run) -> int | None:
    """The step of the first line at which two logs differ but for times; None where they do not."""
    logs = [log.added(run.log_file)[0] for run in (one, other)]
    if one.shared or other.shared:  # a shared run's log holds all episodes, and only some of the other lines
        logs = [[line for line in lines if line["kind"] == "episode"] for lines in logs]
    untimed = [[{k: line[k] for k in line if not k.startswith("time")} for line in lines] for lines in logs]
    for ours, theirs in zip_longest(*untimed):
        if ours != theirs:
            return int((ours or theirs)["step"])
    return None


def spread(scores: Sequence[float]) -> str:
    """Mean, interval and number of the seeds' scores."""
    ends = interval(scores)
    if ends is None:
        return "one seed only" if scores else "-"
    return f"{np.mean(scores):.2f}, 95 % interval {ends[0]:.2f} to {ends[1]:.2f}, {len(scores)} seeds"
