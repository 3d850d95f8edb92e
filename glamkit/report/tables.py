"""The tables of a report."""

from __future__ import annotations

from typing import Any

from glamkit.envs import atari100k
from glamkit.report import aggregates
from glamkit.report.aggregates import AGGREGATES, Interval
from glamkit.report.markup import NONE, UNKNOWN, MarkupTable
from glamkit.report.notes import notes
from glamkit.report.report import Report, ScoredMethod

NAMES = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}


def number(value: float | None, interval: Interval | None = None) -> str:
    """``0.561 [0.50, 0.61]``; a dash for what is not known."""
    if value is None:
        return NONE
    return f"{value:.3f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def raw(value: float) -> str:
    """A score of a game: three significant digits are enough, but all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def counts(entry: ScoredMethod) -> str:
    """Runs per game: ``5``, ``1-5`` or a dash."""
    low, high = entry.counts
    return NONE if not entry.method.single else str(high) if low == high else f"{low}-{high}"


def ordered(report: Report) -> list[ScoredMethod]:
    """Those with single runs: new ones first, then the published by IQM. Then those without, likewise by median."""

    def place(entry: ScoredMethod) -> tuple[bool, bool, float]:
        value = entry.values["iqm" if entry.method.single else "median"] or 0.0
        return not entry.method.single, not entry.new, 0.0 if entry.new else -value  # new ones stay as they came

    return sorted(report.entries.values(), key=place)


def aggregate_table(report: Report) -> MarkupTable:
    """Aggregates with intervals."""
    rows = []
    for entry in ordered(report):
        cells = [number(entry.values[key], entry.intervals.get(key)) for key in AGGREGATES]
        above = f"{aggregates.superhuman(entry.sample)} of {len(entry.normal)}"
        rows.append([entry.name, *cells, above, counts(entry)])
    header = ["method", *NAMES.values(), "games ≥ human", "runs"]
    caption = (
        "Human-normalised scores (0 random play, 1 human); of the optimality gap, less is better. In brackets 95 % "
        f"stratified bootstrap intervals ({report.repeats:,} repeats). Methods of which only one value per game is "
        "known stand last, by their medians: they have no IQM, no optimality gap and no interval, and are not ranked."
    )
    return MarkupTable(header, rows, caption)


def game_table(report: Report) -> MarkupTable:
    """Mean raw scores of what is shown game by game; of new entries the human-normalised score too."""
    header = ["game", "random", "human"]
    for entry in report.shown:
        header += [entry.name, "HNS"] if entry.new else [entry.name]
    rows = []
    for game in report.games:
        unit = atari100k.games()[game]
        row = [game, raw(unit.random), raw(unit.human)]
        for entry in report.shown:
            known = game in entry.normal
            row.append(raw(float(entry.method.scores[game].mean())) if known else NONE)
            if entry.new:
                row.append(f"{entry.normal[game].mean():.2f}" if known else NONE)
        rows.append(row)
    return MarkupTable(header, rows, "Mean raw scores over runs. HNS: (score - random) / (human - random).")


def protocol_table(report: Report) -> MarkupTable:
    """How each method's scores were measured; what nobody says is unknown."""
    rows = []
    for entry in ordered(report):
        card = entry.method.protocol
        cells = [
            entry.name,
            in_words(card.get("sticky"), "on", "off"),
            in_words(card.get("life_loss"), "stored as termination", "ignored"),
            entry.episodes or UNKNOWN,
            in_words(card.get("sampling", card.get("sampled")), "stochastic policy", "greedy"),
            counts(entry),
            entry.method.rerun_by or NONE,
            entry.method.kind,
            entry.method.source or UNKNOWN,
        ]
        rows.append(cells)
    caption = "Protocols. Where they differ, scores are not of the same thing."
    header = ["method", "sticky actions", "a lost life", "episodes", "actions", "runs", "re-run by", "known", "source"]
    return MarkupTable(header, rows, caption)


def in_words(value: Any, yes: str, no: str) -> str:
    """An entry of a protocol, which is True or False, text, or not there."""
    return {True: yes, False: no}[value] if isinstance(value, bool) else str(value or UNKNOWN)


def note_table(report: Report) -> MarkupTable:
    """What a reader must know, as a table of one column."""
    rows = [[note] for note in notes(report) or ["Nothing stands in the way."]]
    return MarkupTable(["before you believe a number"], rows)


def left_out_table(report: Report) -> MarkupTable | None:
    """Runs that do not count, with the reason."""
    rows = [[str(left.folder), left.reason] for left in report.left_out]
    return MarkupTable(["run folder", "reason"], rows, "None of these is in any number.") if rows else None
