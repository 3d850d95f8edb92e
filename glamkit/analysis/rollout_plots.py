"""Pictures of imagined rollouts beside real play, and of the variation expected beside the one that came."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from glamkit.analysis.rollouts import RolloutComparison, VariationForecast
from glamkit.plotting import BLUE, GREY, ORANGE, Picture, figure, film, style


@style
def dream_beside_truth(dream: RolloutComparison, per_row: int = 10) -> Picture:
    """Real frames, what the autoencoder keeps of them, and the dream of the same steps, rewards below."""
    starts = range(0, len(dream.real), per_row)
    picture, grid = figure(12, 4.2 * len(starts), len(starts))
    for (axes,), start in zip(grid, starts, strict=True):
        part = slice(start, start + per_row)
        rows = {"real": dream.real[part], "reconstructed": dream.reconstructed[part], "imagined": dream.imagined[part]}
        said = zip(dream.rewards[part], dream.predicted[part], strict=True)
        film(axes, rows, [f"+{start + i}\n{real:+.0f}\n{guess:+.2f}" for i, (real, guess) in enumerate(said, 1)])
        names = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "ha": "right",
            "va": "top",
            "linespacing": 1.3,
        }
        axes.annotate("steps ahead\nreal reward\nimagined reward", (0, 0), (-4, -4), **names)
    grid[0, 0].set_title("Imagined beside real: the dream knows the frames before these and the actions, nothing else")
    return picture


@style
def variation(found: VariationForecast, shown: int = 6) -> Picture:
    """The variation GMamba expected beside the one that came, for the steps foreseen best and worst, and all KLs."""
    gain, even = blind(found) - found.kl, 1 / found.came.shape[-1]
    picks = sorted(pick(gain, shown), key=lambda step: -gain[step])
    picture = Picture(figsize=(10, 7.4), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(3, 1.4)))
    grid = upper.subplots(3, len(picks), squeeze=False)
    change = np.abs(found.frames[1:].astype(float) - found.frames[:-1])
    for column, step in zip(grid.T, picks, strict=True):
        column[0].imshow(change[step] / max(change.max(), 1.0))
        column[0].set_title(
            f"step {found.first + step:,}\n{found.kl[step]:.2g} of {blind(found)[step]:.2g} nats", fontsize=9
        )
        for axes in column:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
    for row, shares in zip(grid[1:], (found.came, found.expected), strict=True):
        reach = max(float(np.quantile(np.abs(shares[picks] / even - 1), 0.99)), 1e-6)
        for axes, step in zip(row, picks, strict=True):
            image = axes.imshow(shares[step] / even - 1, cmap="PuOr", vmin=-reach, vmax=reach)
        upper.colorbar(image, ax=row, extend="both", aspect=12, format="{x:+.0%}", ticks=MaxNLocator(4))
    names = ("what changed\non the screen", "its code:\nvariation\nthat came", "variation\nGMamba\nexpected")
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    title = "Did GMamba foresee the change? Compare the patterns of the two codes (variables down, classes across)"
    note = "Foreseen best on the left, worst on the right: GMamba's surprise of that of a guess that knows nothing"
    upper.suptitle(f"{title}\n{note}. Colours: how far from 1/{found.came.shape[-1]}", fontsize=10)
    draw_surprise(lower.subplots(), found, picks)
    return picture


def draw_surprise(axes: Axes, found: VariationForecast, picks: list[int]) -> None:
    """KL at each step, beside that of a guess that knows nothing."""
    steps = found.first + np.arange(len(found.kl))
    axes.plot(steps, blind(found), color=ORANGE, label="a guess that knows nothing")
    axes.plot(steps, found.kl, ".-", color=BLUE, label="GMamba")
    if found.free:
        axes.axhline(found.free, color=GREY, ls="--", lw=1, label="free: a mean below is not trained")
    axes.plot(steps[picks], found.kl[picks], "o", color=BLUE, ms=7, label="shown above")
    axes.set(xlabel="step of this scene" if found.first == 1 else "step of the run", ylabel="KL, nats", ylim=(0, None))
    axes.set_title("How far off the forecast was at each step; 0 would be perfect")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)  # above: curves may be anywhere


def blind(found: VariationForecast) -> np.ndarray:
    """(n,) nats: the surprise of a guess that knows nothing."""
    return (found.came * np.log(found.came * found.came.shape[-1])).sum((1, 2))


def pick(values: np.ndarray, number: int) -> list[int]:
    """Places of the largest and smallest values, half each, in order."""
    order = np.argsort(values)
    if len(order) <= number:
        return list(range(len(order)))
    return sorted([*order[: number // 2].tolist(), *order[-(number - number // 2) :].tolist()])
