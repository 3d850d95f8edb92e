"""Frames of a game in rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from glamkit.plotting.picture import INK, SMALL, WIDE, Picture, count, figure, panel_title, style

GAP = 0.06  # between two pictures, of their side
PER_ROW = 5  # pictures side by side, so that captions of a dozen letters fit below each


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """An image without ticks: a picture (H, W, 3), or numbers (H, W) that fill the panel."""
    axes.imshow(image, aspect="equal" if image.ndim == 3 else "auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def film(axes: Axes, rows: Mapping[str, np.ndarray], columns: Sequence[str], beside: str = "") -> None:
    """Named rows of pictures (n, size, size, 3) uint8 below each other, a caption under each column.

    All are one image: drawing it is many times faster than an Axes for each. Left of captions of several lines stands
    what each line is, `beside`.
    """
    parts = np.stack(list(rows.values()))  # (rows, columns, size, size, 3)
    scale = max(1, round(128 / parts.shape[2]))
    edge = parts.shape[2] * scale
    space = max(2, round(GAP * edge))
    around = (0, 0), (0, 0), (0, space), (0, space), (0, 0)
    grey = np.pad(parts.repeat(scale, 2).repeat(scale, 3), around, constant_values=150)  # so that all have an edge
    axes.imshow(grey.swapaxes(1, 2).reshape(len(parts) * (edge + space), -1, 3)[:-space, :-space])
    axes.set_anchor("W")  # a title begins where the frames do, and is not cut over one column
    axes.set_xticks(np.arange(len(columns)) * (edge + space) + edge / 2, columns, linespacing=1.3)
    axes.set_yticks(np.arange(len(parts)) * (edge + space) + edge / 2, list(rows))
    axes.tick_params(length=0, labelcolor=INK)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    where = ((0, 0), (-4, -4), "axes fraction", "offset points")
    axes.annotate(beside, *where, ha="right", va="top", fontsize=SMALL, linespacing=1.3)


@style
def films(rows: Mapping[str, np.ndarray], columns: Sequence[str], beside: str, title: str) -> Picture:
    """A film of many columns as a figure: after every five it goes on below."""
    starts = range(0, len(columns), PER_ROW)
    picture, grid = figure(WIDE, 0.4 + 1.05 * (len(rows) + 1) * len(starts), len(starts))
    for (axes,), start in zip(grid, starts, strict=True):
        part = slice(start, start + PER_ROW)
        film(axes, {name: row[part] for name, row in rows.items()}, columns[part], beside)
    grid[0, 0].set_title(title)
    return picture


@style
def strip(columns: Sequence[Mapping[str, Any]]) -> Picture:
    """The same moment of play as the model saw it at several steps of its training, oldest first.

    A column has ``step``, ``start``, ``ahead`` and the pictures ``real``, ``reconstructed`` and ``imagined``. Where the
    replay forgot the moment of the first columns, the title says so.
    """
    names, shown = ("real", "reconstructed", "imagined"), max(len(columns), 5)
    picture, ((axes,),) = figure(WIDE, 0.9 + 3 * min(1.2, (WIDE - 1.1) / shown))
    film(axes, {n: np.stack([c[n] for c in columns]) for n in names}, [f"{c['step']:,}" for c in columns])
    axes.set_xlabel("agent steps of training")
    ahead = count(int(columns[-1]["ahead"]), "step")
    same = len({column["start"] for column in columns}) == 1
    what = "One moment of play" if same else "A moment of play, another once it was forgotten,"
    panel_title(axes, f"{what} as the model learns\nimagined: {ahead} after the last real frame")
    return picture
