"""Figure of a benchmark's result: the times of the parts of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glamkit import plotting
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Picture

COLORS = {
    "world model": BLUE,
    "encoding of contexts": SKY,
    "imagined steps": ORANGE,
    "actor-critic": GREEN,
    "the rest": GREY,
    "whole step": PURPLE,
}


@plotting.style
def where_time_goes(report: Mapping[str, Any]) -> Picture:
    """A bar for each side, as long as its measured whole step; phases are parts of it, with their shares.

    Args:
        report: the result of `benchmark.measure`.
    """
    phases = report["phases"]
    sides = {"plain": parts(phases, "reference_s"), "glamkit,\nsame work": parts(phases, "fast_s")}
    sides["glamkit,\nopt-in"] = {"whole step": phases["step_opt_in"]["fast_s"]}
    longest = max(sum(result.values()) for result in sides.values())
    scale, unit, units = (1, "s", "seconds") if longest >= 1 else (1000, "ms", "milliseconds")
    picture, ((axes,),) = plotting.figure(plotting.WIDE, 3.6)
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
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    plotting.legend_below(axes, 3)
    plotting.panel_title(axes, "Where does the time of one training step go? Shares: by the phases' own times")
    return picture


def parts(phases: Mapping[str, Any], key: str) -> dict[str, float]:
    """Seconds of the parts of a side's step, which add up to it; `key` is ``fast_s`` or ``reference_s``.

    What no phase holds is ``the rest``. Phases that add up to more than the step, since each was timed alone, get
    their shares of it.
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
