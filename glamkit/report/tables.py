"""The tables of a report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from glamkit.envs import atari100k
from glamkit.plotting import count, interval
from glamkit.report import aggregates, results
from glamkit.report.aggregates import AGGREGATES, Interval
from glamkit.report.markup import MarkupTable
from glamkit.report.notes import notes
from glamkit.report.report import Report, ScoredMethod

NAMES = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}
NONE = "-"
UNKNOWN = "unknown"
WORDS = {True: "on", False: "off", None: UNKNOWN}
NEAR = 0.005  # a printed aggregate that is no farther off comes from scores with more digits
COLUMNS = 8  # methods in a table of games


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
        old, value = not report.is_new(entry), entry.values["iqm" if entry.method.single else "median"]
        return not entry.method.single, old, -(value or 0.0) * old  # new ones stay as they came

    return sorted(report.entries.values(), key=place)


def comes_out(entry: ScoredMethod) -> str:
    """Whether the printed mean and median come out of a method's scores: ``yes``, ``within 0.004``, ``NO``, unknown."""
    by = off_by(entry)
    if by is None or not {"mean", "median"} & set(entry.method.printed):
        return UNKNOWN
    if agrees(entry):
        return "yes"
    return f"within {np.ceil(round(1000 * by, 6)) / 1000:.3f}" if by <= NEAR else "NO"


def agrees(entry: ScoredMethod) -> bool | None:
    """Whether all printed aggregates come out to their printed digits; None where none is recorded."""
    pairs = beside_printed(entry)
    return all(round(own, len(str(value).partition(".")[2])) == value for own, value in pairs) if pairs else None


def off_by(entry: ScoredMethod) -> float | None:
    """The largest difference between a printed aggregate and the recomputed one; None where none is recorded."""
    return max((abs(own - value) for own, value in beside_printed(entry)), default=None)


def beside_printed(entry: ScoredMethod) -> list[tuple[float, float]]:
    """(recomputed, printed) for each printed aggregate."""
    own = {**entry.values, "superhuman_games": float(aggregates.superhuman(entry.sample))}
    printed = entry.method.printed
    return [(value, printed[key]) for key, value in own.items() if key in printed and value is not None]


def aggregate_table(report: Report, single: bool = True) -> MarkupTable:
    """Aggregates with intervals, and whether the printed ones come out.

    Args:
        report: with the methods.
        single: those of which single runs are known; or the others, which have no IQM and no place among them.
    """
    whole = len(report.games) == len(atari100k.games())
    printing = "printed mean / median" + ("" if whole else " (of 26 games)")
    header = ["method", *NAMES.values(), "games ≥ human", "runs", printing, "comes out"]
    rows = []
    for entry in (entry for entry in ordered(report) if entry.method.single is single):
        pair = [entry.method.printed.get(key) for key in ("mean", "median")]
        printed = " / ".join(UNKNOWN if value is None else f"{value:g}" for value in pair)
        printed = UNKNOWN if pair == [None, None] else printed
        cells = [number(entry.values[key], entry.intervals.get(key)) for key in AGGREGATES]
        above = f"{aggregates.superhuman(entry.sample)} of {len(entry.normal)}"
        rows.append([entry.name, *cells, above, counts(entry), printed, comes_out(entry) if whole else NONE])
    caption = f"Human-normalised scores on {count(len(report.games), 'game')} (0 random play, 1 human); "
    caption += "of the optimality gap, less is better. "
    caption += f"In brackets 95 % stratified bootstrap intervals ({report.repeats:,} repeats). "
    if not single:
        caption = "Methods of which only one value per game is known, by their medians. They have no IQM over runs, no "
        caption += "optimality gap and no interval (a dash), so they have no place in the order of the table above."
    return MarkupTable(header, rows, caption)


def game_tables(report: Report) -> list[MarkupTable]:
    """Raw scores game by game, eight methods a table; of new entries the human-normalised score too."""
    parts = [report.shown[n : n + COLUMNS] for n in range(0, len(report.shown), COLUMNS)]
    return [game_table(report, part) for part in parts]


def game_table(report: Report, shown: Sequence[ScoredMethod]) -> MarkupTable:
    """Raw scores of some methods, a row for each game."""
    table, new = atari100k.games(), [entry.name for entry in report.new]
    header = ["game", "random", "human"]
    for entry in shown:
        header += [entry.name, "HNS"] if entry.name in new else [entry.name]
    rows = []
    for game in report.games:
        row = [game, raw(table[game].random), raw(table[game].human)]
        for entry in shown:
            values = entry.method.scores.get(game)
            row.append(NONE if values is None else raw(float(values.mean())))
            if entry.name in new:
                row.append(NONE if values is None else f"{entry.normal[game].mean():.2f}")
        rows.append(row)
    return MarkupTable(header, rows, "Mean raw scores over runs. HNS: (score - random) / (human - random).")


def sensitivity_table(report: Report) -> MarkupTable | None:
    """How far each aggregate of single runs moves when a game is left out; None where there are not two games."""
    header = ["method", "aggregate", "all games", "lowest without", "", "highest without", ""]
    rows = []
    for entry in (entry for entry in report.shown if len(entry.normal) > 1 and entry.method.single):
        table = aggregates.without(entry.normal)
        for key in ("mean", "median", "iqm"):
            left = {game: values[key] for game, values in table.items()}
            low, high = min(left.values()), max(left.values())
            ends = [who(left, low), number(low), who(left, high), number(high)]
            rows.append([entry.name, NAMES[key], number(entry.values[key]), *ends])
    caption = "Aggregates with one game left out: the two games that matter most to each."
    return MarkupTable(header, rows, caption, 2) if rows else None


def who(left: Mapping[str, float], value: float) -> str:
    """The game without which an aggregate is this; ``any of 13`` where they are many."""
    names = [game for game, other in left.items() if np.isclose(other, value, rtol=0, atol=1e-9)]
    return names[0] if len(names) == 1 else f"any of {len(names)}"


def improvement_table(report: Report) -> MarkupTable | None:
    """Probability of improvement with intervals."""
    rows = [
        [ours, theirs, number(result.value, result.interval), str(result.games)]
        for ours, table in report.improvements.items()
        for theirs, result in table.items()
    ]
    caption = "Probability that a run of the first beats a run of the second on a random game; 0.5 is no difference."
    return MarkupTable(["method", "over", "probability", "games"], rows, caption, 2) if rows else None


def protocol_table(report: Report) -> MarkupTable:
    """How each method's scores were measured; what nobody says is unknown."""
    rows = []
    for entry in ordered(report):
        card = entry.method.protocol
        loss, sampled = card.get("life_loss"), card.get("sampling", card.get("sampled"))
        loss = {True: "stored as termination", False: "ignored"}[loss] if isinstance(loss, bool) else loss
        drawn = {True: "stochastic policy", False: "greedy"}[sampled] if isinstance(sampled, bool) else sampled
        cells = [WORDS[entry.sticky], *(str(cell or UNKNOWN) for cell in (loss, entry.episodes, drawn))]
        source = re.sub(r"@([0-9a-f]{8})[0-9a-f]{32}", r"@\1", entry.method.source)  # a commit's first digits do
        rows.append([entry.name, *cells, counts(entry), entry.method.kind, source or UNKNOWN])
    caption = "Protocols. Where they differ, scores are not of the same thing."
    header = ["method", "sticky actions", "a lost life", "evaluation episodes", "actions", "runs", "known", "source"]
    return MarkupTable(header, rows, caption, len(header))


def return_table(report: Report) -> MarkupTable | None:
    """Raw returns of the Atari 100k runs: seeds, mean and Student's t interval of their mean."""
    rows = []
    for name, group in report.groups.items():
        table = {**results.scores(group, True), **results.scores(group, False)}
        for game, values in sorted(table.items()):
            spread = interval(values.tolist())
            ends = f"{spread[0]:.2f} to {spread[1]:.2f}" if spread else "one seed: none"
            seeds = ", ".join(f"{r.seed}: {r.score:.2f}" for r in group if r.game == game)
            rows.append([name, game, str(len(values)), f"{values.mean():.2f}", ends, seeds])
    header = ["runs", "game", "seeds", "mean return", "95 % interval", "each seed's"]
    caption = "Raw returns of the final evaluations. Interval: Student's t over the seeds' means."
    return MarkupTable(header, rows, caption, 2) if rows else None


def note_table(report: Report) -> MarkupTable:
    """What a reader must know, as a table of one column."""
    return MarkupTable(
        ["before you believe a number"], [[note] for note in notes(report) or ["Nothing stands in the way."]]
    )


def left_out_table(report: Report) -> MarkupTable | None:
    """Runs that do not count, with the reason."""
    rows = [[str(left.folder), left.reason] for left in report.left_out]
    return MarkupTable(["run folder", "reason"], rows, "Runs that do not count.", 2) if rows else None
