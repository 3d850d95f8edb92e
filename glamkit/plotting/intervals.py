"""Intervals of means, as figures and tables give them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# The 97.5 % point of Student's t for 1, 2, .. degrees of freedom; beyond, an expansion in 1 / degrees (Fisher 1926).
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def interval(scores: Sequence[float], less: Sequence[float] | None = None) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of n scores: mean +- t s / sqrt(n), with s their standard deviation.

    t is the 97.5 % point for n - 1 degrees of freedom. It assumes that scores are normally distributed. With other
    scores, `less`, it is Welch's interval of the mean minus theirs, for unequal variances.

    Returns:
        Low and high end; None for fewer than two scores of either.
    """
    samples = [scores] if less is None else [scores, less]
    if min(map(len, samples)) < 2:
        return None
    middle = float(np.mean(scores)) - (0.0 if less is None else float(np.mean(less)))
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in samples]
    if not any(parts):
        return middle, middle
    degrees = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, samples, strict=True))
    half = student(max(1, math.floor(degrees + 1e-9))) * math.sqrt(sum(parts))
    return middle - half, middle + half


def student(degrees: int) -> float:
    """The 97.5 % point of Student's t distribution with so many degrees of freedom."""
    if degrees <= len(STUDENT):
        return STUDENT[degrees - 1]
    z, n = 1.959964, float(degrees)
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / n**power for power, term in enumerate(terms, 1))
