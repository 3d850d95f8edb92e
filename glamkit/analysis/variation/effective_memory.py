"""How far back each branch remembers: a token is replaced by the mean token, and outputs are compared with before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.analysis.rollouts import looking
from glamkit.analysis.variation.lens import Lens
from glamkit.analysis.variation.metrics import plain, ratio

SHARE = 0.9  # of the whole effect: what lies within the reach of a memory
MOMENTS = 16  # at which memories are tried


class Reach(NamedTuple):
    """Effects of hiding the token k steps back, for k = 0 .. L - 1, at N moments."""

    globally: np.ndarray  # (N, L): change of g over the length of g
    locally: np.ndarray  # (N, L): change of l over the length of l


def memory(lens: Lens, steps: list[int], seed: int = 0) -> Reach:
    """How far back the hidden state of each of these steps reaches, in sequences as long as in training."""
    with looking(lens.model, lens.machine, seed):
        batch = lens.replay.window(torch.tensor(steps) - lens.span + 1, lens.span)
        tokens = lens.model.tokens(lens.model.observe(batch.frames).latent, batch.actions)
    return of_tokens(lens, tokens)


def of_tokens(lens: Lens, tokens: Tensor) -> Reach:
    """The same for N sequences of tokens (N, L, D), at their last step."""
    mean, rows = tokens.mean((0, 1)), []
    with looking(lens.model, lens.machine, 0):
        before = outputs(lens, tokens)
        for place in reversed(range(tokens.shape[1])):
            hidden = tokens.clone()
            hidden[:, place] = mean
            pairs = zip(outputs(lens, hidden), before, strict=True)
            moved = [(now - was).norm(dim=-1) / was.norm(dim=-1).clamp(min=1e-9) for now, was in pairs]
            rows.append(lens.added(*moved))  # a branch that adds nothing to h remembers nothing for it
    return Reach(*(plain(torch.stack(part, 1)) for part in zip(*rows, strict=True)))


def outputs(lens: Lens, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs g and l (N, D) of GMamba and LMamba after tokens (N, L, D)."""
    model, size = lens.model.sequence_model, lens.model.config.window
    return model.gmamba(tokens)[:, -1].float(), model.lmamba(tokens[:, -size:])[:, -1].float()


def moments(lens: Lens, first: int, length: int, count: int = MOMENTS) -> list[int]:
    """Up to `count` steps of a stretch, evenly, that have a full training sequence behind them."""
    earliest = max(first, lens.replay.oldest + lens.span - 1)
    places = np.linspace(earliest, max(first + length - 1, earliest), count).round().astype(int)
    return sorted({int(place) for place in places})


def reach(effect: np.ndarray) -> float:
    """Steps back within which 90 % of an effect (L,) lies; NaN where there is none."""
    shares = ratio(effect.cumsum(), np.full(len(effect), effect.sum()))
    return float("nan") if np.isnan(shares).any() else float(np.argmax(shares >= SHARE))
