"""The figures of a report on all games: one colour, line and marker for each method throughout.

Each takes the report, and whether it is for the width of a phone; its ``alt`` says in words what it shows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from glamkit import plotting
from glamkit.envs import atari100k
from glamkit.plotting import GREY, SMALL, WIDE, Picture, figure
from glamkit.report import aggregates
from glamkit.report.report import Report, ScoredMethod
from glamkit.report.results import Result
from glamkit.report.tables import NAMES, ordered
from glamkit.runs import log as run_log
from glamkit.sweeps import summary

LOW, HIGH = 0.01, 10.0  # thresholds at which profiles are drawn
NARROW = 4.2  # inches: a phone
PANELS = 3  # of curves, side by side
Groups = Mapping[str, Sequence[Result]]


def looks(report: Report) -> dict[str, tuple[str, str, str]]:
    """Colour, line and marker of each method that is shown game by game."""
    return {entry.name: plotting.look(place) for place, entry in enumerate(report.shown)}


def names_size(narrow: bool) -> int:
    """Points of the names beside a figure; on a phone they are smaller."""
    return 7 if narrow else SMALL


@plotting.style
def aggregate_figure(report: Report, narrow: bool = False) -> Picture:
    """The four aggregates of every method with their intervals."""
    entries, look = ordered(report), looks(report)
    places = row_places(entries)
    high = 4 * (0.9 + 0.17 * len(entries)) if narrow else 1.5 + 0.24 * len(entries)
    picture, grid = figure(NARROW if narrow else WIDE, high, *((4, 1) if narrow else (1, 4)), sharey=True)
    for axes, key in zip(grid.flat, NAMES, strict=True):
        for place, entry in zip(places, entries, strict=True):
            value, ends = entry.values[key], entry.intervals.get(key)
            colour, _, marker = look.get(entry.name, (GREY, "-", "o"))
            if ends:
                axes.plot(ends, [place, place], color=colour, lw=6, alpha=0.3, solid_capstyle="butt")
            if value is not None:
                axes.plot(value, place, marker, ms=6 if report.is_new(entry) else 5, color=colour)
        gap = key == "optimality_gap"
        axes.set_title(f"{title(key)}:\n{'less' if gap else 'more'} is better", fontsize=SMALL)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel("0 = human\nor better" if gap else "1 = human")
        if not gap:
            axes.axvline(1, color=GREY, ls="--", lw=1)
        name_rows(axes, entries, narrow)
    games = plotting.count(len(report.games), "game")
    bars = "Bars: 95 % stratified bootstrap intervals, of methods with several known runs"
    plotting.heading(picture, f"How good is each method over {games}? {bars}")
    best = [f"{entry.name} {entry.values['iqm']:.3f}" for entry in entries if entry.values["iqm"] is not None]
    picture.alt = (
        f"Mean, median, IQM and optimality gap of {len(entries)} methods on {games}, with intervals. "
        f"IQM: {', '.join(best[:5])}."
    )
    return picture


def row_places(entries: Sequence[ScoredMethod]) -> list[int]:
    """Rows from the top; one is left free above those without single runs."""
    return [place + (not entry.method.single) for place, entry in enumerate(entries)]


def name_rows(axes: Axes, entries: Sequence[ScoredMethod], narrow: bool) -> None:
    """Names beside the rows of `row_places`, and above those without single runs a line and what they lack."""
    ticks = dict(zip(row_places(entries), (entry.name for entry in entries), strict=True))
    single = sum(entry.method.single for entry in entries)
    if single < len(entries):
        ticks[single] = "one value per game: not ranked"
        axes.axhline(single, color=GREY, lw=0.7)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=names_size(narrow))
    axes.set_ylim(max(ticks) + 0.5, -0.5)


@plotting.style
def profile_figure(report: Report, narrow: bool = False) -> Picture:
    """Which share of runs is better than a score, for every score."""
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, 4.6)
    taus, ones, look = np.geomspace(LOW, HIGH, 101), np.ones(1), looks(report)
    for entry in [entry for entry in report.shown if entry.method.single]:
        colour, line, _ = look[entry.name]
        wide = 2.4 if report.is_new(entry) else 1.4
        axes.plot(taus, aggregates.profile(entry.sample, taus), line, color=colour, label=entry.name, lw=wide)
        if entry.intervals and (report.is_new(entry) or not report.new):
            repeats = min(report.repeats, 500)  # a band needs no more
            ends = aggregates.bootstrap(entry.sample, lambda part: aggregates.profile(part, taus), repeats)
            axes.fill_between(taus, *ends, color=colour, alpha=0.15, lw=0)
    axes.axvline(1, color=GREY, ls="--", lw=1)
    axes.text(1.03, 0.97, "human", color=GREY, transform=axes.get_xaxis_transform(), va="top")
    axes.set(xscale="log", xlim=(LOW, HIGH), ylim=(0, 1), ylabel="share of runs above it")
    axes.set_xlabel("human-normalised score")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plotting.heading(picture, "Performance profile: the higher a curve, the more runs reach that score. Bands: 95 %")
    picture.legend(loc="outside lower center", ncols=2)
    shares = [f"{e.name} {aggregates.profile(e.sample, ones)[0]:.0%}" for e in report.shown if e.method.single]
    picture.alt = f"The share of runs above a score, falling from left to right. Above a human: {', '.join(shares)}."
    return picture


@plotting.style
def improvement_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Probability of improvement over every method with single runs."""
    pairs = [(ours, theirs, result) for ours, row in report.improvements.items() for theirs, result in row.items()]
    if not pairs:
        return None
    look, several = looks(report), len(report.improvements) > 1
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, 1.2 + (0.22 if narrow else 0.26) * len(pairs))
    for place, (ours, _, result) in enumerate(pairs):
        colour, _, marker = look[ours]
        if result.interval is not None:
            axes.plot(result.interval, [place, place], color=colour, lw=6, alpha=0.3, solid_capstyle="butt")
        axes.plot(result.value, place, marker, ms=5, color=colour)
    axes.axvline(0.5, color=GREY, ls="--", lw=1)
    names = [f"{ours} over {theirs}" if several else theirs for ours, theirs, _ in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=names_size(narrow))
    axes.set(ylim=(len(pairs) - 0.5, -0.5), xlim=(0, 1), xlabel="probability (above 0.5: better)")
    who = "each" if several else pairs[0][0]
    plotting.heading(picture, f"How likely is it that a run of {who} beats a run of each of these on a random game?")
    ends = [f"{name} {result.value:.2f}" for name, (_, _, result) in zip(names, pairs, strict=True)]
    chosen = [*ends[:3], "...", *ends[-3:]] if len(ends) > 6 else ends
    picture.alt = f"Probability that a run of {who} is better, with intervals: {', '.join(chosen)}."
    return picture


def title(key: str) -> str:
    """An aggregate's name as a title."""
    return NAMES[key][0].upper() + NAMES[key][1:]


@plotting.style
def game_figure(report: Report, narrow: bool = False) -> Picture:
    """Human-normalised scores game by game."""
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, (2.4 if narrow else 1.6) + 0.26 * len(report.games))
    for name, (colour, _, marker) in looks(report).items():
        entry = report.entries[name]
        new = report.is_new(entry)
        means = {game: values.mean() for game, values in entry.normal.items()}
        places = [report.games.index(game) for game in means]
        fill = colour if new else "none"
        axes.plot(list(means.values()), places, marker, color=colour, mfc=fill, ms=7 if new else 5, label=name)
        if new:
            for place, values in zip(places, entry.normal.values(), strict=True):
                axes.plot(values, [place] * len(values), "|", color=colour, ms=9, alpha=0.7)
    for line, word in ((0, "random"), (1, "human")):
        axes.axvline(line, color=GREY, ls="--", lw=1)
        axes.text(line, 1.0, word, color=GREY, transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    axes.set_xscale("symlog", linthresh=1, linscale=2)
    ticks = [-1, 0, 0.5, 1, 2, 5, 20] if narrow else [-1, 0, 0.25, 0.5, 0.75, 1, 2, 5, 10, 20, 50]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(report.games)), report.games)
    axes.set(ylim=(len(report.games) - 0.5, -0.5), xlabel="human-normalised score (linear up to 1)")
    plotting.heading(picture, "Game by game: filled are new runs (strokes: single seeds), hollow are published")
    picture.legend(loc="outside lower center", ncols=2 if narrow else 3)
    counts = [f"{entry.name} {aggregates.superhuman(entry.sample)}" for entry in report.shown]
    picture.alt = f"Scores on {len(report.games)} games. At or above a human, in games: {', '.join(counts)}."
    return picture


def curve_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Returns in training of the Atari 100k runs; None without any."""
    return draw_panels(report.groups, narrow)


def small_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Returns in training of small presets and of shorter or longer runs; None without any."""
    return draw_panels(report.small, narrow)


@plotting.style
def draw_panels(groups: Groups, narrow: bool = False) -> Picture | None:
    """A panel for each game, and in it each group's seeds, their mean, and its interval."""
    panels = sorted({result.game for group in groups.values() for result in group})
    if not panels:
        return None
    columns = min(1 if narrow else PANELS, len(panels))
    rows = -(-len(panels) // columns)
    wide = NARROW if narrow else WIDE
    names = {name: textwrap.fill(name, int(12 * wide)) for name in groups}
    legend = 0.17 * sum(name.count("\n") + 1 for name in names.values())
    picture, grid = figure(wide, 0.9 + 2.3 * rows + legend, rows, columns)
    for axes, game in zip(grid.flat, panels, strict=False):
        axes.set_xlim(0, 1)  # grows with the longest run
        for place, (name, group) in enumerate(groups.items()):
            colour, _, _ = plotting.look(place)
            draw_curves(axes, [result for result in group if result.game == game], colour, names[name])
        draw_references(axes, game)
        axes.set_title(game)
        plotting.label(axes, "return")
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True, steps=[1, 5, 10]))  # 0 and 100,000
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    handles = {word: handle for a in grid.flat for handle, word in zip(*a.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=1)
    meaning = "thin: seeds, thick: their mean, band: its 95 % t-interval, diamonds: evaluations"
    plotting.heading(picture, f"Reward in training ({meaning})")
    picture.alt = "Returns in training, a panel for each game. " + endings(groups)
    return picture


def endings(groups: Groups) -> str:
    """The final scores, in words."""
    parts = []
    for name, group in groups.items():
        for game in dict.fromkeys(result.game for result in group):
            scores = [f"{result.score:.1f}" for result in group if result.game == game]
            parts.append(f"{name} on {game}: {', '.join(scores)}")
    return f"Final evaluations: {'; '.join(parts)}."


def draw_curves(axes: Axes, group: Sequence[Result], colour: str, name: str) -> None:
    """One game's runs of one experiment; lines of a log that cannot be read are passed over."""
    if not group:
        return
    steps = group[0].config.trainer.env_steps
    places, outcomes = summary.places(steps), []
    for result in group:
        axes.plot(steps, result.score, "D", ms=4, color=colour, mec="white", mew=0.5, clip_on=False, zorder=3)
        outcomes.append(result.training())
        log = run_log.added(result.run.log_file)[0]
        axes.plot(*plotting.evaluations(log), "D", ms=2.5, color=colour, alpha=0.7)
    matches = summary.curves(outcomes, places)
    known = ~np.isnan(matches).all(0) if len(matches) else np.zeros(len(places), bool)
    axes.plot(places, np.where(known, summary.middle(matches), np.nan), color=colour, lw=2, label=name)
    if known.any() and len(matches) > 1:
        for curve in matches:
            axes.plot(places, curve, color=colour, lw=0.7, alpha=0.6)
        axes.autoscale_view()
        limits = axes.get_ylim()  # seeds set the scale: with two of them the interval is as wide as it is uncertain
        axes.fill_between(places, *band(matches), color=colour, alpha=0.15, lw=0)
        axes.set_ylim(limits)
    elif not known.any():
        axes.text(0.03, 0.9, "no episode ended in training", transform=axes.transAxes, color=GREY, fontsize=SMALL)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.03 * steps))


def draw_references(axes: Axes, game: str) -> None:
    """Random play of an Atari 100k game, and a human where the runs come that far."""
    if axes.dataLim.height == 0:  # nothing was ever scored: a scale of hundredths would suggest that something was
        axes.set_ylim(axes.get_ylim()[0] - 1, axes.get_ylim()[1] + 1)
    known = atari100k.games().get(game)
    if known is not None:
        axes.axhline(known.random, color=GREY, ls=":", lw=1, label="random play")
        if known.human <= axes.get_ylim()[1]:
            axes.axhline(known.human, color=GREY, ls="--", lw=1, label="human")


def band(result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places,) lower and upper end of the t-interval of the mean over seeds (seeds, places); nan below two seeds."""
    ends = [plotting.interval(column[~np.isnan(column)].tolist()) or (np.nan, np.nan) for column in result.T]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
