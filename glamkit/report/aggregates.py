"""Aggregates of many scores, by rliable's definitions (Agarwal et al. 2021, arXiv 2108.13264).

A sample is a sequence of arrays, one for each game, each (..., runs): games may have different numbers of runs, and
leading dimensions (such as bootstrap repeats) are kept. All games count alike, but in the IQM all runs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erf, sqrt

import numpy as np

Sample = Sequence[np.ndarray]
Interval = tuple[float, float]
Statistic = Callable[[Sample], np.ndarray]
CHUNK = 250  # bootstrap repeats at a time: of the largest published table this takes 5 MB
ENDS = (0.025, 0.975)  # quantiles of a 95 % interval


def game_means(sample: Sample) -> np.ndarray:
    """(..., games): the mean over a game's runs."""
    return np.stack([runs.mean(-1) for runs in sample], -1)


def mean(sample: Sample) -> np.ndarray:
    """Mean over games of their means."""
    return game_means(sample).mean(-1)


def median(sample: Sample) -> np.ndarray:
    """Median over games of their means."""
    return np.median(game_means(sample), -1)


def iqm(sample: Sample) -> np.ndarray:
    """Interquartile mean: of all runs of all games pooled, without the lowest and highest quarter."""
    pooled = np.sort(np.concatenate(list(sample), -1), -1)
    cut = int(0.25 * pooled.shape[-1])
    return pooled[..., cut : pooled.shape[-1] - cut].mean(-1)


def optimality_gap(sample: Sample) -> np.ndarray:
    """How far below human the scores are, where what is above human does not help: lower is better."""
    return 1 - mean([np.minimum(runs, 1.0) for runs in sample])


AGGREGATES: Mapping[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm, "optimality_gap": optimality_gap}


def superhuman(sample: Sample) -> int:
    """Games whose mean is that of a human or better."""
    return int((game_means(sample) >= 1).sum())


def bootstrap(sample: Sample, statistic: Statistic, repeats: int, seed: int = 0) -> np.ndarray:
    """The 95 % percentile interval of a statistic, (2, ...): low and high end.

    Stratified: the runs of each game are drawn anew, with replacement.
    """
    random, values = np.random.default_rng(seed), []
    for first in range(0, repeats, CHUNK):
        size = min(CHUNK, repeats - first)
        drawn = [runs[random.integers(len(runs), size=(size, len(runs)))] for runs in sample]
        values.append(statistic(drawn))
    return np.quantile(np.concatenate(values), ENDS, axis=0)


def intervals(sample: Sample, repeats: int, seed: int = 0) -> dict[str, Interval]:
    """95 % bootstrap intervals of all `AGGREGATES`, from the same draws."""
    ends = bootstrap(sample, lambda drawn: np.stack([f(drawn) for f in AGGREGATES.values()], -1), repeats, seed)
    return {name: (float(low), float(high)) for name, low, high in zip(AGGREGATES, *ends, strict=True)}


def coverage(counts: Sequence[int]) -> float:
    """How often, at best, a 95 % bootstrap interval over games of so many runs holds the truth, for normal scores.

    Drawing from n runs understates the variance of their mean, by (n - 1) / n; of a single run it sees none. With few
    games it is less often still, as that variance is then not known well.
    """
    kept = sum((n - 1) / n**2 for n in counts) / sum(1 / n for n in counts)
    return erf(1.959964 * sqrt(kept) / sqrt(2))
