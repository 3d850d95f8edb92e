"""The variation lens as curves and bars: whether the change was predicted, and which branch predictions depend on."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from glamkit import plotting
from glamkit.analysis.variation import effective_memory
from glamkit.analysis.variation.effective_memory import Reach
from glamkit.analysis.variation.events import KINDS, VariationView
from glamkit.analysis.variation.lens import QUANTITIES
from glamkit.analysis.variation.metrics import local_share, ratio
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SMALL, Picture

# Each kind of event has a colour and a sign of its own, so that either is enough.
SIGNS = dict(zip(KINDS, ((GREEN, "^"), (RED, "v"), (PURPLE, "X"), (BLACK, "s")), strict=True))
STEP = "agent step"
LEAST = 0.08  # a share that has room for its number on the bar


@plotting.style
def predicted(view: VariationView) -> Picture:
    """The variation that came and the one that was predicted on one scale, and the surprise, events marked."""
    picture, grid = plotting.figure(plotting.WIDE, 6.4, 2, 1, sharex=True)
    sizes, surprise = grid[:, 0]
    steps, forecast = view.numbers, view.variation
    came, expected, off, blind = (
        np.where(view.counted, values, np.nan)
        for values in (forecast.size_came, forecast.size_expected, forecast.surprise, forecast.blind)
    )
    sizes.plot(steps, came, color=ORANGE, label="variation that came")
    sizes.plot(steps, expected, color=BLUE, label="variation that GMamba predicted")
    sizes.set(ylabel="size of the variation\n(KL, in nats)", ylim=(0, None))
    share, saved = ratio(np.nansum(expected), np.nansum(came)), 1 - ratio(np.nansum(off), np.nansum(blind))
    size = f"On average blue is {share:.0%} of the size of orange"
    size = size if np.isfinite(share) else "Too little changes here to compare the two"
    plotting.panel_title(sizes, f"Was the change predicted? Then blue lies on orange\n{size}")
    surprise.plot(steps, blind, color=GREY, ls="--", label="a uniform guess")
    surprise.plot(steps, off, color=BLUE, label="GMamba")
    title = "How far off was the prediction?"
    if np.isfinite(saved):
        title += f"\nBlue is {abs(saved):.0%} {'below' if saved >= 0 else 'above'} the uniform guess over all steps"
    plotting.panel_title(surprise, title)
    surprise.set(ylabel="surprise (KL, in nats)", ylim=(0, None), xlabel=about(view))
    for axes in (sizes, surprise):
        mark(axes, view)
        plotting.legend_below(axes)
    signs(picture, view)
    steps_axis(surprise)
    return picture


@plotting.style
def branches(view: VariationView, reach: Reach, window: int) -> Picture:
    """Which branch each prediction depends on, and how far back memory reaches; LMamba sees `window` tokens."""
    picture, ((upper,), (lower,)) = plotting.figure(plotting.WIDE, 7.2, 2, 1)
    draw_shares(upper, view.effects.mean(0))
    upper.set_xlabel("share of the effect of switching a branch off; on the right the effect's size")
    counts = f"GMamba blue, LMamba orange; mean over {len(view.numbers):,} steps"
    plotting.panel_title(upper, f"Which branch does each prediction depend on?\n{counts}")
    back, within = np.arange(reach.globally.shape[1]), []
    for values, colour, name in ((reach.globally, BLUE, "GMamba"), (reach.locally[:, :window], ORANGE, "LMamba")):
        steps = effective_memory.reach(values.mean(0))
        matters = "no effect" if np.isnan(steps) else f"90 % within {plotting.count(round(steps), 'step')}"
        within.append(f"{name}: {matters}")
        lower.plot(back[: values.shape[1]], values.mean(0), ".-", ms=4, color=colour, label=f"{name}'s output")
    lower.axvline(window - 0.5, color=ORANGE, ls=":", lw=1, label=f"LMamba's window, {window}")
    lower.set(xlabel="how many steps back the replaced step (token) lies", ylim=(0, None))
    lower.set_ylabel("change of the output,\nshare of its length")
    mean = f"Mean over {plotting.count(len(reach.globally), 'step')} of play"
    plotting.panel_title(lower, f"How far back does each branch remember?\n{'; '.join(within)}\n{mean}")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    plotting.legend_below(lower, 2)
    return picture


def draw_shares(axes: Axes, effects: np.ndarray) -> None:
    """A bar for each quantity, of effects (2, 4): GMamba's share in blue, LMamba's in orange; beside it the size."""
    shares, sizes = local_share(effects), effects.sum(0)
    for row, (quantity, local, size) in enumerate(zip(QUANTITIES, shares, sizes, strict=True)):
        unit = " nats" if quantity == "next latent" else ""
        number = f"{size:.3g}" if size < 1000 else f"{size:,.0f}"
        axes.text(1.02, row, f"{number}{unit}", va="center", fontsize=SMALL, color=INK)
        if np.isnan(local):
            axes.text(0.5, row, "too small to divide", ha="center", va="center", fontsize=SMALL, color=GREY)
            continue
        for share, left, colour in ((1 - local, 0, BLUE), (local, 1 - local, ORANGE)):
            axes.barh(row, share, 0.85, left=left, color=colour, alpha=0.5)  # pale: text is read on it
            if share > LEAST:
                axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", fontsize=SMALL, color=BLACK)
    axes.set_yticks(range(len(QUANTITIES)), QUANTITIES)
    axes.grid(False)
    axes.set(xlim=(0, 1), ylim=(len(QUANTITIES) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def mark(axes: Axes, view: VariationView) -> None:
    """Events of the stretch as faint lines, with their signs on the lower edge, each kind at its own height."""
    for event in view.events:
        colour, sign = SIGNS[event.kind]
        axes.axvline(event.step, color=colour, lw=0.6, alpha=0.35, zorder=0.5)
        at = ([event.step], [0.03 + 0.07 * KINDS.index(event.kind)])
        axes.plot(*at, sign, ms=4, color=colour, transform=axes.get_xaxis_transform(), clip_on=False)


def signs(picture: Picture, view: VariationView) -> None:
    """The key to the signs of events, below the figure."""
    shown = [kind for kind in KINDS if any(event.kind == kind for event in view.events)]
    handles = [picture.axes[-1].plot([], [], SIGNS[kind][1], color=SIGNS[kind][0], label=kind)[0] for kind in shown]
    if handles:
        picture.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def about(view: VariationView) -> str:
    """The label below steps: what they are steps of."""
    return plotting.lines(f"{STEP}. {view.about}", plotting.WIDE - 1)


def steps_axis(axes: Axes) -> None:
    """Whole numbers of steps."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
