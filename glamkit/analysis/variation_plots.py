"""The variation lens as figures: curves over steps, calibration, events, the branches' shares, and memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter

from glamkit import plotting
from glamkit.analysis.effective_memory import Reach, WindowEffect
from glamkit.analysis.events import BEFORE, KINDS, Aligned, GameEvent
from glamkit.analysis.open_loop import Curve
from glamkit.analysis.variation import QUANTITIES, UNITS
from glamkit.analysis.variation_metrics import Calibration, Forecast, VariationView, calibration
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture

# Each kind of event has a colour and a sign of its own, so that either is enough.
SIGNS = dict(zip(KINDS, ((GREEN, "^"), (RED, "v"), (PURPLE, "X"), (BLACK, "s")), strict=True))
STEP = "step of the run"
FEW = 5  # events: with fewer an interval means little
FAINT = 0.02  # of the largest effect: less is not shared out


@plotting.style
def timeline(view: VariationView, events: Sequence[GameEvent]) -> Picture:
    """The variation expected and come, the surprise and the agreement against steps, events marked."""
    picture, grid = plotting.figure(10, 7.6, 3, 1, sharex=True)
    sizes, surprise, agreement = grid[:, 0]
    found, steps = view.variation, view.numbers
    draw_sizes(sizes, view)
    surprise.plot(steps, found.blind, color=ORANGE, label="a guess that knows nothing")
    surprise.plot(steps, found.surprise, color=BLUE, label="GMamba")
    saved = 1 - found.surprise.sum() / max(found.blind.sum(), 1e-9)
    surprise.set_title(
        "How far off was the forecast? Below orange it knows something; "
        f"over all steps its surprise is {abs(saved):.0%} {'smaller' if saved > 0 else 'larger'}"
    )
    surprise.set(ylabel="surprise: KL, nats", ylim=(0, 1.25 * max(found.blind.max(), found.surprise.max())))
    agreement.plot(steps, found.agreement, ".", ms=3, color=SKY, label="each step")
    agreement.plot(steps, running(found.agreement), color=BLUE, label="mean of 9 steps")
    agreement.axhline(found.chance, color=GREY, ls="--", lw=1, label="always the most frequent class")
    agreement.set(ylabel="agreement", ylim=(0, 1.15), yticks=np.linspace(0, 1, 5), xlabel=STEP)
    agreement.yaxis.set_major_formatter(PercentFormatter(1))
    rate, chance = found.agreement.mean(), found.chance
    agreement.set_title(
        f"In how many variables was the likeliest class right? In {rate:.0%}, "
        f"{'more' if rate > chance else 'no more'} than by always naming the most frequent one ({chance:.0%})"
    )
    for axes in grid[:, 0]:
        mark(axes, view, events)
    for axes in (surprise, agreement):
        axes.legend(loc="upper right", ncols=3)
    signs(picture, view, events)
    steps_axis(agreement)
    return picture


def draw_sizes(axes: Axes, view: VariationView) -> None:
    """The two sizes, each on a scale of its own: forecasts are cautious, and what matters is when they rise."""
    found, steps = view.variation, view.numbers
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    came = axes.plot(steps, found.size_came, color=ORANGE, label="variation that came (left scale)")
    said = other.plot(steps, found.size_expected, color=BLUE, label="variation that GMamba expected (right scale)")
    for one, values, name, colour in (
        (axes, found.size_came, "size that came, nats", ORANGE),
        (other, found.size_expected, "size expected, nats", BLUE),
    ):
        one.set_ylim(0, 1.25 * max(float(values.max()), 1e-6))
        one.set_ylabel(name)
        one.tick_params(axis="y", colors=colour)
    other.grid(False)
    together = correlation(found.size_came, found.size_expected)
    told = "" if np.isnan(together) else f" (correlation {together:.2f})"
    axes.set_title(f"Was the change expected? Where blue rises with orange, GMamba saw it coming{told}")
    axes.legend(handles=[*came, *said], loc="upper right", ncols=2)


@plotting.style
def reliability(view: VariationView) -> Picture:
    """Calibration of the two forecasts: the variation's, and the next latent's."""
    picture, ((left, right),) = plotting.figure(10, 4.4, 1, 2)
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
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.set(xlabel="probability it was expected with", ylabel="probability with which it came")
    classes = forecast.expected.shape[-1]
    axes.axvline(1 / classes, color=ORANGE, ls=":", lw=1, label=f"a guess that knows nothing, 1/{classes}")
    span = " to ".join(f"{100 * found.expected[place]:.3g}" for place in (0, -1))
    off = f"{name}: off by {100 * found.error:.2g} points on average"
    axes.set_title(f"{off}\nIt says {span} %; the wider, the more it knows")
    axes.legend(loc="upper left")


@plotting.style
def coming(found: Sequence[Aligned]) -> Picture:
    """The size of the variation before and after events, averaged over them: expected above, come below."""
    picture, grid = plotting.figure(10, 5, 2, max(len(found), 2), sharex="col")
    for axes in grid[:, len(found) :].flat:
        axes.set_axis_off()
    for (expected, came), one in zip(grid.T, found, strict=False):
        draw_aligned(expected, one.lags, one.expected, BLUE)
        expected.axhline(one.usual, color=GREY, ls="--", lw=1, label="usually")
        draw_aligned(came, one.lags, one.came, ORANGE)
        rise, count = one.rise, len(one.expected.values)
        band = f" ± {rise.reach[0]:.2g}" if np.isfinite(rise.reach[0]) else ""
        moved = f"{'rose' if rise.mean[0] >= 0 else 'fell'} by {abs(rise.mean[0]):.2g}{band} nats"
        told = moved if np.isfinite(rise.mean[0]) else "too few steps before it"
        told = told if count >= FEW else f"{told} (too few to tell)"
        expected.set_title(f"{one.kind}: {count} of {one.found}\n{told}", fontsize=9)
        came.set_xlabel("steps from the event")
        came.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (expected, came):
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(4))
    if found:
        grid[0, 0].set_ylabel("size GMamba expected,\nnats")
        grid[1, 0].set_ylabel("size that came,\nnats")
        grid[0, 0].legend(loc="best")
    else:
        grid[0, 0].text(0, 0.5, "Nothing happened in the stored steps: no reward, no end.", color=GREY)
    said = "Did it see them coming? Then blue rises over the dashed line before the dotted one"
    early = f"{-BEFORE} to {-BEFORE // 2 - 1}"
    note = f"“rose”, “fell”: steps -1 and 0 against {early}. Bands: 95 % interval over events. Scales differ"
    picture.suptitle(f"{said}\n{note}", fontsize=10)
    return picture


def draw_aligned(axes: Axes, lags: np.ndarray, curve: Curve, colour: str) -> None:
    """A mean over events and its interval."""
    mean, reach = curve.mean, np.nan_to_num(curve.reach)
    axes.plot(lags, mean, ".-", color=colour)
    axes.fill_between(lags, np.maximum(mean - reach, 0), mean + reach, color=colour, alpha=0.2, lw=0)
    axes.axvline(0, color=BLACK, ls=":", lw=1)


@plotting.style
def shares(view: VariationView, events: Sequence[GameEvent]) -> Picture:
    """How much of h and of each prediction hangs on the global and on the local branch, step by step."""
    picture, grid = plotting.figure(10, 7.6, 4, 2, sharex=True)
    for number, (part, whole) in enumerate(grid):
        effects = view.shares.effects[:, :, number]
        local, total = view.shares.local[:, number], effects.sum(1)
        faint = np.isnan(local) | (total < FAINT * total.max())
        layers(part, view.numbers, np.where(faint, np.nan, 1 - local), np.where(faint, np.nan, 1.0))
        mean = view.shares.mean[number]
        told = "no branch matters" if np.isnan(mean) else f"{mean:.0%} local over all steps"
        part.set_title(f"{QUANTITIES[number]}: {told}")
        part.set(ylim=(0, 1), ylabel="share")
        part.yaxis.set_major_formatter(PercentFormatter(1))
        layers(whole, view.numbers, effects[:, 0], total)
        whole.set(ylim=(0, 1.05 * max(float(total.max()), 1e-6)), ylabel=UNITS[number])
        whole.set_title("how far it moves, both added")
        for axes in (part, whole):
            axes.grid(False)
            axes.set_xlim(view.numbers[0] - 0.5, view.numbers[-1] + 0.5)
            mark(axes, view, events)
    for axes in grid[-1]:
        axes.set_xlabel(STEP)
        steps_axis(axes)
    said = "Whose doing is it? What moves when GMamba (blue) or LMamba (orange) is switched off, left as shares of both"
    picture.suptitle(
        f"{said}\nWhite: under {FAINT:.0%} of the largest effect, too little to be shared out", fontsize=10
    )
    signs(picture, view, events)
    return picture


def layers(axes: Axes, steps: np.ndarray, below: np.ndarray, above: np.ndarray) -> None:
    """Two values of each step as areas one step wide: blue up to `below`, orange from there up to `above`."""
    edges = np.stack([steps - 0.5, steps + 0.5], 1).ravel()
    below, above = below.repeat(2), above.repeat(2)
    axes.fill_between(edges, 0, below, color=BLUE, alpha=0.8, lw=0)
    axes.fill_between(edges, below, above, color=ORANGE, alpha=0.8, lw=0)


@plotting.style
def memory(window: WindowEffect, reach: Reach, dreams: int) -> Picture:
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


def mark(axes: Axes, view: VariationView, events: Sequence[GameEvent]) -> None:
    """Events of the stretch as faint lines, with their signs on the lower edge, above each other."""
    height: dict[int, int] = {}
    for event in events:
        if view.numbers[0] <= event.step <= view.numbers[-1]:
            colour, sign = SIGNS[event.kind]
            place = height[event.step] = height.get(event.step, -1) + 1
            axes.axvline(event.step, color=colour, lw=0.6, alpha=0.35, zorder=0.5)
            at = ([event.step], [0.03 + 0.07 * place])
            axes.plot(*at, sign, ms=4, color=colour, transform=axes.get_xaxis_transform(), clip_on=False)


def signs(picture: Picture, view: VariationView, events: Sequence[GameEvent]) -> None:
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


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, NaN where one of them does not vary."""
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 0 else float("nan")
