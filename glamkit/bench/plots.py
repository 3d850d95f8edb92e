"""Figure of a benchmark's result: the times of the parts of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDE, Picture, figure, legend_below, style

COLORS = {
    "world model": BLUE,
    "encoding of contexts": SKY,
    "imagined steps": ORANGE,
    "imagination": ORANGE,
    "actor-critic": GREEN,
    "whole step": GREY,
}
NAMES = {
    "world_model": "world model",
    "imagination": "imagination",
    "imagination_steps": "its steps alone",
    "actor_critic": "actor-critic",
    "step": "whole step",
    "step_opt_in": "whole step,\nopt-in settings",
}


@style
def where_time_goes(report: Mapping[str, Any]) -> Picture:
    """The parts of one training step on both sides in seconds, and how many times faster each phase is.

    Args:
        report: the result of `benchmark.measure`.
    """
    phases = report["phases"]
    picture, ((upper,), (lower,)) = figure(WIDE, 6.4, 2, 1)
    draw_parts(upper, phases)
    draw_ratios(lower, phases)
    return picture


def draw_parts(axes: Axes, phases: Mapping[str, Any]) -> None:
    """Draws stacked bars: the reference, the fast side, and the step with the opt-in settings as one bar."""
    sides = {"reference": parts(phases, "reference_s"), "glamkit,\nsame work": parts(phases, "fast_s")}
    if "step_opt_in" in phases:
        sides["glamkit,\nopt-in"] = {"whole step": phases["step_opt_in"]["fast_s"]}
    longest = max(sum(result.values()) for result in sides.values())
    scale, unit, units = (1, "s", "seconds") if longest >= 1 else (1000, "ms", "milliseconds")
    longest *= scale
    for row, result in enumerate(sides.values()):
        start = 0.0
        for name, seconds in result.items():
            width = scale * seconds
            axes.barh(row, width, 0.62, start, color=COLORS[name], alpha=0.5, edgecolor="white")
            if width > 0.07 * longest:
                axes.text(start + width / 2, row, amount(width), ha="center", va="center", color=BLACK)
            start += width
        axes.text(start + 0.01 * longest, row, f"{amount(start)} {unit}", va="center")
    for name in dict.fromkeys(name for result in sides.values() for name in result):
        axes.barh(0, 0, color=COLORS[name], alpha=0.5, label=name)
    axes.set_yticks(range(len(sides)), list(sides))
    axes.set(xlabel=f"{units}, added up from the phases (medians)", xlim=(0, 1.2 * longest))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    legend_below(axes, 4)
    axes.set_title("Where does the time of one training step go? Shorter is faster")


def parts(phases: Mapping[str, Any], key: str) -> dict[str, float]:
    """Seconds of the parts of a step that were timed.

    Args:
        phases: of the result.
        key: ``fast_s`` or ``reference_s``.
    """
    seconds = {name: row[key] for name, row in phases.items()}
    result = {"world model": seconds.get("world_model")}
    if {"imagination", "imagination_steps"} <= set(seconds):
        result["encoding of contexts"] = max(0.0, seconds["imagination"] - seconds["imagination_steps"])
    else:
        result["imagination"] = seconds.get("imagination")
    result |= {"imagined steps": seconds.get("imagination_steps"), "actor-critic": seconds.get("actor_critic")}
    known = {name: value for name, value in result.items() if value is not None}
    return known or {"whole step": seconds["step"]}


def draw_ratios(axes: Axes, phases: Mapping[str, Any]) -> None:
    """Draws a bar for each phase's ratio and a dot for the ratio of each round."""
    names = [name for name in NAMES if name in phases]
    most = max(max(phases[name]["ratios"]) for name in names)
    for place, name in enumerate(names):
        row = phases[name]
        axes.barh(place, row["ratio"], 0.62, color=PURPLE if name == "step_opt_in" else BLUE, alpha=0.35)
        axes.plot(row["ratios"], [place] * len(row["ratios"]), "o", ms=3.5, color=BLUE)
        text = f"{row['ratio']:.1f} x"
        axes.text(max(row["ratios"]) + 0.02 * most, place, text, va="center")
    axes.axvline(1, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(names)), [NAMES[name] for name in names])
    axes.set(xlabel="reference time / glamkit time; a dot for each round", xlim=(0, 1.15 * most))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    axes.set_title("How many times faster is glamkit? Dashed: as fast")


def amount(number: float) -> str:
    """A number with a few digits: ``22.7``, ``0.045``."""
    return f"{number:.3g}"
