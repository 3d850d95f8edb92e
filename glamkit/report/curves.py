"""Returns in training: a panel for each game, with seeds, their mean and its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from glamkit import plotting
from glamkit.errors import GlamkitError
from glamkit.plotting import GREY, Picture, figure
from glamkit.report.plots import NARROW, looks
from glamkit.report.report import Report
from glamkit.report.results import Result, training
from glamkit.runs import log as run_log
from glamkit.runs.folder import Run
from glamkit.sweeps import summary

COLUMNS = 4  # of panels
Groups = Mapping[str, Sequence[Result]]


def curve_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Returns in training of the Atari 100k runs; None without any.

    Args:
        report: with the runs.
        narrow: for the width of a phone.
    """
    return draw(report.groups, narrow)


def small_figure(report: Report, narrow: bool = False) -> Picture | None:
    """Returns in training of small presets and of shorter or longer runs; None without any.

    Args:
        report: with the runs.
        narrow: for the width of a phone.
    """
    return draw(report.small, narrow)


@plotting.style
def draw(groups: Groups, narrow: bool = False) -> Picture | None:
    """A panel for each game, and in it each group's seeds, their mean, and its interval."""
    panels = sorted({result.game for group in groups.values() for result in group})
    if not panels:
        return None
    columns = min(1 if narrow else COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    wide = NARROW if narrow else max(6, 2.9 * columns)
    names = {name: textwrap.fill(name, int(12 * wide)) for name in groups}
    legend = 0.17 * sum(name.count("\n") + 1 for name in names.values())
    picture, grid = figure(wide, 0.9 + 2.3 * rows + legend, rows, columns)
    look = looks(list(groups))
    for axes, game in zip(grid.flat, panels, strict=False):
        axes.set_xlim(0, 1)  # grows with the longest run
        for name, group in groups.items():
            draw_curves(axes, [result for result in group if result.game == game], look[name].colour, names[name])
        axes.set_title(game)
        plotting.label(axes, "return")
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
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
    """One game's runs of one experiment; one whose log cannot be read has its final score alone."""
    if not group:
        return
    steps = group[0].config.trainer.env_steps
    places, outcomes = summary.places(steps), []
    for result in group:
        axes.plot(steps, result.score, "D", ms=4, color=colour, mec="white", mew=0.5, clip_on=False, zorder=3)
        try:
            outcomes.append(training(result))
        except GlamkitError:
            continue
        file = Run(result.place).log_file
        log = list(run_log.read(file)) if file.exists() else []
        axes.plot(*plotting.series(log, "evaluation/return"), "D", ms=2.5, color=colour, alpha=0.7)
    found = summary.curves(outcomes, places)
    known = ~np.isnan(found).all(0) if len(found) else np.zeros(len(places), bool)
    axes.plot(places, np.where(known, summary.middle(found), np.nan), color=colour, lw=2, label=name)
    if known.any() and len(found) > 1:
        for curve in found:
            axes.plot(places, curve, color=colour, lw=0.7, alpha=0.6)
        axes.autoscale_view()
        limits = axes.get_ylim()  # seeds set the scale: with two of them the interval is as wide as it is uncertain
        axes.fill_between(places, *band(found), color=colour, alpha=0.15, lw=0)
        axes.set_ylim(limits)
    elif not known.any():
        axes.text(0.03, 0.9, "no episode ended in training", transform=axes.transAxes, color=GREY, fontsize=8)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.03 * steps))


def band(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places,) lower and upper end of the t-interval of the mean over seeds (seeds, places); nan below two seeds."""
    ends = [summary.interval(column[~np.isnan(column)].tolist()) or (np.nan, np.nan) for column in found.T]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
