"""Where the mean comes from: games in which agents stand above humans, and those in which they do not, apart.

Lim et al. 2025 (JEDI, arXiv 2505.19698) ask for both to be shown, as a few games lift the mean of all 26. Which games
these are is settled here by `above`, from the shipped scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from glamkit import plotting
from glamkit.envs import atari100k
from glamkit.plotting import BLACK, BLUE, GREY, ORANGE, SMALL, WIDE, Picture, figure
from glamkit.report import aggregates
from glamkit.report.markup import MarkupTable
from glamkit.report.plots import NARROW, name_rows, row_places
from glamkit.report.report import Report, ScoredMethod
from glamkit.report.tables import NAMES, NONE, number, ordered

SHOWN = {"mean": ("o", BLUE), "median": ("s", ORANGE), "iqm": ("D", BLACK)}


@cache
def above() -> tuple[str, ...]:
    """Games in which agents stand above humans: in the median of the authors' own shipped sets, re-runs left out."""
    normal = [atari100k.normalise(method.scores) for method in atari100k.published().values() if not method.rerun_by]
    return tuple(game for game in atari100k.games() if np.median([scores[game].mean() for scores in normal]) >= 1)


def halves(entry: ScoredMethod) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Aggregates over the games above and over the others; None where a method has no such game or no single runs."""
    chosen = above()
    parts = [[v for game, v in entry.normal.items() if (game in chosen) is side] for side in (True, False)]
    first, second = (
        {
            key: float(aggregates.AGGREGATES[key](part)) if part and entry.values[key] is not None else None
            for key in SHOWN
        }
        for part in parts
    )
    return first, second


def share(normal: Mapping[str, np.ndarray]) -> tuple[float, str, float] | None:
    """Which share of a method's mean the games above make, the game that makes most of it, and that one's share.

    None for a mean that is not above random play: there is nothing to share.
    """
    means = {game: float(values.mean()) for game, values in normal.items()}
    total, chosen = sum(means.values()), above()
    if total <= 0:
        return None
    top = max(means, key=lambda game: means[game])
    return sum(value for game, value in means.items() if game in chosen) / total, top, means[top] / total


def split_table(report: Report) -> MarkupTable:
    """Every method's aggregates on both kinds of games, and where its mean comes from."""
    games = [game for game in above() if game in report.games]
    count = len(games), len(report.games) - len(games)
    kinds = f"{count[0]} games", f"other {count[1]}"
    header = ["method", *(f"{NAMES[key]}, {kind}" for kind in kinds for key in SHOWN)]
    header += [f"share of its mean from the {count[0]}", "most of it from", "share of its mean"]
    rows = []
    for entry in ordered(report):
        values = [number(half[key]) for half in halves(entry) for key in SHOWN]
        parts = share(entry.normal)
        rows.append([entry.name, *values, *((f"{parts[0]:.0%}", parts[1], f"{parts[2]:.0%}") if parts else [NONE] * 3)])
    caption = (
        f"The {count[0]} of {len(report.games)} games in which the median over the authors' own sets of all methods is "
        f"a human's score or more: {', '.join(games)}. A method with one value per game has no pooled IQM."
    )
    return MarkupTable(header, rows, caption)


@plotting.style
def split_figure(report: Report, narrow: bool = False) -> Picture:
    """Mean, median and IQM of every method, on the games above humans and on the others.

    Args:
        report: with the methods.
        narrow: for the width of a phone.
    """
    entries, chosen = ordered(report), [game for game in above() if game in report.games]
    counts = len(chosen), len(report.games) - len(chosen)
    wide, high = (NARROW, 2 * (1.0 + 0.22 * len(entries))) if narrow else (WIDE, 1.4 + 0.24 * len(entries))
    picture, grid = figure(wide, high, *((2, 1) if narrow else (1, 2)))
    for side, axes in enumerate(grid.flat):
        for place, entry in zip(row_places(entries), entries, strict=True):
            for key, (marker, colour) in SHOWN.items():
                value = halves(entry)[side][key]
                if value is not None:
                    label = NAMES[key] if place == 0 else None
                    axes.plot(value, place, marker, ms=5, color=colour, mfc="none", label=label)
        axes.axvline(1, color=GREY, ls="--", lw=1)
        first = f"In {counts[0]} of {len(report.games)} games the median\nmethod reaches a human"
        axes.set_title(f"In the other {counts[1]}\nit does not" if side else first, fontsize=SMALL)
        axes.set(xlabel="1 = human")
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        name_rows(axes, entries, narrow)
        if side and not narrow:
            axes.tick_params(labelleft=False)
    handles = dict(zip(*reversed(grid.flat[0].get_legend_handles_labels()), strict=True))
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    plotting.heading(picture, "Where does the mean come from? The two scales differ")
    parts = [parts[0] for entry in entries if (parts := share(entry.normal))]
    ends = f"{min(parts):.0%} to {max(parts):.0%}" if parts else "none"
    picture.alt = (
        f"Mean, median and IQM of {len(entries)} methods on {counts[0]} games in which agents stand above humans and "
        f"on {counts[1]} others. From the {counts[0]} come {ends} of the means."
    )
    return picture
