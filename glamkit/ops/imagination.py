"""Parts of an imagined step on GPUs, each by one kernel: what is chosen, what reads it first, and both windows at once.

    tokens     a token's first layer: the columns of its weights that codes and action pick, added up and normalised
    states     a latent drawn from the prior's logits, and the hidden state behind it
    actions    the policy from its last hidden layer on: normalised, multiplied and drawn from
    convolved, summed    GMamba's and LMamba's windows, see `accelerate.imagination.Paired`

Written out these are a dozen kernels, of which most take as long to start as they do. The numbers are those of the
formulas, tokens in all of float32's digits; codes and actions fall where uniform numbers do, see `functional.picked`.
There are no gradients.

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
    """ReLU of the LayerNorm (scale, shift) of a product with weight (D, Z + A), in float32: (..., D).

    Latents (..., Z) of so many classes each need not be one-hot, but if they are not, it takes long.
    """
    return weight.new_empty(*latents.shape[:-1], len(weight))


@operation("sampling")
def states(logits: Tensor, uniform: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:
    """From logits (..., Z), uniform numbers (..., K, 1) and hidden states (..., D): states (..., Z + D).

    `share` is what is mixed in of the uniform distribution.
    """
    return hidden.new_empty(*hidden.shape[:-1], logits.shape[-1] + hidden.shape[-1], dtype=dtype)


@operation("sampling")
def actions(
    x: Tensor, uniform: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """From products x (..., W), uniform numbers (..., 1) and a layer's weight (A, W) and bias: (...), int64.

    Its product is computed in the kind of numbers of x.
    """
    return x.new_empty(x.shape[:-1], dtype=torch.long)


@operation("paired_windows")
def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    """Convolution and SiLU at the new places: (M, K, N, I)."""
    return entries[0].new_empty(len(sizes), min(sizes[0], taps.shape[1] - 1), entries[0].shape[1], taps.shape[2])


@operation("paired_windows")
def summed(
    us: Sequence[Tensor], selected: Sequence[Tensor], sizes: Sequence[int], last: Tensor, steps: Tensor, decays: Tensor
) -> Tensor:
    """`window_sum` of both windows, with their step sizes, skip and gate: (M, N, I), in the kind of numbers of `last`.

    Args:
        us: u of each place of the first window, then of the second; `selected` alike.
        selected: (N, R + 2 S) each.
        sizes: P of both.
        last: the last entry, whose second half are the gates.
        steps: (M, R + 1, I), weights of the step sizes, the bias last.
        decays: (M, S + 1, I), for powers of two, the skip last.
    """
    return last.new_empty(len(sizes), *us[0].shape)
