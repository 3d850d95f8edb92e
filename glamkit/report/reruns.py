"""How far printed numbers carry: each method's own numbers beside re-runs of it by others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from glamkit.envs import atari100k
from glamkit.report import aggregates
from glamkit.report.aggregates import Improvement, Interval
from glamkit.report.markup import MarkupTable
from glamkit.report.report import Report, ScoredMethod
from glamkit.report.tables import NAMES, NONE, number

SHOWN = ("mean", "median", "iqm")
AUTHORS = "its authors"


class Claim(NamedTuple):
    """One set of scores of a method.

    Attributes:
        family: the method's name.
        name: of the set.
        by: whose numbers they are.
        values: aggregates, human-normalised; None where they are not known.
        intervals: 95 %, of the aggregates; empty where there is one run per game.
        entry: the scores themselves; None where only aggregates are printed.
    """

    family: str
    name: str
    by: str
    values: Mapping[str, float | None]
    intervals: Mapping[str, Interval]
    entry: ScoredMethod | None


def families(report: Report) -> dict[str, list[Claim]]:
    """Methods that have been run by their authors and by others; the authors' own sets come first."""
    result: dict[str, list[Claim]] = {}
    for claim in [*known(report), *printed(report)]:
        result.setdefault(claim.family, []).append(claim)
    both = {name: claims for name, claims in result.items() if 0 < sum(c.by == AUTHORS for c in claims) < len(claims)}
    return {name: sorted(claims, key=lambda claim: claim.by != AUTHORS) for name, claims in sorted(both.items())}


def known(report: Report) -> Iterator[Claim]:
    """Sets of which the scores are known, on the compared games."""
    for entry in report.entries.values():
        if entry.method.family:
            by = entry.method.rerun_by or AUTHORS
            yield Claim(entry.method.family, entry.name, by, entry.values, entry.intervals, entry)


def printed(report: Report) -> Iterator[Claim]:
    """Re-runs of which only aggregates are printed; they are of all 26 games, so none where fewer are compared."""
    for name, row in atari100k.printed_only().items() if len(report.games) == len(atari100k.games()) else ():
        if row.get("rerun_by"):
            values = {key: row.get(key) for key in aggregates.AGGREGATES}
            yield Claim(str(row["family"]), name, str(row["rerun_by"]), values, {}, None)


def beaten(own: Claim, other: Claim, repeats: int) -> Improvement | None:
    """Probability that a run of the authors beats one of a re-run; None where single runs are not known."""
    both = [claim.entry for claim in (own, other) if claim.entry is not None and claim.entry.method.single]
    return aggregates.improvement(both[0].normal, both[1].normal, repeats) if len(both) == 2 else None


def rerun_table(report: Report) -> MarkupTable | None:
    """Own numbers and re-runs, with the probability that an own run beats one of the re-run."""
    rows = []
    for family, claims in families(report).items():
        own = next((c for c in claims if c.by == AUTHORS and c.entry and c.entry.method.single), claims[0])
        for claim in claims:
            cells = [number(claim.values[key], claim.intervals.get(key)) for key in SHOWN]
            result = beaten(own, claim, report.repeats) if claim.by != AUTHORS else None
            rows.append(
                [family, claim.name, claim.by, *cells, number(result.value, result.interval) if result else NONE]
            )
    header = ["method", "set", "run by", *(NAMES[key] for key in SHOWN), "own beats re-run"]
    caption = (
        "Own numbers and re-runs by others. Last column: the probability that a run of the authors beats a run of the "
        "re-run on a random game; 0.5 is no difference. A dash: single runs are not known."
    )
    return MarkupTable(header, rows, caption, 3) if rows else None
