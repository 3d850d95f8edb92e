"""One table of a few games: what they score with their standard errors, beside random play and the best known.

    glamkit report notebooks/results/laptop --scores

It stands in notebooks/results/README.md, where a test compares it with the files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glamkit.envs import atari100k
from glamkit.errors import GlamkitError
from glamkit.report.markup import MarkupTable
from glamkit.report.results import Result

BESIDE = {"SimPLe": "SimPLe", "STORM": "STORM", "DreamerV3": "DreamerV3 (Nature, 2024 code)"}  # title: published name
HEADER = ("game", "mean return of each seed", "random", "human", "human-normalised", *BESIDE, "strongest", "hours")


def score_table(results: Sequence[Result]) -> MarkupTable:
    """Runs of Atari games: a row for each game, in alphabetical order.

    Raises:
        GlamkitError: the runs are of unequal settings, or none is of an Atari 100k game.
    """
    games = sorted({result.game for result in results if result.atari})
    if not games:
        raise GlamkitError("none of these runs is of an Atari 100k game; the table compares those alone.")
    rows, means = [], []
    for game in games:
        found = sorted((result for result in results if result.game == game), key=lambda result: result.seed)
        normal = float(atari100k.normalise({game: np.array([result.score for result in found])})[game].mean())
        others = {name: published(name, game) for name in BESIDE.values()}
        best = strongest(game)
        means.append([normal, *others.values(), published(best, game)])
        unit = atari100k.games()[game]
        scores = ", ".join(f"{result.score:.1f} ± {error(result.returns):.1f}" for result in found)
        shown = [f"{value:.2f}" for value in means[-1]]
        hours = ", ".join(f"{result.training().seconds / 3600:.1f}" for result in found)
        row = [game, scores, f"{unit.random:,g}", f"{unit.human:,g}", *shown[:-1], f"{shown[-1]} {best}", hours]
        rows.append(row)
    total = [f"{value:.2f}" for value in np.mean(means, axis=0)]
    rows.append(["mean", "", "0", "1", *total, ""])
    caption = (
        "Mean return ± its standard error over the episodes of the evaluation. The five columns before the hours are "
        "human-normalised: 0 is random play, 1 a human. Strongest: the best of the published methods in that game."
    )
    return MarkupTable(HEADER, rows, caption)


def error(returns: Sequence[float]) -> float:
    """The standard error of a mean; 0 where there is one value alone."""
    return float(np.std(returns, ddof=1)) / len(returns) ** 0.5 if len(returns) > 1 else 0.0


def published(name: str, game: str) -> float:
    """The human-normalised score of a published method in a game."""
    return float(atari100k.normalise({game: atari100k.published()[name].scores[game]})[game].mean())


def strongest(game: str) -> str:
    """The published method with the highest score in a game."""
    return max(atari100k.published(), key=lambda name: published(name, game))
