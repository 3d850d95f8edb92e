"""Figure of a benchmark's result: the times of the parts of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.bench.benchmark import beside_plain
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Picture

COLORS = {
    "world model": BLUE,
    "encoding of contexts": SKY,
    "imagined steps": ORANGE,
    "actor-critic": GREEN,
    "the rest": GREY,
    "whole step": PURPLE,
}
NAMES = {
    "world_model": "world model",
    "imagination": "imagination",
    "imagination_steps": "its steps alone",
    "actor_critic": "actor-critic",
    "step": "whole step",
    "step_opt_in": "whole step,\nopt-in settings",
}


@plotting.style
def where_time_goes(report: Mapping[str, Any]) -> Picture:
    """The measured whole step of each side and its parts, and how the two sides' times compare in each phase.

    Args:
        report: the result of `benchmark.measure`.
    """
    phases = report["phases"]
    picture, ((upper,), (lower,)) = plotting.figure(plotting.WIDE, 6.8, 2, 1)
    draw_parts(upper, phases)
    draw_ratios(lower, phases)
    for axes in (upper, lower):
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    return picture


def draw_parts(axes: Axes, phases: Mapping[str, Any]) -> None:
    """Draws a bar for each side, as long as its measured whole step; phases are parts of it, with their shares."""
    sides = {"plain": parts(phases, "reference_s"), "glamkit,\nsame work": parts(phases, "fast_s")}
    sides["glamkit,\nopt-in"] = {"whole step": phases["step_opt_in"]["fast_s"]}
    longest = max(sum(result.values()) for result in sides.values())
    scale, unit, units = (1, "s", "seconds") if longest >= 1 else (1000, "ms", "milliseconds")
    for row, result in enumerate(sides.values()):
        start, whole = 0.0, sum(result.values())
        for name, seconds in result.items():
            axes.barh(row, scale * seconds, 0.62, scale * start, color=COLORS[name], alpha=0.5, edgecolor="white")
            if seconds > 0.07 * longest and len(result) > 1:
                middle = scale * (start + seconds / 2)
                axes.text(middle, row, f"{seconds / whole:.0%}", ha="center", va="center", color=BLACK)
            start += seconds
        axes.text(scale * (start + 0.01 * longest), row, f"{scale * start:.3g} {unit}", va="center")
    for name, colour in COLORS.items():
        axes.barh(0, 0, color=colour, alpha=0.5, label=name)
    axes.set_yticks(range(len(sides)), list(sides))
    axes.set(xlabel=f"{units}: one whole step, as measured (medians)", xlim=(0, 1.2 * scale * longest))
    plotting.legend_below(axes, 3)
    plotting.panel_title(axes, "Where does the time of one training step go? Shares: by the phases' own times")


def parts(phases: Mapping[str, Any], key: str) -> dict[str, float]:
    """Seconds of the parts of a step, which add up to it.

    What no phase holds is ``the rest``. Phases that add up to more than the step, since each was timed alone, get
    their shares of it.

    Args:
        phases: of the result.
        key: ``fast_s`` or ``reference_s``.
    """
    seconds = {name: row[key] for name, row in phases.items()}
    steps = min(seconds["imagination"], seconds["imagination_steps"])
    known = {
        "world model": seconds["world_model"],
        "encoding of contexts": seconds["imagination"] - steps,
        "imagined steps": steps,
        "actor-critic": seconds["actor_critic"],
    }
    whole, total = seconds["step"], sum(known.values())
    return {name: value * min(1, whole / total) for name, value in known.items()} | {"the rest": max(0, whole - total)}


def draw_ratios(axes: Axes, phases: Mapping[str, Any]) -> None:
    """Draws a bar for each phase's ratio and a dot for the ratio of each round."""
    most = max(1.0, *(max(phases[name]["ratios"]) for name in NAMES))
    for place, name in enumerate(NAMES):
        row = phases[name]
        axes.barh(place, row["ratio"], 0.62, color=PURPLE if name == "step_opt_in" else BLUE, alpha=0.35)
        axes.plot(row["ratios"], [place] * len(row["ratios"]), "o", ms=3.5, color=BLUE)
        axes.text(max(1.0, *row["ratios"]) + 0.02 * most, place, beside_plain(row["ratio"]), va="center")
    axes.axvline(1, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(NAMES)), list(NAMES.values()))
    axes.set(xlabel="plain time / glamkit time; a dot for each round", xlim=(0, 1.25 * most))
    plotting.panel_title(
        axes, "How do the times compare? Right of the dashed line glamkit is faster, left of it slower"
    )
