"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from glamkit.envs import atari100k
from glamkit.report import aggregates
from glamkit.report.aggregates import AGGREGATES, Interval
from glamkit.report.markup import NONE, UNKNOWN, MarkupTable
from glamkit.report.notes import notes
from glamkit.report.report import Report, ScoredMethod

NAMES = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}
BRIEF = ("mean", "median", "iqm")  # aggregates in the smaller tables
AUTHORS = "its authors"
NEAR = 0.005  # a printed aggregate that is no farther off comes from scores with more digits


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


def off_by(entry: ScoredMethod) -> float | None:
    """The largest difference between a printed aggregate and the recomputed one, rounded as it; None without any."""
    own, printed = {**entry.values, "superhuman_games": aggregates.superhuman(entry.sample)}, entry.method.printed
    known = {key: value for key, value in own.items() if key in printed and value is not None}
    digits = {key: len(str(printed[key]).partition(".")[2]) for key in known}
    return max((abs(round(value, digits[key]) - printed[key]) for key, value in known.items()), default=None)


def printed_cells(entry: ScoredMethod) -> list[str]:
    """The printed mean and median, and whether they come out of the scores: ``yes``, ``within 0.004``, ``NO``."""
    printed, by = entry.method.printed, off_by(entry)
    pair = [f"{printed[key]:g}" if key in printed else UNKNOWN for key in ("mean", "median")]
    if by is None or pair == [UNKNOWN, UNKNOWN]:
        return [UNKNOWN, UNKNOWN]
    return [" / ".join(pair), "yes" if by == 0 else f"within {by:.3f}" if by <= NEAR else "NO"]


def aggregate_table(report: Report) -> MarkupTable:
    """Aggregates with intervals, and whether the printed ones come out of the scores on all 26 games."""
    whole = len(report.games) == len(atari100k.games())
    rows = []
    for entry in ordered(report):
        cells = [number(entry.values[key], entry.intervals.get(key)) for key in AGGREGATES]
        above = f"{aggregates.superhuman(entry.sample)} of {len(entry.normal)}"
        rows.append([entry.name, *cells, above, counts(entry), *(printed_cells(entry) if whole else [NONE, NONE])])
    header = ["method", *NAMES.values(), "games ≥ human", "runs", "printed mean / median", "comes out"]
    caption = (
        "Human-normalised scores (0 random play, 1 human); of the optimality gap, less is better. In brackets 95 % "
        f"stratified bootstrap intervals ({report.repeats:,} repeats). Methods of which only one value per game is "
        "known stand last, by their medians: they have no IQM, no optimality gap and no interval, and are not ranked."
    )
    return MarkupTable(header, rows, caption)


def rerun_table(report: Report) -> MarkupTable | None:
    """Methods run by their authors and by others, with the probability that an own run beats one of the re-run."""
    entries: dict[str, list[ScoredMethod]] = {}
    for entry in report.entries.values():
        if entry.method.family:
            entries.setdefault(entry.method.family, []).append(entry)
    whole = len(report.games) == len(atari100k.games())
    printed = {name: row for name, row in atari100k.printed_only().items() if whole and row.get("rerun_by")}
    rows = []
    for family, members in sorted(entries.items()):
        own = [entry for entry in members if not entry.method.rerun_by]
        others = [entry for entry in members if entry.method.rerun_by]
        summaries = {name: row for name, row in printed.items() if row["family"] == family}
        if not own or not (others or summaries):
            continue
        first = next((entry for entry in own if entry.method.single), own[0])
        rows += [[family, entry.name, AUTHORS, *brief(entry), NONE] for entry in own]
        rows += [[family, e.name, e.method.rerun_by, *brief(e), beats(first, e, report.repeats)] for e in others]
        for name, row in summaries.items():
            rows.append([family, name, str(row["rerun_by"]), *(number(row.get(key)) for key in BRIEF), NONE])
    header = ["method", "set", "run by", *(NAMES[key] for key in BRIEF), "own beats re-run"]
    caption = (
        "Own numbers and re-runs by others. Last column: the probability that a run of the authors beats a run of the "
        "re-run on a random game; 0.5 is no difference. A dash: single runs are not known."
    )
    return MarkupTable(header, rows, caption) if rows else None


def brief(entry: ScoredMethod) -> list[str]:
    """The cells of `BRIEF`."""
    return [number(entry.values[key], entry.intervals.get(key)) for key in BRIEF]


def beats(own: ScoredMethod, other: ScoredMethod, repeats: int) -> str:
    """The probability that a run of one beats a run of the other; a dash where single runs are not known."""
    if not (own.method.single and other.method.single):
        return NONE
    result = aggregates.improvement(own.normal, other.normal, repeats)
    return number(result.value, result.interval)


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


def sensitivity_table(report: Report) -> MarkupTable | None:
    """How far each aggregate of single runs moves when a game is left out; None where there are not two games."""
    rows = []
    for entry in (entry for entry in report.shown if len(entry.normal) > 1 and entry.method.single):
        table = aggregates.without(entry.normal)
        for key in BRIEF:
            left = {game: values[key] for game, values in table.items()}
            ends = [[who(left, value), number(value)] for value in (min(left.values()), max(left.values()))]
            rows.append([entry.name, NAMES[key], number(entry.values[key]), *ends[0], *ends[1]])
    header = ["method", "aggregate", "all games", "lowest without", "", "highest without", ""]
    caption = "Aggregates with one game left out: the two games that matter most to each."
    return MarkupTable(header, rows, caption) if rows else None


def who(left: Mapping[str, float], value: float) -> str:
    """The game without which an aggregate is this; ``any of 13`` where they are many."""
    names = [game for game, other in left.items() if np.isclose(other, value, rtol=0, atol=1e-9)]
    return names[0] if len(names) == 1 else f"any of {len(names)}"


def improvement_table(report: Report) -> MarkupTable | None:
    """Probability of improvement with intervals."""
    rows = [
        [ours, theirs, number(result.value, result.interval), str(result.games)]
        for ours, theirs, result in report.improvements
    ]
    caption = "Probability that a run of the first beats a run of the second on a random game; 0.5 is no difference."
    return MarkupTable(["method", "over", "probability", "games"], rows, caption) if rows else None


def protocol_table(report: Report) -> MarkupTable:
    """How each method's scores were measured; what nobody says is unknown."""
    rows = []
    for entry in ordered(report):
        card = entry.method.protocol
        cells = [
            in_words(entry.sticky, "on", "off"),
            in_words(card.get("life_loss"), "stored as termination", "ignored"),
            entry.episodes or UNKNOWN,
            in_words(card.get("sampling", card.get("sampled")), "stochastic policy", "greedy"),
        ]
        rows.append([entry.name, *cells, counts(entry), entry.method.kind, entry.method.source or UNKNOWN])
    caption = "Protocols. Where they differ, scores are not of the same thing."
    header = ["method", "sticky actions", "a lost life", "evaluation episodes", "actions", "runs", "known", "source"]
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
    return MarkupTable(["run folder", "reason"], rows, "Runs that do not count.") if rows else None
