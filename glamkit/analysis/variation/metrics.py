"""What is measured on a reading of n steps: forecasts beside what came, on the screen too, and the branches' shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.analysis.rollouts import looking
from glamkit.analysis.variation.lens import Lens, Reading

TINY = 1e-6  # an effect below this is none: nothing to divide into shares
SMALLEST = np.array([0.01, 0.01, 0.01, 0.001])  # of `QUANTITIES`: a mean effect below it has no shares


class Forecast(NamedTuple):
    """n forecasts of K categoricals and what came; divergences are in nats, summed over the categoricals."""

    expected: np.ndarray  # (n, K, C) probabilities
    came: np.ndarray  # (n, K, C)
    agreement: np.ndarray  # (n,) share of the variables whose likeliest class was the likeliest to be expected
    surprise: np.ndarray  # (n,): KL(came || expected)
    blind: np.ndarray  # (n,): the surprise of a uniform guess
    size_expected: np.ndarray  # (n,): how far the forecast is from nothing happening
    size_came: np.ndarray  # (n,): how far what came is from nothing happening


class ScreenForecast(NamedTuple):
    """Changes from frame to frame, (n, size, size) in shares of a pixel's range; brighter is positive."""

    frames: np.ndarray  # (n + 1, size, size, 3) uint8
    true: np.ndarray  # of the real frames
    seen: np.ndarray  # of their reconstructions: the best that the model could predict
    expected: np.ndarray  # the reconstruction of the expected next frame, less that of the present one
    counted: np.ndarray  # (n,) bool: False where the next frame begins a new game, which nobody can predict

    @property
    def skill(self) -> np.ndarray:
        """(n,): share of the true change (squared) that was predicted: 0 is as good as a still picture, 1 perfect.

        NaN for steps that are not counted.
        """
        wrong, total = ((self.true - self.expected) ** 2).sum((1, 2)), (self.true**2).sum((1, 2))
        return np.where(self.counted, 1 - ratio(wrong, total), np.nan)

    def overall(self, which: str = "expected") -> float:
        """The skill over all counted steps, of the `expected` or of the `seen` change; squares are added first."""
        true, other = self.true[self.counted], getattr(self, which)[self.counted]
        return float(1 - ratio(((true - other) ** 2).sum(), (true**2).sum()))


def variation(lens: Lens, reading: Reading) -> Forecast:
    """The variation that GMamba expected and the one that came."""
    model, embedding = lens.model, reading.embedding[None]
    with looking(model, lens.machine, 0):
        came = model.varied(embedding)[0].float().exp()
        expected = model.variation_prior(reading.variation).float().exp()
        resting = model.varied(torch.zeros_like(embedding[:, :2]))[0, 0].float().exp()
    return forecast(plain(expected), plain(came), plain(resting))


def forecast(expected: np.ndarray, came: np.ndarray, resting: np.ndarray) -> Forecast:
    """All of it; `resting` (K, C) stands for nothing at all happening."""
    return Forecast(
        expected,
        came,
        (expected.argmax(-1) == came.argmax(-1)).mean(-1),
        divergence(came, expected),
        divergence(came, np.full_like(came, 1 / came.shape[-1])),
        divergence(expected, resting),
        divergence(came, resting),
    )


def effects(lens: Lens, reading: Reading) -> np.ndarray:
    """(n, 2, 4): effects of switching off GMamba or LMamba on each of `QUANTITIES`, step by step."""
    off = [lens.effect(reading.hidden, rest) for rest in (reading.locally, reading.globally)]
    return plain(torch.stack(off, 1))


def local_share(effects: np.ndarray) -> np.ndarray:
    """LMamba's share (..., 4) of effects (..., 2, 4); NaN where both are less than `SMALLEST`."""
    both = effects.sum(-2)
    return np.where(both < SMALLEST, np.nan, ratio(effects[..., 1, :], both))


def screen(lens: Lens, reading: Reading, counted: np.ndarray) -> ScreenForecast:
    """Where on the screen a change was expected, and where it came; `counted` as in `ScreenForecast`."""
    expected, _, _ = lens.predict(reading.hidden)
    with looking(lens.model, lens.machine, 0):
        now = lens.model.decode(lens.likely(reading.posterior)).float().mean(1)
        then = lens.model.decode(lens.likely(expected)).float().mean(1)
    real, frames = reading.frames.float().mean(1) / 255, reading.frames.permute(0, 2, 3, 1)
    true, seen, foreseen = (plain(change) for change in (real[1:] - real[:-1], now[1:] - now[:-1], then - now[:-1]))
    return ScreenForecast(plain(frames), true, seen, foreseen, counted)


def divergence(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """KL(left || right) in nats between probabilities (..., K, C), summed over K."""
    floor = 1e-12  # without unimix a class may have no probability at all
    return (left * np.log((left + floor) / (right + floor))).sum((-2, -1))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The part over the whole, NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > TINY)


def plain(x: Tensor) -> np.ndarray:
    """A tensor as an array."""
    return x.detach().cpu().numpy()
