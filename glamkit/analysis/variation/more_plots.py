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
    picture, ((left, right),) = plotting.figure(plotting.WIDE, 4.8, 1, 2)
    names = ("GMamba's variation", "next latent")
    for axes, name, forecast in zip((left, right), names, (view.variation, view.latent), strict=True):
        kept = forecast.at(view.counted)
        draw_reliability(axes, name, calibration(kept), kept)
    title = "Are the probabilities right? On the dashed line what is expected with 20 % comes in 20 % of cases."
    plotting.heading(picture, f"{title}\nEach dot: a tenth of all classes of all variables; bars: 95 % interval")
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
    axes.set(xlabel="expected probability", ylabel="share that came")
    classes = forecast.expected.shape[-1]
    axes.axvline(1 / classes, color=ORANGE, ls=":", lw=1, label=f"a uniform guess, 1/{classes}")
    span = " to ".join(f"{100 * fit.expected[place]:.3g}" for place in (0, -1))
    off = f"{name}: off by {100 * fit.error:.2g} points on average"
    plotting.panel_title(axes, f"{off}\nPredictions span {span} %")
    plotting.legend_below(axes)


@plotting.style
def coming(aligned: Sequence[Aligned]) -> Picture:
    """The size of the variation before and after events, averaged over them: expected above, come below."""
    if not aligned:
        return plotting.in_words("Nothing happened in these steps: no reward, no end.")
    picture, grid = plotting.figure(plotting.WIDE, 5.4, 2, max(len(aligned), 2), sharex="col")
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
        plotting.panel_title(expected, f"{one.kind}: {count} of {one.all}\n{change}")
        came.set_xlabel("steps from the event")
        came.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in (expected, came):
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(4))
    grid[0, 0].set_ylabel("size GMamba\nexpected, nats")
    grid[1, 0].set_ylabel("size that came,\nnats")
    plotting.legend_below(grid[0, 0])
    title = "Were they predicted? Then blue rises above the dashed line (the usual size) before the dotted one."
    early = f"{-BEFORE} to {-BEFORE // 2 - 1}"
    note = f"“rose”, “fell”: steps -1 and 0 against {early}. Bands: 95 % interval over events. Scales differ"
    plotting.heading(picture, f"{title}\n{note}")
    return picture


def draw_aligned(axes: Axes, lags: np.ndarray, curve: Curve, colour: str) -> None:
    """A mean over events and its interval."""
    mean, reach = curve.mean, np.nan_to_num(curve.reach)
    axes.plot(lags, mean, ".-", color=colour)
    axes.fill_between(lags, np.maximum(mean - reach, 0), mean + reach, color=colour, alpha=0.2, lw=0)
    axes.axvline(0, color=BLACK, ls=":", lw=1)


@plotting.style
def dream(real: VariationView, dreamt: VariationView, events: Sequence[GameEvent], shown: int = 6) -> Picture:
    """The same views on an imagined rollout: beside real steps, how much change it expects, and by which branch."""
    picture = Picture(figsize=(plotting.WIDE, 7), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(1.15, 1)))
    picks = np.unique(np.linspace(0, len(dreamt.numbers) - 1, shown).round().astype(int))
    film = upper.subplots()
    rows = {"real frame": real.screen.frames[picks], "imagined frame": dreamt.screen.frames[picks]}
    reach = limit(dreamt.screen)
    rows["change that\nit expects"] = coloured(dreamt.screen.expected[picks], reach)
    plotting.film(film, rows, [f"+{pick}" for pick in picks])
    begin = f"from step {real.numbers[0]:,} on"
    film.set_title(f"A rollout imagined under the policy, beside what happened {begin}\nChanges: {BRIGHTER}")
    sizes, share = lower.subplots(1, 2)
    ahead = np.arange(len(dreamt.numbers))
    for one, colour, name in ((real, GREY, "in real steps"), (dreamt, BLUE, "in the imagined rollout")):
        expected, local = one.variation.size_expected[: len(ahead)], one.shares.local[: len(ahead), 1]
        sizes.plot(ahead, expected, color=colour, label=name)
        share.plot(ahead, running(local), color=colour, label=name)
    sizes.set(xlabel="imagined steps", ylabel="size: KL from\n“nothing changes”, nats")
    sizes.set_title("Variation that GMamba expects:\ndoes blue stay near grey?")
    share.set(xlabel="imagined steps", ylabel="share of the effect", ylim=(0, 1))
    share.yaxis.set_major_formatter(PercentFormatter(1))
    share.set_title("LMamba's share of the next latent\n(mean of 9 steps)")
    marks = sorted({e.step - int(real.numbers[0]) for e in events if real.numbers[0] <= e.step <= dreamt.numbers[-1]})
    for axes in (sizes, share):
        for number, place in enumerate(marks):
            axes.axvline(place, color=GREY, ls=":", lw=0.8, label=None if number else "a real event")
        plotting.legend_below(axes, 1)
    return picture
