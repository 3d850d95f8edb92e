"""Mamba's causal convolution at chosen places of a window (Gu & Dao 2023, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def convolved(inputs: list[Tensor], taps: Tensor, bias: Tensor, wanted: Iterable[int]) -> Tensor:
    """The causal convolution and SiLU at some places (P, ..., inner): at place p it sees min(p + 1, conv) taps.

    Args:
        inputs: one (..., inner) tensor for each place of a window.
        taps: (conv, inner), oldest first.
        bias: (inner,).
        wanted: the places.
    """
    places = []
    for place in wanted:
        u = taps[-1] * inputs[place]
        for back in range(1, min(place + 1, len(taps))):
            u = u + taps[-1 - back] * inputs[place - back]
        places.append(F.silu((u + bias).float()))
    return torch.stack(places)
