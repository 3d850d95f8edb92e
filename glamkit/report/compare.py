"""What explains the difference between two runs: ``glamkit compare RUN_A RUN_B``.

Settings, versions, git state and machine that differ; then the scores, with the spread between seeds where runs of the
same config lie beside them, and whether the difference is beyond that spread.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glamkit.config import Config, differences
from glamkit.errors import GlamkitError
from glamkit.notebook import Table
from glamkit.plotting import interval, student
from glamkit.report import results
from glamkit.report.results import Result
from glamkit.runs import log, provenance
from glamkit.runs.folder import IDLE, UNSCORED, Run
from glamkit.training.shared_runs import locate

SEED = "trainer.seed"
HEADER = ("", "what", "A", "B")
MANY = 500  # run folders beside a run that are looked at


class Side(NamedTuple):
    """One of the two runs.

    Attributes:
        run: its folder.
        score: its final score; None where none counts.
        reason: why none counts.
        facts: of its provenance.
        scores: of all seeds of its experiment that lie beside the two runs, and its own.
    """

    run: Run
    config: Config
    score: float | None
    reason: str
    facts: dict[str, str]
    scores: dict[int, float]

    @property
    def peers(self) -> list[float]:
        """Scores of all its seeds."""
        return list(self.scores.values())


class Comparison:
    """Two runs, side by side.

    Args:
        one: a run folder, a shared file, or the name of a shipped run; a relative path counts from the checkout.
        other: another.

    Raises:
        GlamkitError: one of them holds no run or cannot be read, or they are the same.
    """

    def __init__(self, one: str | Path, other: str | Path) -> None:
        folders = [locate(one).folder.absolute(), locate(other).folder.absolute()]
        if folders[0].resolve() == folders[1].resolve():
            raise GlamkitError(f"{one} and {other} are the same run; name two.")
        finished = beside(folders)
        self.a, self.b = (side(Run(folder), finished) for folder in folders)
        self.changed = differences(self.a.config, self.b.config)
        self.settings = changes_of(self.changed)
        names = [*self.a.facts, *(name for name in self.b.facts if name not in self.a.facts)]
        pairs = {name: (self.a.facts.get(name, "unknown"), self.b.facts.get(name, "unknown")) for name in names}
        self.facts = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def table(self) -> Table:
        """What differs, and what came out."""
        rows: list[tuple[object, ...]] = [HEADER, ("run", "folder", *(s.run.folder for s in (self.a, self.b)))]
        rows.append(("", "game, preset", *(f"{s.config.env.game}, {s.config.preset}" for s in (self.a, self.b))))
        rows.append(("", "seed", self.a.config.trainer.seed, self.b.config.trainer.seed))
        for title, result in (("settings", self.settings), ("versions and machine", self.facts)):
            for place, (name, (ours, theirs)) in enumerate(result.items()):
                rows.append(("" if place else title, name, ours, theirs))
            if not result:
                rows.append((title, "no difference", "", ""))
        scores = ("none that counts" if s.score is None else f"{s.score:.2f}" for s in (self.a, self.b))
        rows.append(("result", "mean return", *scores))
        rows.append(("", "over seeds", *(spread(s.peers) for s in (self.a, self.b))))
        return Table(rows, self.verdict())

    def verdict(self) -> str:
        """Whether the scores differ beyond what seeds do, and what is to blame."""
        for one in (self.a, self.b):
            if one.reason:
                return f"{one.run.folder} has no score that counts: {one.reason}"
        return " ".join(filter(None, [self.chance(), self.blame()]))

    def chance(self) -> str:
        """Whether the scores differ beyond the spread between seeds."""
        if not self.settings and SEED not in self.changed:
            return self.repeated()
        if not self.settings:
            text = "But for the seed they are the same experiment: such a difference is the spread between seeds."
            others = self.no_setting(name for name in self.changed if name.startswith("runtime."))
            return f"{text} Or it comes from {others}, which may count too." if others else text
        result = welch(self.a.peers, self.b.peers)
        if result is None:
            return "Whether they differ beyond the spread between seeds cannot be said: each needs two seeds or more."
        low, high = result
        text = f"B minus A is {np.mean(self.b.peers) - np.mean(self.a.peers):+.2f} over seeds, 95 % interval"
        clear = "beyond" if low > 0 or high < 0 else "within"
        return f"{text} {low:.2f} to {high:.2f}: {clear} the spread between seeds."

    def repeated(self) -> str:
        """Of the same experiment made twice: whether it came out the same."""
        at = parting(self.a.run, self.b.run)
        if at is None:
            return "Settings and seed are the same, and so is every line of their logs."
        cause = self.no_setting(self.changed) or "something that is not recorded, such as a GPU's order of sums"
        return f"Settings and seed are the same, but their logs part at step {at:,}: by {cause}."

    def no_setting(self, names: Iterable[str]) -> str:
        """What differs that is no setting of the experiment, in words: these names, versions and machine."""
        return " or ".join([*names, *(["versions or machine"] if self.facts else [])])

    def blame(self) -> str:
        """Which setting it was, as far as that can be told."""
        if not self.settings:
            return ""
        if len(self.settings) == 1:
            (name,) = self.settings
            only = f"Only {name} differs among the settings."
            versions = any(not fact.startswith("machine") for fact in self.facts)
            return f"{only} Versions differ as well, so either may be the cause." if versions else only
        return f"{len(self.settings)} settings differ at once."

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def changes_of(result: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Differences of the experiment: not the seed, not what names the machine only, and not what changes no score."""
    return {k: v for k, v in result.items() if k not in (SEED, *IDLE, *UNSCORED) and not k.startswith("runtime.")}


def beside(folders: Sequence[Path]) -> list[Result]:
    """The finished runs in the folders around the two; what does not count there is no neighbour."""
    own = [folder for folder in folders if not Run(folder).shared]  # others lie in a cache
    found = []
    for place in sorted({path.parent for folder in own for path in sorted(folder.parent.glob("*/config.json"))[:MANY]}):
        with contextlib.suppress(GlamkitError):
            found.append(results.read(place))
    return found


def side(run: Run, finished: Sequence[Result]) -> Side:
    """One of the two runs, with all that is known of it and of its other seeds among the finished ones."""
    config, score, reason = run.config(), None, ""
    same = results.experiment(config), config.env.game
    scores = {r.seed: r.score for r in finished if (results.experiment(r.config), r.config.env.game) == same}
    try:
        score = scores[config.trainer.seed] = results.read(run.folder).score
    except GlamkitError as error:
        reason = str(error)
    return Side(run, config, score, reason, facts(run), scores)


def facts(run: Run) -> dict[str, str]:
    """Versions, git state and machine of a run, from its provenance; what changed at a resume is joined by an arrow."""
    joined: dict[str, list[str]] = {}
    for session in provenance.sessions(run.provenance_file):
        for part in ("git", "versions", "machine"):
            table = session.get(part)
            for name, value in table.items() if isinstance(table, dict) else ():
                values = joined.setdefault(f"{part} {name}", [])
                if not values or values[-1] != str(value):
                    values.append(str(value))
    return {name: " -> ".join(values) for name, values in joined.items() if name != "git branch"}


def welch(one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of mean(other) - mean(one) for unequal variances; None with fewer than two of either."""
    if min(len(one), len(other)) < 2:
        return None
    parts = [float(np.var(scores, ddof=1)) / len(scores) for scores in (one, other)]
    middle, total = float(np.mean(other) - np.mean(one)), sum(parts)
    if not total:
        return middle, middle
    degrees = total**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (one, other), strict=True))
    half = student(max(1, math.floor(degrees))) * math.sqrt(total)
    return middle - half, middle + half


def parting(one: Run, other: Run) -> int | None:
    """The step of the first line at which two logs differ but for times; None where they do not.

    A shared run's log holds all episodes and only some of the other lines.
    """
    logs = [lines(one), lines(other)]
    if one.shared or other.shared:
        logs = [[line for line in log if line.get("kind") == "episode"] for log in logs]
    for ours, theirs in zip_longest(*logs):
        if ours != theirs:
            return int((ours or theirs)["step"])
    return None


def lines(run: Run) -> list[dict[str, Any]]:
    """A log's lines without what the clock says."""
    return [{k: entry[k] for k in entry if not k.startswith("time")} for entry in log.added(run.log_file)[0]]


def spread(scores: Sequence[float]) -> str:
    """Mean, interval and number of the seeds' scores."""
    result = interval(scores)
    if not scores:
        return "-"
    if result is None:
        return "one seed only"
    return f"{np.mean(scores):.2f}, 95 % interval {result[0]:.2f} to {result[1]:.2f}, {len(scores)} seeds"
