"""Static figures: one restrained style, colours that colour-blind readers can tell apart, titles that say what to see.

Every function returns a `Picture`, a matplotlib Figure that any notebook shows by itself. Nothing here touches pyplot,
so no figure outlives its reader and no backend is chosen.
"""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from glamkit.runs import log
from glamkit.runs.folder import Run

# Okabe and Ito's palette: distinct for all common kinds of colour vision, and in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
GREY = "#777777"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "axes.formatter.useoffset": False,
}
style = rc_context(STYLE)
STEPS = "agent steps"


Entries = Sequence[Mapping[str, Any]]


class Picture(Figure):
    """A Figure that shows itself as a PNG in any notebook, whichever backend there is.

    Attributes:
        alt: what it shows in words, for people who cannot see it; may be empty.
    """

    alt: str = ""

    def png(self, dpi: int = 100) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes | tuple[bytes, dict[str, str]]:
        return (self.png(), {"alt": self.alt}) if self.alt else self.png()


def figure(width: float = 10, height: float = 3, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Picture, Any]:
    """An empty figure in inches and its axes, an array (rows, columns); call it in a function decorated `@style`."""
    picture = Picture(figsize=(width, height), layout="constrained", facecolor="white")
    return picture, picture.subplots(rows, columns, squeeze=False, **grid)


def heading(picture: Picture, text: str) -> None:
    """The title of a whole figure, in as many lines as its width asks for."""
    picture.suptitle(textwrap.fill(text, int(14 * picture.get_figwidth())), fontsize=10)


# Curves ---------------------------------------------------------------------------------------------------------------

PANELS = (
    # key in the log, title, unit, logarithmic
    ("world_model/reconstruction", "Reconstruction: falls as pictures sharpen", "squared error per frame", True),
    ("world_model/reward", "Reward prediction", "cross entropy, nats", False),
    ("world_model/termination", "Termination prediction", "cross entropy, nats", False),
    ("world_model/dynamics_kl", "Surprise at the next frame", "KL, nats", False),
    ("world_model/variation_kl", "Surprise at the variation (GMamba)", "KL, nats", False),
    ("imagination/reward", "Reward in dreams", "reward per step", False),
    ("actor_critic/value", "Critic's error", "cross entropy, nats", False),
    ("actor_critic/return", "Return in dreams", "discounted reward", False),
    ("actor_critic/entropy", "Entropy of the policy", "nats", False),
)


def series(entries: Entries, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name in the log; values that were not finite are left out."""
    pairs = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


@style
def learning_curve(run: Run) -> Picture:
    """Episode returns over training, their running mean, and the final evaluation if there is one.

    All are of whole games: the return of a game that was cut is not to be compared with them, and stands in the legend.
    """
    entries, config = list(log.read(run.log_file)), run.config()
    report = json.loads(run.evaluation_file.read_text(encoding="utf-8")) if run.evaluation_file.exists() else None
    picture, ((axes,),) = figure(10, 3.4)
    draw_returns(axes, entries)
    evaluated = evaluations(run, entries)
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "D-", ms=5, color=ORANGE, label="evaluation during training: mean")
    if report:
        scores = [episode["return"] for episode in report["episodes"] if not episode["cut"]]
        cut = [f"{episode['return']:g}" for episode in report["episodes"] if episode["cut"]]
        if scores:
            mean, label = float(np.mean(scores)), f"of {count(len(scores), 'whole game')}"
            axes.plot([report["step"]] * len(scores), scores, "o", color=ORANGE, alpha=0.6, clip_on=False)
            marked = f"evaluation: mean {mean:.1f} {label}"
            axes.plot(report["step"], mean, "D", ms=9, color=RED, label=marked, clip_on=False)
        if cut:
            shown = ", ".join(cut[:4]) + (", ..." if len(cut) > 4 else "")
            steps = f"cut after {config.evaluation.episode_steps:,} steps"
            axes.plot([], [], " ", label=f"evaluation: {count(len(cut), 'game')} {steps} at {shown}: not drawn")
    axes.set_xlim(0, 1.02 * config.trainer.env_steps)
    axes.set_title(f"{config.env.game}: is the agent getting better? A blue dot is one whole game played in training")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    return picture


def evaluations(run: Run, entries: Entries) -> list[tuple[int, float]]:
    """Step and mean return of the whole games of each evaluation during training; none where all were cut."""
    points, limit = [], run.config().evaluation.episode_steps
    for entry in entries:
        if entry["kind"] != "evaluation":
            continue
        file = run.folder / "evaluations" / f"{entry['step']:09d}.json"
        if file.exists():
            episodes = json.loads(file.read_text(encoding="utf-8"))["episodes"]
            scores = [episode["return"] for episode in episodes if not episode["cut"]]
        else:  # of a shared run, or one whose file was deleted
            scores = [entry["evaluation/return"]] if entry["evaluation/length"] < limit else []
        if scores:
            points.append((entry["step"], float(np.mean(scores))))
    return points


def draw_returns(axes: Axes, entries: Entries) -> None:
    """Episode returns and their mean over ten episodes."""
    steps, returns = series(entries, "episode/return")
    axes.plot(steps, returns, "o", ms=4, color=SKY, label="episode in training" if returns else None)
    if len(returns) > 1:
        means = [float(np.mean(returns[max(0, i - 9) : i + 1])) for i in range(len(returns))]
        axes.plot(steps, means, color=BLUE, label="mean of the last 10")
    if not returns:
        axes.text(0.03, 0.9, "no episode of training has ended yet", transform=axes.transAxes, color=GREY)
    label(axes, "return (sum of rewards)")


@style
def losses(run: Run) -> Picture:
    """The parts of the world-model and actor-critic losses against steps, each in its own panel."""
    entries, config = list(log.read(run.log_file)), run.config()
    lines = {
        "world_model/dynamics_kl": (config.world_model.free_nats, "free: not trained below"),
        "world_model/variation_kl": (config.world_model.variation_free_nats, "free: not trained below"),
    }
    picture, grid = figure(10, 6.6, 3, 3, sharex=True)
    for axes, (key, title, unit, logarithmic) in zip(grid.flat, PANELS, strict=True):
        draw_series(axes, entries, key, title, unit, logarithmic)
        if key in lines:
            axes.axhline(lines[key][0], color=GREY, ls="--", lw=1, label=lines[key][1])
            axes.legend(loc="upper right")
    for axes in grid[:-1].flat:
        axes.set_xlabel("")
    picture.suptitle("World model (first five), dreams and actor-critic: means over each line of the log", fontsize=10)
    return picture


def draw_series(axes: Axes, entries: Entries, key: str, title: str, unit: str, logarithmic: bool) -> None:
    """One name of the log against steps."""
    steps, values = series(entries, key)
    axes.plot(steps, values, ".-", ms=4, color=BLUE)
    axes.set_title(title)
    label(axes, unit)
    if logarithmic and values and max(values) > 5 * min(values) > 0:
        decades(axes, min(values), max(values))


def decades(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis whose marks are powers of ten, from the one below `low` to the one above `high`."""
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high) + 1e-9))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


@style
def live(entries: Entries, env_steps: int) -> Picture:
    """The curves to watch while training: episode return, reconstruction, reward in dreams; those that have begun."""
    panels = [panel for panel in (PANELS[0], PANELS[5]) if series(entries, panel[0])[0]]
    played = bool(series(entries, "episode/return")[0])
    count = len(panels) + played
    if not count:
        picture, ((axes,),) = figure(10, 0.5)
        axes.set_axis_off()
        axes.text(0, 0.5, "The curves begin with the first episode that ends, or the first update.", color=GREY)
        return picture
    picture, (row,) = figure(10 * count / 3, 2.3, 1, count)
    if played:
        draw_returns(row[0], entries)
        row[0].set_title("Episode return")
    for axes, panel in zip(row[played:], panels, strict=True):
        draw_series(axes, entries, *panel)
    for axes in row:
        axes.set_xlim(0, env_steps)
    return picture


def label(axes: Axes, unit: str, ticks: int = 5) -> None:
    """Axis labels; a few round steps."""
    axes.set_xlabel(STEPS)
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def count(number: int, what: str) -> str:
    """``1 episode``, ``2 episodes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


# Pictures -------------------------------------------------------------------------------------------------------------


def film(axes: Axes, rows: Mapping[str, np.ndarray], columns: Sequence[str], gap: float = 0.06) -> None:
    """Named rows of pictures (n, size, size, 3) uint8 below each other, a caption under each column.

    All are one image: drawing it is many times faster than an Axes for each.
    """
    parts = list(rows.values())
    size = parts[0].shape[1]
    scale = max(1, round(128 / size))
    edge, space = size * scale, max(2, round(gap * size * scale))
    height, width = len(parts) * (edge + space) - space, len(columns) * (edge + space) - space
    canvas = np.full((height, width, 3), 200, np.uint8)  # grey, so that white frames have an edge
    for y, row in enumerate(parts):
        for x, picture in enumerate(row):
            enlarged = picture.repeat(scale, 0).repeat(scale, 1)
            canvas[y * (edge + space) :, x * (edge + space) :][:edge, :edge] = enlarged
    axes.imshow(canvas)
    axes.set_xticks([x * (edge + space) + edge / 2 for x in range(len(columns))], columns, linespacing=1.3)
    axes.set_yticks([y * (edge + space) + edge / 2 for y in range(len(parts))], list(rows))
    axes.tick_params(length=0, labelcolor="#333333")
    axes.grid(False)
    axes.spines[:].set_visible(False)


@style
def strip(columns: Sequence[Mapping[str, Any]]) -> Picture:
    """The same moment of play as the model saw it at several steps of its training.

    Args:
        columns: oldest first, with ``step``, ``ahead`` and pictures ``real``, ``reconstructed``, ``imagined``.
    """
    names = ("real", "reconstructed", "imagined")
    picture, ((axes,),) = figure(1.2 * max(len(columns), 5), 4.4)
    film(axes, {n: np.stack([c[n] for c in columns]) for n in names}, [f"step {c['step']:,}" for c in columns])
    ahead = count(int(columns[-1]["ahead"]), "step")
    axes.set_title(f"One moment of play, seen by the model as it learns\nimagined: {ahead} after the last real frame")
    return picture
