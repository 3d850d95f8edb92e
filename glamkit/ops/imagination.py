"""Parts of an imagined step on GPUs, each by one kernel and without gradients.

    tokens     a token's first layer: the columns of its weights that codes and action pick, added up and normalised
    states     a latent drawn from the prior's logits, and the hidden state behind it
    actions    the policy from its last hidden layer on: normalised, multiplied and drawn from
    convolved, summed    GMamba's and LMamba's windows, see `accelerate.imagination.Paired`

Letters as in `world_model` and, for windows, `accelerate.imagination`; W units of the policy's last hidden layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glamkit.ops.device import has_kernels, operation

MOST = 2**14  # numbers of a row or a layer that a program keeps in registers


def supported(x: Tensor, size: int) -> bool:
    """Whether choices are for x, and as many numbers at a time: where kernels are, and nobody wants gradients."""
    return has_kernels(x.device) and not torch.is_grad_enabled() and size <= MOST


@operation("sampling")
def tokens(
    latents: Tensor, actions: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, classes: int, eps: float
) -> Tensor:
    """ReLU of the LayerNorm of latents (..., Z) and actions times weight (D, Z + A): (..., D); slow if not one-hot."""
    return weight.new_empty(*latents.shape[:-1], len(weight))


@operation("sampling")
def states(logits: Tensor, uniform: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:
    """From logits (..., Z), uniform numbers (..., K, 1) and hidden states (..., D): (..., Z + D); `share` is unimix."""
    return hidden.new_empty(*hidden.shape[:-1], logits.shape[-1] + hidden.shape[-1], dtype=dtype)


@operation("sampling")
def actions(
    x: Tensor, uniform: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """From products x (..., W), uniform numbers (..., 1) and a layer's weight (A, W) and bias: (...), int64."""
    return x.new_empty(x.shape[:-1], dtype=torch.long)


@operation("paired_windows")
def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    """Convolution and SiLU at the new places: (M, K, N, I)."""
    return entries[0].new_empty(len(sizes), min(sizes[0], taps.shape[1] - 1), entries[0].shape[1], taps.shape[2])


@operation("paired_windows")
def summed(
    us: Sequence[Tensor], selected: Sequence[Tensor], sizes: Sequence[int], last: Tensor, steps: Tensor, decays: Tensor
) -> Tensor:
    """`window_sum` of both windows of P = `sizes`, with step sizes, skip and gate: (M, N, I), in the dtype of `last`.

    `us` (N, I) and `selected` (N, R + 2 S) are of the first window's places, then the second's. The last entry's second
    half are the gates. Steps (M, R + 1, I) end with the bias, decays (M, S + 1, I), for powers of two, with the skip.
    """
    return last.new_empty(len(sizes), *us[0].shape)
