"""The table of ``glamkit report RUNS --scores``: a few games beside random play, humans and published methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glamkit.envs import atari100k
from glamkit.plotting import interval
from glamkit.report.markup import NONE, MarkupTable
from glamkit.report.results import Result

BESIDE = {"SimPLe": "SimPLe", "STORM": "STORM", "DreamerV3": "DreamerV3 (Nature, 2024 code)"}  # title: published name
HEADER = (
    "runs", "game", "mean return of each seed", "over seeds", "random", "human", "human-normalised", *BESIDE,
    "strongest", "hours",
)  # fmt: skip
CAPTION = (
    "Mean return ± its standard error over the episodes of the evaluation; over seeds their mean and Student's 95 % "
    "interval. The five columns before the hours are human-normalised: 0 is random play, 1 a human. Strongest: the "
    "best of the published methods in that game."
)


def score_table(groups: Mapping[str, Sequence[Result]]) -> MarkupTable | None:
    """A row for each game of each experiment, and the means of an experiment's Atari games; None without runs.

    Args:
        groups: runs by experiment, such as `Report.groups` or `Report.small`.
    """
    rows = []
    for name, group in groups.items():
        normal = []
        for game in dict.fromkeys(result.game for result in group):
            runs = [result for result in group if result.game == game]
            cells, values = game_cells(game, runs)
            rows.append([name, game, *cells])
            normal += [values] if values else []
        if len(normal) > 1:
            means = [f"{value:.2f}" for value in np.mean(normal, axis=0)]
            rows.append([name, "mean", "", "", "0", "1", *means, ""])
    return MarkupTable(HEADER, rows, CAPTION) if rows else None


def game_cells(game: str, runs: Sequence[Result]) -> tuple[list[str], list[float]]:
    """The cells of an experiment's runs in one game, from the seeds on, and the human-normalised scores among them."""
    scores, digits = [result.score for result in runs], 1 if runs[0].atari else 2
    marks = [f" ({result.cut} cut)" if result.cut else "" for result in runs]
    seeds = ", ".join(
        f"{with_error(result.score, result.returns, digits)}{mark}" for result, mark in zip(runs, marks, strict=True)
    )
    ends = interval(scores)
    spread = f"{np.mean(scores):.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else NONE
    # The log of a shared run is not whole.
    hours = ", ".join(NONE if r.run.shared else f"{r.training.seconds / 3600:.1f}" for r in runs)
    if not runs[0].atari or any(marks):  # the others' scores are of whole games
        return [seeds, spread, *[NONE] * (len(HEADER) - 5), hours], []
    best = strongest(game)
    own = float(atari100k.normalise({game: np.array(scores)})[game].mean())
    values = [own, *(published(name, game) for name in (*BESIDE.values(), best))]
    unit, normal = atari100k.games()[game], [f"{value:.2f}" for value in values]
    scale = [f"{unit.random:,g}", f"{unit.human:,g}"]
    return [seeds, spread, *scale, *normal[:-1], f"{normal[-1]} {best}", hours], values


def with_error(mean: float, returns: Sequence[float], digits: int) -> str:
    """A mean and its standard error, which is not known of one value alone."""
    error = f" ± {np.std(returns, ddof=1) / len(returns) ** 0.5:.{digits}f}" if len(returns) > 1 else ""
    return f"{mean:.{digits}f}{error}"


def published(name: str, game: str) -> float:
    """The human-normalised score of a published method in a game."""
    return float(atari100k.normalise({game: atari100k.published()[name].scores[game]})[game].mean())


def strongest(game: str) -> str:
    """The published method with the highest score in a game."""
    return max(atari100k.published(), key=lambda name: published(name, game))
