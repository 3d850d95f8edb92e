"""Curves of a run's log: returns, losses, and what is watched while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from glamkit.plotting.picture import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    RED,
    WIDE,
    Picture,
    count,
    figure,
    heading,
    in_words,
    label,
    legend_below,
    nothing,
    panel_title,
    style,
)
from glamkit.runs import log
from glamkit.runs.files import read_json
from glamkit.runs.folder import Run

Entries = Sequence[Mapping[str, Any]]

PANELS = (
    # key in the log, title, unit, logarithmic
    ("world_model/reconstruction", "Reconstruction: falls as pictures sharpen", "squared error per frame", True),
    ("world_model/reward", "Reward prediction", "error (cross entropy)", False),
    ("world_model/termination", "Termination prediction", "error (cross entropy)", False),
    ("world_model/dynamics_kl", "Surprise at the next frame", "surprise (KL, in nats)", False),
    ("world_model/variation_kl", "Surprise at the variation (GMamba)", "surprise (KL, in nats)", False),
    ("imagination/reward", "Imagined reward", "reward per step", False),
    ("actor_critic/value", "Critic's error", "error (cross entropy)", False),
    ("actor_critic/return", "Imagined return", "discounted reward", False),
    ("actor_critic/entropy", "Does the policy still try things out? (entropy)", "nats; 0: decided", False),
)


def series(entries: Entries, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name in the log; values that were not finite are left out."""
    pairs = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


@style
def learning_curve(run: Run) -> Picture:
    """Episode returns over training, their running mean, and the final evaluation if there is one.

    All are of whole games: how many were cut, whose returns are not to be compared with them, stands in words.
    """
    entries, config = log.read(run.log_file), run.config()
    report = read_json(run.evaluation_file) if run.evaluation_file.exists() else {}
    episodes = report.get("episodes", [])
    scores = [episode["return"] for episode in episodes if not episode["cut"]]
    cut = count(len(episodes) - len(scores), "game") + f" cut after {config.evaluation.episode_steps:,} steps"
    missing = f"evaluation: {cut}: not drawn" if len(scores) < len(episodes) else ""
    evaluated = evaluations(entries)
    if not (scores or evaluated[0] or series(entries, "episode/return")[0]):
        return in_words(f"No score to draw: no episode of training has ended yet. {missing.capitalize()}")
    picture, ((axes,),) = figure(WIDE, 3.4)
    draw_returns(axes, entries)
    if evaluated[0]:
        axes.plot(*evaluated, "D-", ms=5, color=ORANGE, label="evaluation during training: mean")
    if scores:
        axes.plot([report["step"]] * len(scores), scores, "o", color=ORANGE, mec=BLACK, mew=0.5, clip_on=False)
        marked = f"evaluation: mean {np.mean(scores):.1f} of {count(len(scores), 'whole game')}"
        axes.plot(report["step"], np.mean(scores), "D", ms=9, color=RED, label=marked, clip_on=False)
    if missing:
        axes.plot([], [], " ", label=missing)
    axes.set_xlim(0, 1.02 * config.trainer.env_steps)
    panel_title(axes, f"{config.env.game}: is the agent getting better? A blue dot is one whole game of training")
    legend_below(axes, 1 if missing else 2)
    return picture


def evaluations(entries: Entries) -> tuple[list[int], list[float]]:
    """Steps and mean returns of evaluations during training, but for those of which games were cut."""
    return series([entry for entry in entries if not entry.get("evaluation/cut")], "evaluation/return")


def draw_returns(axes: Axes, entries: Entries) -> None:
    """Episode returns and their mean over ten episodes."""
    steps, returns = series(entries, "episode/return")
    if returns:
        axes.plot(steps, returns, "o", ms=4, color=BLUE, mfc="none", label="episode in training")
    if len(returns) > 1:
        means = [float(np.mean(returns[max(0, i - 9) : i + 1])) for i in range(len(returns))]
        axes.plot(steps, means, color=BLACK, label="mean of the last 10")
    label(axes, "return (sum of rewards)")


@style
def losses(run: Run) -> Picture:
    """The parts of the world-model and actor-critic losses against steps, each in its own panel."""
    entries, config = log.read(run.log_file), run.config()
    picture, grid = figure(WIDE, 10.5, 5, 2)
    floors = {
        "world_model/dynamics_kl": config.world_model.free_nats,
        "world_model/variation_kl": config.world_model.variation_free_nats,
    }
    for axes, panel in zip(grid.flat, PANELS, strict=False):
        draw_series(axes, entries, *panel, floors.get(panel[0]))
    grid.flat[-1].set_axis_off()
    same_steps(grid.flat)
    heading(picture, "Means over each line of the log. The first five panels are the world model's")
    return picture


def same_steps(panels: Iterable[Axes]) -> None:
    """The same range of steps for all panels that have curves."""
    drawn = [axes for axes in panels if axes.lines]
    ends = [end for axes in drawn for end in axes.get_xlim()]
    for axes in drawn:
        axes.set_xlim(min(ends), max(ends))


def draw_series(
    axes: Axes, entries: Entries, key: str, title: str, unit: str, logarithmic: bool, floor: float | None = None
) -> None:
    """One name of the log against steps; a loss is not trained below its `floor`."""
    draw_curves(axes, entries, {"": (key, BLUE)}, unit, title)
    _, values = series(entries, key)
    if logarithmic and values and max(values) > 5 * min(values) > 0:
        decades(axes, min(values), max(values))
    if floor and values:
        axes.axhline(floor, color=GREY, ls="--", lw=1, label="not trained below this line (free bits)")
        legend_below(axes)


def draw_curves(axes: Axes, entries: Entries, names: Mapping[str, tuple[str, str]], unit: str, title: str) -> None:
    """Several names of the log against steps; `names` has the key and the colour of each label."""
    panel_title(axes, title)
    curves = {name: (*series(entries, key), colour) for name, (key, colour) in names.items()}
    if not any(values for _, values, _ in curves.values()):
        nothing(axes, "not in the log yet")
        return
    for number, (name, (steps, values, colour)) in enumerate(curves.items()):
        if values:  # the first of several is broad: where curves meet it shows on both sides
            axes.plot(steps, values, ".-", ms=4, lw=1.4 if number or len(curves) == 1 else 3, color=colour, label=name)
    label(axes, unit)
    if len(names) > 1:
        legend_below(axes)


def decades(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis whose marks are powers of ten, from the one below `low` to the one above `high`."""
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high) + 1e-9))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


@style
def live(entries: Entries, env_steps: int) -> Picture:
    """The curves to watch while training: episode return, reconstruction, imagined reward; those that have begun."""
    returns = ("episode/return", "Episode return, and the mean of 10")
    panels = [panel for panel in (returns, PANELS[0], PANELS[5]) if series(entries, panel[0])[0]]
    if not panels:
        return in_words("The curves begin with the first episode that ends, or the first update.")
    picture, (row,) = figure(WIDE * max(len(panels), 2) / 3, 2.5, 1, len(panels))
    for axes, panel in zip(row, panels, strict=True):
        if panel == returns:
            draw_returns(axes, entries)
            panel_title(axes, panel[1])
        else:
            draw_series(axes, entries, *panel)
        axes.set_xlim(0, 1.02 * env_steps)  # the last point is whole
        axes.xaxis.get_major_locator().set_params(nbins=3)
    return picture
