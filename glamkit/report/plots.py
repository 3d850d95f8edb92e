"""The figures of a report: one colour, line and marker for each method throughout."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from glamkit import plotting
from glamkit.envs import atari100k
from glamkit.plotting import GREY, SMALL, WIDE, Picture, figure
from glamkit.report import aggregates
from glamkit.report.report import Report
from glamkit.report.results import Result
from glamkit.report.tables import NAMES, ordered
from glamkit.runs import log
from glamkit.sweeps import summary

PANELS = 3  # of curves, side by side
LETTERS = 31  # of a name in one line; the longest of a published method has as many


def in_lines(name: str) -> str:
    """A name in lines that leave room for the panels beside it."""
    return textwrap.fill(name, LETTERS)


def draw_line(axes: Axes, value: float, word: str = "") -> None:
    """A dashed line upwards at a value, with a word above."""
    axes.axvline(value, color=GREY, ls="--", lw=1)
    axes.text(value, 1.0, word, color=GREY, transform=axes.get_xaxis_transform(), ha="center", va="bottom")


@plotting.style
def aggregate_figure(report: Report) -> Picture:
    """The four aggregates of every method with their intervals; a line stands above those without single runs."""
    entries, shown = ordered(report), [entry.name for entry in report.shown]
    single, names = sum(entry.method.single for entry in entries), [entry.name for entry in entries]
    edges = np.cumsum([-0.5, *(1 + 0.65 * in_lines(name).count("\n") for name in names)])  # of rows, from the top
    places = (edges[1:] + edges[:-1]) / 2
    picture, (row,) = figure(WIDE, 1.5 + 0.24 * (edges[-1] + 0.5), 1, 4, sharey=True)
    for axes, key in zip(row, NAMES, strict=True):
        for place, entry in zip(places, entries, strict=True):
            known, value = entry.name in shown, entry.values[key]
            colour, _, marker = plotting.look(shown.index(entry.name)) if known else (GREY, "-", "o")
            if ends := entry.intervals.get(key):
                axes.plot(ends, [place, place], color=colour, lw=6, alpha=0.3, solid_capstyle="butt")
            if value is not None:
                axes.plot(value, place, marker, ms=5, color=colour)
        gap = key == "optimality_gap"
        name = NAMES[key][0].upper() + NAMES[key][1:]
        axes.set_title(f"{name}:\n{'less' if gap else 'more'} is better", fontsize=SMALL)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel("0 = human\nor better" if gap else "1 = human")
        if not gap:
            draw_line(axes, 1)
        axes.axhline(edges[single], color=GREY, lw=0.7)
    row[0].set_yticks(places, [in_lines(name) for name in names], fontsize=SMALL)
    row[0].set_ylim(edges[-1], edges[0])
    plotting.heading(
        picture,
        f"How good is each method over {plotting.count(len(report.games), 'game')}? Bars: 95 % stratified bootstrap "
        "intervals, of methods with several known runs. Below the line: one value per game, not ranked",
    )
    return picture


@plotting.style
def game_figure(report: Report) -> Picture:
    """Human-normalised scores game by game."""
    legend = 0.17 * sum(in_lines(entry.name).count("\n") for entry in report.shown)  # beyond a line for each name
    picture, ((axes,),) = figure(WIDE, 1.6 + 0.26 * len(report.games) + legend)
    for number, entry in enumerate(report.shown):
        colour, _, marker = plotting.look(number)
        places = [report.games.index(game) for game in entry.normal]
        means, fill = aggregates.game_means(entry.sample), colour if entry.new else "none"
        axes.plot(means, places, marker, color=colour, mfc=fill, ms=7 if entry.new else 5, label=in_lines(entry.name))
        for place, values in zip(places, entry.sample, strict=True) if entry.new else ():
            axes.plot(values, [place] * len(values), "|", color=colour, ms=9, alpha=0.7)
    axes.set_yticks(range(len(report.games)), report.games, fontsize=SMALL)
    axes.set_ylim(len(report.games) - 0.5, -0.5)
    draw_line(axes, 0, "random")
    draw_line(axes, 1, "human")
    axes.set_xscale("symlog", linthresh=1, linscale=2)
    axes.xaxis.set_major_locator(FixedLocator([-1, 0, 0.25, 0.5, 0.75, 1, 2, 5, 10, 20, 50]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("human-normalised score (linear up to 1)")
    plotting.heading(picture, "Game by game: filled are new runs (strokes: single seeds), hollow are published")
    picture.legend(loc="outside lower center", ncols=3)
    return picture


@plotting.style
def curve_figure(groups: Mapping[str, Sequence[Result]]) -> Picture | None:
    """Returns in training: a panel for each game with the curves of each experiment; None without runs."""
    panels = sorted({result.game for group in groups.values() for result in group})
    if not panels:
        return None
    names = {name: textwrap.fill(name, int(12 * WIDE)) for name in groups}
    columns = min(PANELS, len(panels))
    rows = -(-len(panels) // columns)
    legend = 0.17 * sum(name.count("\n") + 1 for name in names.values())
    picture, grid = figure(WIDE, 0.9 + 2.3 * rows + legend, rows, columns)
    for axes, game in zip(grid.flat, panels, strict=False):
        # Those without a run of this game stand there empty, as colours go by place.
        own = {names[name]: [result for result in group if result.game == game] for name, group in groups.items()}
        summary.draw_curves(axes, {name: [result.training for result in part] for name, part in own.items()})
        for place, part in enumerate(own.values()):
            draw_evaluations(axes, part, plotting.look(place)[0])
        draw_references(axes, game)
        axes.set_title(game)
        axes.set_ylabel("return")
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True, steps=[1, 5, 10]))  # 0 and 100,000
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    handles = {word: handle for a in grid.flat for handle, word in zip(*a.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=1)
    plotting.heading(picture, "Reward in training. Line: mean of seeds, band: lowest to highest, diamonds: evaluations")
    return picture


def draw_evaluations(axes: Axes, group: Sequence[Result], colour: str) -> None:
    """The final evaluations of one game's runs, and smaller those during training; those of whole games alone."""
    for result in group:
        steps = result.config.trainer.env_steps
        if not result.cut:  # the curve is of whole games
            axes.plot(steps, result.score, "D", ms=4, color=colour, mec="white", mew=0.5, clip_on=False, zorder=3)
        entries = log.added(result.run.log_file)[0]  # damaged lines are passed over
        axes.plot(*plotting.evaluations(entries), "D", ms=2.5, color=colour, alpha=0.7)


def draw_references(axes: Axes, game: str) -> None:
    """Random play of an Atari 100k game, and a human where the runs come that far."""
    if axes.dataLim.height == 0:  # nothing was ever scored: a scale of hundredths would suggest that something was
        axes.set_ylim(axes.get_ylim()[0] - 1, axes.get_ylim()[1] + 1)
    known = atari100k.games().get(game)
    if known is not None:
        axes.axhline(known.random, color=GREY, ls=":", lw=1, label="random play")
        if known.human <= axes.get_ylim()[1]:
            axes.axhline(known.human, color=GREY, ls="--", lw=1, label="human")
