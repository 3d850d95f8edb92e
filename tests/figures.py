"""What is wrong with a figure for a reader: texts cut, small or over each other, legends over curves; and contrast."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from numpy.typing import ArrayLike

from glamkit.plotting import SMALL, WIDE, Picture

SLACK = 1.0  # pixels


def texts(axes: Axes) -> list[Text]:
    """Those of an axes that are drawn."""
    result = [axes.title, axes._left_title, axes._right_title, *axes.texts]
    if axes.axison:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
            result += [text for place, text in places if min(low, high) <= place <= max(low, high)]
            result += [axis.label, axis.get_offset_text()]
    legend = axes.get_legend()
    return result + (legend.get_texts() if legend else [])


def faults(picture: Picture) -> list[str]:
    """Each in one line; none is what is wanted."""
    picture.png()  # draws, so that everything has its place
    parts = [picture, *picture.subfigs]
    every = [text for axes in picture.axes for text in texts(axes)]
    every += [part._suptitle for part in parts if part._suptitle]
    every += [text for part in parts for legend in part.legends for text in legend.get_texts()]
    every = [text for text in every if text.get_visible() and text.get_text().strip()]
    boxes = {text: text.get_window_extent() for text in every}
    width, height = picture.canvas.get_width_height()
    result = [] if picture.get_figwidth() <= WIDE else [f"{picture.get_figwidth()} inches wide"]
    for text, box in boxes.items():
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK:
            result.append(f"cut: {text.get_text()!r}")
        if text.get_fontsize() < SMALL:
            result.append(f"small: {text.get_text()!r}")
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        if min(across, down) > SLACK:
            result.append(f"over each other: {one.get_text()!r} and {other.get_text()!r}")
    for axes in picture.axes:
        result += [f"legend over a curve in {axes.get_title(loc='left')!r}"] * covered(axes)
        if axes.axison and not axes.has_data():
            result.append(f"empty axes: {axes.get_title(loc='left')!r}")
    return result


def covered(axes: Axes) -> bool:
    """Whether the legend of an axes lies over one of its curves."""
    if not axes.get_legend():
        return False
    box = axes.get_legend().get_window_extent()
    for line in axes.lines:
        points = line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
        for start, end in pairwise(points):
            between = start + np.linspace(0, 1, 50)[:, None] * (end - start)
            inside = (between > [box.x0, box.y0]) & (between < [box.x1, box.y1])
            if inside.all(1).any():
                return True
    return False


def luminance(rgb: ArrayLike) -> float:
    shares = np.asarray(rgb, float) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: ArrayLike, other: ArrayLike) -> float:
    """Of two colours (0 to 255), by WCAG's rule."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
