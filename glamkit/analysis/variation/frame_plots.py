"""The variation lens as pictures of the screen: where change was predicted, and one step in full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from glamkit import plotting
from glamkit.analysis.variation.effective_memory import WindowEffect
from glamkit.analysis.variation.events import GameEvent
from glamkit.analysis.variation.lens import QUANTITIES
from glamkit.analysis.variation.metrics import ScreenForecast, VariationView
from glamkit.analysis.variation.plots import STEP, mark, running, signs, steps_axis
from glamkit.plotting import BLUE, GREY, ORANGE, Picture

BRIGHTER = "purple: brighter, orange: darker than the frame before"


@plotting.style
def where(view: VariationView, events: Sequence[GameEvent], shown: int = 8) -> Picture:
    """Where on the screen a change was predicted beside where it came, for some steps, and the skill at every step."""
    screen, picks = view.screen, busiest(view.screen, shown)
    picture = Picture(figsize=(10, 7.6), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(3, 1.1)))
    film, curve = upper.subplots(), lower.subplots()
    changes = {
        "true change": screen.true,
        "change as the\nmodel sees it": screen.seen,
        "change that was\npredicted": screen.expected,
    }
    reach = limit(screen)
    rows = {"frame before": screen.frames[picks]} | {
        name: coloured(change[picks], reach) for name, change in changes.items()
    }
    plotting.film(film, rows, [f"step {view.numbers[pick]:,}" for pick in picks])
    title = "Did the model know where things would move? Compare the last row with the second"
    film.set_title(f"{title}\n{BRIGHTER}", fontsize=10)
    draw_skill(curve, view)
    mark(curve, view, events)
    lower.legend(*curve.get_legend_handles_labels(), loc="outside lower right", ncols=3, fontsize=8)
    signs(lower, view, events)
    return picture


def draw_skill(axes: Axes, view: VariationView) -> None:
    """The share of the true change that was predicted."""
    screen, skill = view.screen, np.clip(view.screen.skill, -1, 1)
    axes.plot(view.numbers, skill, ".", ms=3, color=BLUE, alpha=0.4)
    axes.plot(view.numbers, running(skill), color=BLUE, label="mean of 9 steps")
    best = screen.overall("seen")
    axes.axhline(np.clip(best, -1, 1), color=ORANGE, lw=1, label=f"the best its pictures allow: {best:.2g}")
    axes.axhline(0, color=GREY, ls="--", lw=1, label="predicting no change")
    axes.set(ylabel="share of the change\nthat was predicted", ylim=(-1.2, 1.1), yticks=(-1, 0, 1))
    axes.set_xlabel(f"{STEP}. {view.about}")
    axes.set_title(f"How much of the change: 1 is all, 0 no more than a still picture; here {screen.overall():.2g}")
    steps_axis(axes)


@plotting.style
def moment(view: VariationView, window: WindowEffect, place: int, caption: str = "") -> Picture:
    """One step in full: the screen, the two codes, whose doing the predictions are, and where in the stretch it lies.

    Args:
        view: the stretch.
        window: LMamba's tokens at each of its steps.
        place: of the step in the stretch, from 0.
        caption: for the title, as of an event.
    """
    screen, reach, forecast = view.screen, limit(view.screen), view.variation
    picture = Picture(figsize=(10, 6.4), facecolor="white")  # places by hand: finding them takes most of the time
    top = [picture.add_axes((0.06 + 0.245 * column, 0.545, 0.19, 0.3)) for column in range(4)]
    images = {
        "frame": screen.frames[place],
        "next frame": screen.frames[place + 1],
        "true change": coloured(screen.true[place : place + 1], reach)[0],
        "change predicted": coloured(screen.expected[place : place + 1], reach)[0],
    }
    for axes, (name, image) in zip(top, images.items(), strict=True):
        show(axes, image, name)
    codes = [picture.add_axes((0.06 + 0.245 * column, 0.275, 0.19, 0.2)) for column in range(2)]
    even = 1 / forecast.came.shape[-1]
    for axes, name, code in zip(codes, ("came", "expected"), (forecast.came, forecast.expected), strict=True):
        top_value = max(float(np.abs(code[place] / even - 1).max()), 1e-6)
        show(axes, code[place] / even - 1, f"variation that {name}" if name == "came" else "variation GMamba predicted")
        axes.images[0].set(cmap="PuOr", clim=(-top_value, top_value))
        axes.set(xlabel="class", ylabel="variable")
    draw_shares(picture.add_axes((0.6, 0.275, 0.14, 0.2)), view, place)
    draw_window(picture.add_axes((0.83, 0.275, 0.15, 0.2)), window, place)
    line = picture.add_axes((0.06, 0.08, 0.92, 0.11))
    line.plot(view.numbers, forecast.surprise, color=BLUE)
    line.axvline(view.numbers[place], color=ORANGE, lw=2)
    line.set_xlim(view.numbers[0] - 0.5, view.numbers[-1] + 0.5)
    line.set(xlabel=STEP, ylabel="surprise, nats", ylim=(0, None))
    steps_axis(line)
    title = f"step {view.numbers[place]:,}{caption}: surprise {forecast.surprise[place]:.2g} nats"
    title += f", {forecast.agreement[place]:.0%} of the variables right"
    end = "" if view.counted[place] else "The next frame begins a new game, which nobody can predict. "
    picture.suptitle(f"{title}. Was it predicted, and by which branch?\n{end}Changes: {BRIGHTER}", fontsize=10)
    return picture


def draw_shares(axes: Axes, view: VariationView, place: int) -> None:
    """LMamba's share of each thing at one step."""
    local = view.shares.local[place]
    rows = np.arange(len(QUANTITIES))
    axes.barh(rows, np.nan_to_num(1 - local), color=BLUE, label="global")
    axes.barh(rows, np.nan_to_num(local), left=np.nan_to_num(1 - local), color=ORANGE, label="local")
    axes.set_yticks(rows, QUANTITIES)
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("global (blue), local share")
    axes.set_xticks((0, 0.5, 1))


def draw_window(axes: Axes, window: WindowEffect, place: int) -> None:
    """What hiding each of LMamba's tokens does to the next latent at one step."""
    effects = window.effects[place, :, QUANTITIES.index("next latent")]
    axes.bar(range(len(effects)), effects, color=ORANGE)
    axes.set_xticks(range(len(effects)), [*(str(-age) for age in range(len(effects) - 1, 0, -1)), "now"])
    axes.set(xlabel="token hidden from LMamba", ylabel="nats")
    axes.set_title("next latent moves by")


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """An image without ticks."""
    axes.imshow(image, aspect="equal" if image.ndim == 3 else "auto")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_title(title)


def busiest(screen: ScreenForecast, count: int) -> list[int]:
    """Places of up to `count` counted steps in which much changes, each the busiest of its part of the stretch."""
    moving, places = (screen.true**2).sum((1, 2)), np.flatnonzero(screen.counted)
    places = places if len(places) else np.arange(len(moving))
    return [int(part[moving[part].argmax()]) for part in np.array_split(places, min(count, len(places)))]


def limit(screen: ScreenForecast) -> float:
    """The change that gets the strongest colour."""
    shown = screen.true[screen.counted] if screen.counted.any() else screen.true
    return max(float(np.quantile(np.abs(shown), 0.999)), 0.02)


def coloured(change: np.ndarray, reach: float) -> np.ndarray:
    """Changes (n, size, size) as pictures (n, size, size, 3) uint8; white is none."""
    return (colormaps["PuOr"](np.clip(change / reach, -1, 1) / 2 + 0.5)[..., :3] * 255).round().astype(np.uint8)
