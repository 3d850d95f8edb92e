"""The figures of a report on all games: one colour, line and marker for each method throughout.

Each takes the report, and whether it is for the width of a phone; its ``alt`` says in words what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from glamkit import plotting
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, figure
from glamkit.report import aggregates
from glamkit.report.report import Report
from glamkit.report.tables import NAMES, ordered, who

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
LINES = ("-", "--", ":")
MARKERS = "osD^vPX"
LOW, HIGH = 0.01, 10.0  # thresholds at which profiles are drawn
WIDE, NARROW = 11.0, 5.2  # inches: a page, a phone


class LineStyle(NamedTuple):
    """How a method is drawn."""

    colour: str
    line: str
    marker: str


def looks(names: Sequence[str]) -> dict[str, LineStyle]:
    """A look for each name."""
    return {
        name: LineStyle(COLOURS[n % len(COLOURS)], LINES[n // len(COLOURS) % len(LINES)], MARKERS[n % len(MARKERS)])
        for n, name in enumerate(names)
    }


def shown_looks(report: Report) -> dict[str, LineStyle]:
    """Of what is shown game by game."""
    return looks([entry.name for entry in report.shown])


@plotting.style
def aggregate_figure(report: Report, narrow: bool = False) -> Picture:
    """The four aggregates of every method with their intervals."""
    entries, look = ordered(report), shown_looks(report)
    high = 4 * (0.9 + 0.17 * len(entries)) if narrow else 1.3 + 0.24 * len(entries)
    picture, grid = figure(NARROW if narrow else WIDE, high, *((4, 1) if narrow else (1, 4)), sharey=True)
    for axes, key in zip(grid.flat, NAMES, strict=True):
        for place, entry in enumerate(entries):
            value, ends = entry.values[key], entry.intervals.get(key)
            colour, _, marker = look.get(entry.name, LineStyle(GREY, "-", "o"))
            if ends:
                axes.plot(ends, [place, place], color=colour, lw=6, alpha=0.3, solid_capstyle="butt")
            if value is not None:
                axes.plot(value, place, marker, ms=6 if report.is_new(entry) else 5, color=colour)
        gap = key == "optimality_gap"
        axes.set_title(f"{title(key)}: {'less' if gap else 'more'} is better", fontsize=9)
        axes.set_xlim(left=0)
        axes.set_xlabel("0 = human or better, always" if gap else "1 = human")
        axes.set_yticks(range(len(entries)), [entry.name for entry in entries], fontsize=7 if narrow else 9)
    grid.flat[0].set_ylim(len(entries) - 0.5, -0.5)
    games = plotting.count(len(report.games), "game")
    bars = "Bars: 95 % stratified bootstrap intervals. Without a bar, single runs are not known"
    plotting.heading(picture, f"How good is each method over {games}? {bars}")
    best = [f"{entry.name} {entry.values['iqm']:.3f}" for entry in entries if entry.values["iqm"] is not None]
    picture.alt = (
        f"Mean, median, IQM and optimality gap of {len(entries)} methods on {games}, with intervals. "
        f"IQM: {', '.join(best[:5])}."
    )
    return picture


@plotting.style
def profile_figure(report: Report, narrow: bool = False) -> Picture:
    """Which share of runs is better than a score, for every score."""
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, 4.6)
    taus, ones, look = np.geomspace(LOW, HIGH, 101), np.ones(1), shown_looks(report)
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
    picture.legend(loc="outside lower center", ncols=2 if narrow else 4)
    shares = [f"{e.name} {aggregates.profile(e.sample, ones)[0]:.0%}" for e in report.shown if e.method.single]
    picture.alt = f"The share of runs above a score, falling from left to right. Above a human: {', '.join(shares)}."
    return picture


@plotting.style
def improvement_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Probability of improvement over every method with single runs."""
    pairs = [(ours, theirs, found) for ours, row in report.improvements.items() for theirs, found in row.items()]
    if not pairs:
        return None
    look, several = shown_looks(report), len(report.improvements) > 1
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, 1.2 + (0.22 if narrow else 0.26) * len(pairs))
    for place, (ours, _, found) in enumerate(pairs):
        colour, _, marker = look[ours]
        axes.plot(found.interval, [place, place], color=colour, lw=6, alpha=0.3, solid_capstyle="butt")
        axes.plot(found.value, place, marker, ms=5, color=colour)
    axes.axvline(0.5, color=GREY, ls="--", lw=1)
    names = [f"{ours} over {theirs}" if several else theirs for ours, theirs, _ in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=7 if narrow else 9)
    axes.set(ylim=(len(pairs) - 0.5, -0.5), xlim=(0, 1), xlabel="probability; right of 0.5 it is the better one")
    who = "each" if several else pairs[0][0]
    plotting.heading(picture, f"How likely does a run of {who} beat a run of these on a random game?")
    ends = [f"{name} {found.value:.2f}" for name, (_, _, found) in zip(names, pairs, strict=True)]
    chosen = [*ends[:3], "...", *ends[-3:]] if len(ends) > 6 else ends
    picture.alt = f"Probability that a run of {who} is better, with intervals: {', '.join(chosen)}."
    return picture


@plotting.style
def sensitivity_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Aggregates with each game left out in turn."""
    if not report.sensitivity:
        return None
    look, names = shown_looks(report), list(report.sensitivity)
    high = 3 * (0.9 + 0.4 * len(names)) if narrow else 1.3 + 0.5 * len(names)
    picture, grid = figure(NARROW if narrow else WIDE, high, *((3, 1) if narrow else (1, 3)), sharey=True)
    moves = []
    for axes, key in zip(grid.flat, ("mean", "median", "iqm"), strict=True):
        for place, name in enumerate(names):
            left = {game: values[key] for game, values in report.sensitivity[name].items()}
            value = report.entries[name].values[key]
            axes.plot(list(left.values()), [place] * len(left), "|", ms=9, color=look[name].colour, alpha=0.7)
            axes.plot(value, place, look[name].marker, ms=6, color=look[name].colour)
            far = max(left.values(), key=lambda other: abs(other - (value or 0.0)))
            side = {"ha": "left" if far >= (value or 0.0) else "right", "va": "top", "fontsize": 7, "color": GREY}
            axes.annotate(who(left, far), (far, place), (0, -7), textcoords="offset points", **side)
            moves.append(
                (abs(far - (value or 0.0)), f"the {NAMES[key]} of {name} to {far:.3f}, without {who(left, far)}")
            )
        axes.margins(x=0.25)
        axes.set_title(title(key))
        axes.set_xlabel("1 = human")
        axes.set_yticks(range(len(names)), names, fontsize=7 if narrow else 9)
    grid.flat[0].set_ylim(len(names) - 0.4, -0.5)
    strokes = "Strokes: the aggregate without one game; the game that moves it most is named"
    plotting.heading(picture, f"Does a single game decide? Markers: all games. {strokes}")
    picture.alt = f"Mean, median and IQM with each game left out. The farthest move is {max(moves)[1]}."
    return picture


def title(key: str) -> str:
    """An aggregate's name as a title."""
    return NAMES[key][0].upper() + NAMES[key][1:]


@plotting.style
def game_figure(report: Report, narrow: bool = False) -> Picture:
    """Human-normalised scores game by game."""
    picture, ((axes,),) = figure(NARROW if narrow else WIDE, (2.4 if narrow else 1.6) + 0.26 * len(report.games))
    for name, (colour, _, marker) in shown_looks(report).items():
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
    axes.set(ylim=(len(report.games) - 0.5, -0.5), xlabel="human-normalised score, mean over runs (linear up to 1)")
    plotting.heading(picture, "Game by game: filled are new runs (strokes: single seeds), hollow are published")
    picture.legend(loc="outside lower center", ncols=2 if narrow else 4)
    counts = [f"{entry.name} {aggregates.superhuman(entry.sample)}" for entry in report.shown]
    picture.alt = f"Scores on {len(report.games)} games. At or above a human, in games: {', '.join(counts)}."
    return picture
