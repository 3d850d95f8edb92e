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
    parts = list(rows.values())
    size = parts[0].shape[1]
    scale = max(1, round(128 / size))
    edge, space = size * scale, max(2, round(GAP * size * scale))
    height, width = len(parts) * (edge + space) - space, len(columns) * (edge + space) - space
    canvas = np.full((height, width, 3), 150, np.uint8)  # grey, so that white frames and black ones have an edge
    for y, row in enumerate(parts):
        for x, picture in enumerate(row):
            enlarged = picture.repeat(scale, 0).repeat(scale, 1)
            canvas[y * (edge + space) :, x * (edge + space) :][:edge, :edge] = enlarged
    axes.imshow(canvas)
    axes.set_anchor("W")  # a title begins where the frames do, and is not cut over one column
    axes.set_xticks([x * (edge + space) + edge / 2 for x in range(len(columns))], columns, linespacing=1.3)
    axes.set_yticks([y * (edge + space) + edge / 2 for y in range(len(parts))], list(rows))
    axes.tick_params(length=0, labelcolor=INK)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate(beside, (0, 0), (-4, -4), fontsize=SMALL, linespacing=1.3, **where)


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
    """The same moment of play as the model saw it at several steps of its training.

    Args:
        columns: oldest first, with ``step``, ``ahead`` and pictures ``real``, ``reconstructed``, ``imagined``.
    """
    names, shown = ("real", "reconstructed", "imagined"), max(len(columns), 5)
    picture, ((axes,),) = figure(WIDE, 0.9 + 3 * min(1.2, (WIDE - 1.1) / shown))
    film(axes, {n: np.stack([c[n] for c in columns]) for n in names}, [f"{c['step']:,}" for c in columns])
    axes.set_xlabel("agent steps of training")
    ahead = count(int(columns[-1]["ahead"]), "step")
    panel_title(axes, f"One moment of play as the model learns\nimagined: {ahead} after the last real frame")
    return picture
