"""The variation lens as figures: curves over steps, calibration, events, the branches' shares, and memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from glamkit import plotting
from glamkit.lens import QUANTITIES
from glamkit.lens_events import KINDS, Aligned, Event
from glamkit.lens_measures import Calibration, Forecast, View, calibration
from glamkit.memory_reach import Reach, Window
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture

# Each kind of event has a colour and a sign of its own, so that either is enough.
SIGNS = dict(zip(KINDS, ((GREEN, "^"), (RED, "v"), (PURPLE, "X"), (BLACK, "s")), strict=True))
STEP = "step of the run"


@plotting.style
def timeline(view: View, events: Sequence[Event]) -> Picture:
    """The variation expected and come, the surprise and the agreement against steps, events marked."""
    picture, grid = plotting.figure(10, 7, 3, 1, sharex=True)
    sizes, surprise, agreement = grid[:, 0]
    found, steps = view.variation, view.numbers
    sizes.plot(steps, found.size_came, color=ORANGE, label="variation that came")
    sizes.plot(steps, found.size_expected, color=BLUE, label="variation that GMamba expected")
    sizes.set(ylabel="size: KL from\n“nothing changes”, nats")
    sizes.set_title("Was the change expected? Where blue rises with orange, GMamba saw it coming")
    surprise.plot(steps, found.blind, color=ORANGE, label="a guess that knows nothing")
    surprise.plot(steps, found.surprise, color=BLUE, label="GMamba")
    surprise.set(ylabel="surprise: KL, nats", ylim=(0, None))
    surprise.set_title("How far off was the forecast? The lower the better; below orange it knows something")
    agreement.plot(steps, found.agreement, ".", ms=3, color=SKY, label="each step")
    agreement.plot(steps, running(found.agreement), color=BLUE, label="mean of 9 steps")
    agreement.axhline(found.chance, color=GREY, ls="--", lw=1, label="always the most frequent class")
    agreement.set(ylabel="agreement", ylim=(-0.03, 1.03), xlabel=STEP)
    agreement.yaxis.set_major_formatter(PercentFormatter(1))
    rate, chance = found.agreement.mean(), found.chance
    agreement.set_title(
        f"In how many variables was the likeliest class right? {rate:.0%}; a constant guess gets {chance:.0%}"
    )
    for axes in grid[:, 0]:
        mark(axes, view, events)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
    signs(picture, view, events)
    steps_axis(agreement)
    return picture


@plotting.style
def reliability(view: View) -> Picture:
    """Calibration of the two forecasts: the variation's, and the next latent's."""
    picture, ((left, right),) = plotting.figure(10, 4.2, 1, 2)
    names = ("GMamba's variation", "next latent")
    for axes, name, forecast in zip((left, right), names, (view.variation, view.latent), strict=True):
        draw_reliability(axes, name, calibration(forecast), forecast)
    said = "May its probabilities be believed? On the dashed line what is expected with 20 % comes in 20 % of cases"
    picture.suptitle(f"{said}\nEach dot: a tenth of all classes of all variables; bars: 95 % interval", fontsize=10)
    return picture


def draw_reliability(axes: Axes, name: str, found: Calibration, forecast: Forecast) -> None:
    """Expected probability against the share that came."""
    low, high = (extreme(np.concatenate([found.expected, found.came])) for extreme in (np.min, np.max))
    axes.plot([low, high], [low, high], color=GREY, ls="--", lw=1)
    axes.errorbar(found.expected, found.came, found.reach, fmt="o", ms=4, color=BLUE, elinewidth=1)
    if high > 20 * low > 0:
        axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    axes.set(xlabel="probability it was expected with", ylabel="probability with which it came")
    classes = forecast.expected.shape[-1]
    axes.set_title(f"{name}: off by {found.error:.2g} on average (a blind guess says 1/{classes} = {1 / classes:.2g})")


@plotting.style
def coming(found: Sequence[Aligned]) -> Picture:
    """The size of the variation before and after events, averaged over them."""
    picture, grid = plotting.figure(10, 3.6, 1, max(len(found), 2), sharey=True)
    for axes, one in zip(grid[0], found, strict=False):
        draw_coming(axes, one)
    for axes in grid[0, len(found) :]:
        axes.set_axis_off()
    grid[0, 0].set_ylabel("size: KL from\n“nothing changes”, nats")
    if found:
        grid[0, 0].legend(loc="best")
    else:
        grid[0, 0].text(0, 0.5, "Nothing happened in the stored steps: no reward, no end.", color=GREY)
    said = "Did it see them coming? Then blue rises before the dotted line. Band: 95 % interval over events"
    picture.suptitle(said, fontsize=10)
    return picture


def draw_coming(axes: Axes, one: Aligned) -> None:
    """One kind of event."""
    for curve, colour, name in ((one.came, ORANGE, "came"), (one.expected, BLUE, "expected by GMamba")):
        mean, reach = curve.mean, curve.reach
        axes.plot(one.lags, mean, ".-", color=colour, label=name)
        axes.fill_between(one.lags, mean - reach, mean + reach, color=colour, alpha=0.2, lw=0)
    axes.axhline(one.usual, color=GREY, ls="--", lw=1, label="expected, usually")
    axes.axvline(0, color=BLACK, ls=":", lw=1)
    rise, count = one.rise, len(one.expected.values)
    band = f" ± {rise.reach[0]:.2g}" if np.isfinite(rise.reach[0]) else ""
    told = (
        f"expected rose by {rise.mean[0]:+.2g}{band} nats" if np.isfinite(rise.mean[0]) else "too short a time before"
    )
    axes.set_title(f"{one.kind} ({count} of {one.found})\n{told}")
    axes.set_xlabel("steps from the event")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@plotting.style
def shares(view: View, events: Sequence[Event]) -> Picture:
    """How much of h and of each prediction hangs on the global and on the local branch, step by step."""
    picture, grid = plotting.figure(10, 5, 2, 2, sharex=True, sharey=True)
    local, mean = view.shares.local, view.shares.mean
    for number, axes in enumerate(grid.flat):
        part = np.nan_to_num(local[:, number], nan=mean[number])
        axes.stackplot(view.numbers, 1 - part, part, colors=(BLUE, ORANGE), alpha=0.75, labels=("global", "local"))
        told = "no branch matters" if np.isnan(mean[number]) else f"{mean[number]:.0%} local over all steps"
        axes.set_title(f"{QUANTITIES[number]}: {told}")
        axes.set(ylim=(0, 1), xlim=(view.numbers[0], max(view.numbers[-1], view.numbers[0] + 1)))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(False)
        mark(axes, view, events)
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the effect")
    for axes in grid[1]:
        axes.set_xlabel(STEP)
        steps_axis(axes)
    said = "Whose doing is it? How far each thing moves when GMamba (blue) or LMamba (orange) is switched off"
    picture.suptitle(f"{said}, as shares of both", fontsize=10)
    signs(picture, view, events)
    return picture


@plotting.style
def memory(window: Window, reach: Reach, dreams: int) -> Picture:
    """Which tokens LMamba hangs on, and how far back GMamba's memory reaches.

    Args:
        window: of LMamba.
        reach: of the whole model.
        dreams: tokens that a dream re-reads at each step (`imagination.context_length`); 0 if it forgets none.
    """
    picture, ((left, right),) = plotting.figure(10, 4, 1, 2, width_ratios=(1, 1.35))
    size = window.effects.shape[1]
    for number, (name, colour) in enumerate(zip(QUANTITIES, (GREY, BLUE, ORANGE, GREEN), strict=True)):
        left.bar(np.arange(size) + 0.2 * (number - 1.5), np.nan_to_num(window.shares[:, number]), 0.2, color=colour)
        left.bar([0], [0], color=colour, label=name)
    left.set_xticks(range(size), [*(f"{size - 1 - place} ago" for place in range(size - 1)), "now"])
    left.set(xlabel="token hidden from LMamba", ylabel="share of the effect")
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.set_title(f"On which of its {size} tokens LMamba hangs:\ntall bars matter")
    left.legend(loc="best")
    draw_reach(right, reach, size, dreams)
    return picture


def draw_reach(axes: Axes, reach: Reach, size: int, dreams: int) -> None:
    """The effective memory curve."""
    back = np.arange(reach.globally.shape[1])
    for values, colour, name in (
        (reach.globally, BLUE, "GMamba's output g"),
        (reach.locally, ORANGE, "LMamba's output l"),
    ):
        shown = np.where(back < size, values, np.nan) if name.startswith("L") else values
        mean, error = shown.mean(0), 1.96 * shown.std(0, ddof=min(1, len(shown) - 1)) / len(shown) ** 0.5
        axes.plot(back, mean, ".-", ms=4, color=colour, label=name)
        axes.fill_between(back, np.maximum(mean - error, 0), mean + error, color=colour, alpha=0.2, lw=0)
    axes.axvline(size - 0.5, color=ORANGE, ls=":", lw=1, label=f"LMamba's window, {size}")
    if dreams:
        axes.axvline(dreams - 0.5, color=BLACK, ls="--", lw=1, label=f"what a dream re-reads, {dreams}")
    axes.set(xlabel="steps back at which a token is hidden", ylabel="change of the output,\nshare of its length")
    axes.set_ylim(0, None)
    told = "it does not matter" if np.isnan(reach.memory) else f"90 % within {reach.memory:.0f} steps"
    axes.set_title(
        f"How far back GMamba's memory reaches: {told}.\nBand: 95 % interval over {len(reach.globally)} moments"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def mark(axes: Axes, view: View, events: Sequence[Event]) -> None:
    """Events of the stretch as thin lines, with their signs on the lower edge."""
    for event in events:
        if view.numbers[0] <= event.step <= view.numbers[-1]:
            colour, sign = SIGNS[event.kind]
            axes.axvline(event.step, color=colour, lw=0.8, alpha=0.6)
            axes.plot(
                [event.step], [0.03], sign, ms=5, color=colour, transform=axes.get_xaxis_transform(), clip_on=False
            )


def signs(picture: Picture, view: View, events: Sequence[Event]) -> None:
    """The key to the signs of events, below the figure."""
    shown = [kind for kind in KINDS if any(e.kind == kind and e.step in view.numbers for e in events)]
    handles = [picture.axes[0].plot([], [], SIGNS[kind][1], color=SIGNS[kind][0], label=kind)[0] for kind in shown]
    if handles:
        picture.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8)


def steps_axis(axes: Axes) -> None:
    """Whole numbers of steps."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def running(values: np.ndarray, width: int = 9) -> np.ndarray:
    """Means over `width` neighbours, fewer at the ends."""
    weights = np.ones(min(width, len(values)))
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")
