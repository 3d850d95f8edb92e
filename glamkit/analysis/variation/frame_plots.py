"""The variation lens as pictures of the screen: where change was predicted, and one step in full, with a slider."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from glamkit import notebook, plotting
from glamkit.analysis.variation.events import VariationView
from glamkit.analysis.variation.metrics import ScreenForecast
from glamkit.analysis.variation.plots import STEP, about, draw_shares, mark, signs, steps_axis
from glamkit.notebook import Folded
from glamkit.plotting import BLUE, GREY, ORANGE, Picture

BRIGHTER = "purple: brighter, orange: darker"
SHOWN = 6  # steps in the film of a stretch
ALONE = "The slider needs a running kernel: run this cell again. The step it began at is folded below."


@plotting.style
def where(view: VariationView) -> Picture:
    """Where on the screen a change was predicted beside where it came, for some steps, and the skill at every step."""
    screen, picks = view.screen, busiest(view.screen, SHOWN)
    picture, ((film,), (curve,)) = plotting.figure(plotting.WIDE, 7.8, 2, 1, height_ratios=(2.2, 1))
    reach, rows = limit(screen), {"frame before": screen.frames[picks]}
    rows["true change"] = coloured(screen.true[picks], reach)
    rows["change as the\nmodel sees it"] = coloured(screen.seen[picks], reach)
    rows["change that was\npredicted"] = coloured(screen.expected[picks], reach)
    plotting.film(film, rows, [f"{view.numbers[pick]:,}" for pick in picks])
    film.set_xlabel(STEP)
    film.set_title(f"Did the model know where things would move?\nCompare the last row with the second; {BRIGHTER}")
    draw_skill(curve, view)
    mark(curve, view)
    plotting.legend_below(curve)
    signs(picture, view)
    return picture


def draw_skill(axes: Axes, view: VariationView) -> None:
    """The share of the true change that was predicted."""
    screen, skill = view.screen, np.clip(view.screen.skill, -1, 1)
    axes.plot(view.numbers, skill, ".-", ms=4, lw=0.5, color=BLUE, alpha=0.75, label="single steps")
    share, best = screen.overall(), screen.overall("seen")
    if np.isfinite(best):
        axes.axhline(np.clip(best, -1, 1), color=ORANGE, lw=1, label=f"most that its pictures allow: {best:.2g}")
    axes.axhline(0, color=GREY, ls="--", lw=1, label="predicting no change")
    axes.set(ylabel="share of the change\nthat was predicted", ylim=(-1.2, 1.1), yticks=(-1, 0, 1))
    axes.set_xlabel(about(view))
    known = f"{share:.2g} over all steps" if np.isfinite(share) else "Too little changes here to say"
    axes.set_title(f"How much of the change was predicted? {known}\n1 is all, 0 is no better than a still picture")
    steps_axis(axes)


@plotting.style
def moment(view: VariationView, step: int) -> Picture:
    """One step in full: the screen, the two codes, and whose doing the predictions are."""
    place, screen, reach, forecast = step - int(view.numbers[0]), view.screen, limit(view.screen), view.variation
    picture = Picture(figsize=(plotting.WIDE, 6.25), facecolor="white")  # places by hand: finding them takes long
    images = {
        "frame": screen.frames[place],
        "next frame": screen.frames[place + 1],
        "true change": coloured(screen.true[place], reach),
        "change predicted": coloured(screen.expected[place], reach),
    }
    for column, (name, image) in enumerate(images.items()):
        plotting.show(picture.add_axes((0.07 + 0.235 * column, 0.62, 0.21, 0.235)), image, name)
    even, names = 1 / forecast.came.shape[-1], ("variation that came", "variation GMamba predicted")
    departures = np.stack([forecast.came[place], forecast.expected[place]]) / even - 1
    most = max(abs(departures).max(), 1e-6)  # of both: what is hardly expected shall look so beside what came
    for column, (name, departure) in enumerate(zip(names, departures, strict=True)):
        axes = picture.add_axes((0.07 + 0.48 * column, 0.37, 0.43, 0.165))
        plotting.show(axes, departure, name)
        axes.images[0].set(cmap="PuOr", clim=(-most, most))
        axes.set(xlabel="class", ylabel="variable")
    bars = picture.add_axes((0.17, 0.104, 0.66, 0.155))
    draw_shares(bars, view.effects[place])
    bars.set(xticks=(0, 0.5, 1), title="GMamba blue, LMamba orange")
    kinds = " and ".join(event.kind for event in view.events if event.step == step)
    caption = f" ({kinds})" if kinds else ""
    title = f"Step {step:,}{caption}: was the change predicted, and by which branch?"
    right = f"Surprise {forecast.surprise[place]:,.1f} nats, {forecast.agreement[place]:.0%} of the variables right"
    end = "" if view.counted[place] else "The next frame begins a new life or game, which nobody can predict.\n"
    picture.suptitle(f"{title}\n{end}{right}. Changes: {BRIGHTER}", x=0.01, ha="left")
    return picture


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
    """Changes (..., size, size) as pictures (..., size, size, 3) uint8; white is none."""
    return (colormaps["PuOr"](np.clip(change / reach, -1, 1) / 2 + 0.5)[..., :3] * 255).round().astype(np.uint8)


def step_by_step(view: VariationView) -> Folded | Picture:
    """Shows the slider where somebody watches, and returns the picture that a saved notebook keeps.

    Below a slider the picture is folded, so that it stands there only once.
    """
    picture = moment(view, striking(view))
    if not notebook.is_interactive():
        return picture
    from IPython.display import display

    display(notebook.alone(slider(view)._repr_mimebundle_(), ALONE), raw=True)
    return Folded("The step it began at (no slider above? run all cells again)", picture)


def slider(view: VariationView) -> Any:
    """The slider and the picture of the chosen step: an ipywidgets.VBox."""
    import ipywidgets  # of the extra `lab`

    # A page sends the newest place only, once the one before it is drawn: dragging never falls behind.
    low, high = view.numbers[[0, -1]].tolist()
    steps = ipywidgets.IntSlider(striking(view), low, high, description="step", layout={"width": "95%"})
    shown = ipywidgets.HTML().add_class("glamkit-moment")

    def draw(_: object = None) -> None:
        shown.value = moment(view, steps.value).html()

    steps.observe(draw, "value")
    draw()
    return ipywidgets.VBox([steps.add_class("glamkit-steps"), shown])


def striking(view: VariationView) -> int:
    """The step worth a first look: the last event, or where most was predicted to change; no new game's."""
    counted = view.numbers[view.counted]
    marks = [event.step for event in view.events if event.step in counted]
    sizes = np.where(view.counted, view.variation.size_expected, -1)
    return marks[-1] if marks else int(view.numbers[sizes.argmax()])
