"""The variation lens, more of it: calibration, the steps around events, and the same views on a dream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from glamkit import plotting
from glamkit.analysis.open_loop import Curve
from glamkit.analysis.variation.events import BEFORE, Aligned, GameEvent
from glamkit.analysis.variation.frame_plots import BRIGHTER, coloured, limit
from glamkit.analysis.variation.metrics import Calibration, Forecast, VariationView, calibration
from glamkit.analysis.variation.plots import running
from glamkit.plotting import BLACK, BLUE, GREY, ORANGE, Picture

FEW = 5  # events: with fewer an interval means little


@plotting.style
def reliability(view: VariationView) -> Picture:
    """Calibration of the two forecasts: the variation's, and the next latent's."""
    picture, ((left, right),) = plotting.figure(10, 4.4, 1, 2)
    names = ("GMamba's variation", "next latent")
    for axes, name, forecast in zip((left, right), names, (view.variation, view.latent), strict=True):
        kept = forecast.at(view.counted)
        draw_reliability(axes, name, calibration(kept), kept)
    title = "Are its probabilities right? On the dashed line what is expected with 20 % comes in 20 % of cases"
    picture.suptitle(f"{title}\nEach dot: a tenth of all classes of all variables; bars: 95 % interval", fontsize=10)
    return picture


def draw_reliability(axes: Axes, name: str, fit: Calibration, forecast: Forecast) -> None:
    """Expected probability against the share that came."""
    low, high = (extreme(np.concatenate([fit.expected, fit.came])) for extreme in (np.min, np.max))
    axes.plot([low, high], [low, high], color=GREY, ls="--", lw=1)
    axes.errorbar(fit.expected, fit.came, fit.reach, fmt="o", ms=4, color=BLUE, elinewidth=1)
    if high > 20 * low > 0:
        axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.set(xlabel="probability it was expected with", ylabel="probability with which it came")
    classes = forecast.expected.shape[-1]
    axes.axvline(1 / classes, color=ORANGE, ls=":", lw=1, label=f"a uniform guess, 1/{classes}")
    span = " to ".join(f"{100 * fit.expected[place]:.3g}" for place in (0, -1))
    off = f"{name}: off by {100 * fit.error:.2g} points on average"
    axes.set_title(f"{off}\nIt says {span} %; the wider, the more it knows")
    axes.legend(loc="upper left")


@plotting.style
def coming(aligned: Sequence[Aligned]) -> Picture:
    """The size of the variation before and after events, averaged over them: expected above, come below."""
    picture, grid = plotting.figure(10, 5, 2, max(len(aligned), 2), sharex="col")
    for axes in grid[:, len(aligned) :].flat:
        axes.set_axis_off()
    for (expected, came), one in zip(grid.T, aligned, strict=False):
        draw_aligned(expected, one.lags, one.expected, BLUE)
        expected.axhline(one.usual, color=GREY, ls="--", lw=1, label="usually")
        draw_aligned(came, one.lags, one.came, ORANGE)
        rise, count = one.rise, len(one.expected.values)
        band = f" ± {rise.reach[0]:.2g}" if np.isfinite(rise.reach[0]) else ""
        moved = f"{'rose' if rise.mean[0] >= 0 else 'fell'} by {abs(rise.mean[0]):.2g}{band} nats"
        change = moved if np.isfinite(rise.mean[0]) else "too few steps before it"
        change = change if count >= FEW else f"{change} (too few to tell)"
        expected.set_title(f"{one.kind}: {count} of {one.all}\n{change}", fontsize=9)
        came.set_xlabel("steps from the event")
        came.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (expected, came):
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(4))
    if aligned:
        grid[0, 0].set_ylabel("size GMamba expected,\nnats")
        grid[1, 0].set_ylabel("size that came,\nnats")
        grid[0, 0].legend(loc="best")
    else:
        grid[0, 0].text(0, 0.5, "Nothing happened in these steps: no reward, no end.", color=GREY)
    title = "Were they predicted? Then blue rises over the dashed line before the dotted one"
    early = f"{-BEFORE} to {-BEFORE // 2 - 1}"
    note = f"“rose”, “fell”: steps -1 and 0 against {early}. Bands: 95 % interval over events. Scales differ"
    picture.suptitle(f"{title}\n{note}", fontsize=10)
    return picture


def draw_aligned(axes: Axes, lags: np.ndarray, curve: Curve, colour: str) -> None:
    """A mean over events and its interval."""
    mean, reach = curve.mean, np.nan_to_num(curve.reach)
    axes.plot(lags, mean, ".-", color=colour)
    axes.fill_between(lags, np.maximum(mean - reach, 0), mean + reach, color=colour, alpha=0.2, lw=0)
    axes.axvline(0, color=BLACK, ls=":", lw=1)


@plotting.style
def dream(real: VariationView, dreamt: VariationView, events: Sequence[GameEvent], shown: int = 8) -> Picture:
    """The same views on a dream: beside the real steps it began with, how much change it expects and whose doing."""
    picture = Picture(figsize=(10, 7.4), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(1.1, 1)))
    picks = np.unique(np.linspace(0, len(dreamt.numbers) - 1, shown).round().astype(int))
    film = upper.subplots()
    rows = {"real frame": real.screen.frames[picks], "dreamt frame": dreamt.screen.frames[picks]}
    reach = limit(dreamt.screen)
    rows["change the\ndream expects"] = coloured(dreamt.screen.expected[picks], reach)
    plotting.film(film, rows, [f"+{pick}" for pick in picks])
    film.set_title(f"A dream under the policy beside what happened, from step {real.numbers[0]:,} on\n{BRIGHTER}")
    sizes, share = lower.subplots(1, 2)
    ahead = np.arange(len(dreamt.numbers))
    for one, colour, name in ((real, GREY, "in real steps"), (dreamt, BLUE, "in the dream")):
        expected, local = one.variation.size_expected[: len(ahead)], one.shares.local[: len(ahead), 1]
        sizes.plot(ahead, expected, color=colour, label=name)
        share.plot(ahead, running(local), color=colour, label=name)
    sizes.set(xlabel="steps since the dream began", ylabel="size: KL from\n“nothing changes”, nats")
    sizes.set_title("Variation GMamba expects: a dream that\nfreezes or runs wild leaves the grey curve")
    share.set(xlabel="steps since the dream began", ylabel="share of the effect", ylim=(0, 1))
    share.yaxis.set_major_formatter(PercentFormatter(1))
    share.set_title("LMamba's share of the next latent\n(mean of 9 steps)")
    marks = sorted({e.step - int(real.numbers[0]) for e in events if real.numbers[0] <= e.step <= dreamt.numbers[-1]})
    for axes in (sizes, share):
        for number, place in enumerate(marks):
            axes.axvline(place, color=GREY, ls=":", lw=0.8, label=None if number else "a real event")
        axes.legend(loc="best")
    return picture
