"""The parts of GMamba's and LMamba's windows that one GPU kernel does for both, see `triton.paired_windows`.

Letters as in `accelerate.pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glamkit.ops.scan import kernels

# As operations of torch: without gradients, and compilers do not look into them ---------------------------------------


@torch.library.custom_op("glamkit::pair_convolved", mutates_args=())
def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    """Convolution and SiLU at the new places: (M, K, N, I)."""
    return kernels("paired_windows").convolved(entries, sizes, taps)


@convolved.register_fake
def _(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    return entries[0].new_empty(len(sizes), min(sizes[0], taps.shape[1] - 1), entries[0].shape[1], taps.shape[2])


@torch.library.custom_op("glamkit::pair_summed", mutates_args=())
def summed(
    us: Sequence[Tensor], selected: Sequence[Tensor], sizes: Sequence[int], last: Tensor, steps: Tensor, decays: Tensor
) -> Tensor:
    """`window_sum` of both windows, with their step sizes, skip and gate: (M, N, I), in the kind of numbers of `last`.

    Args:
        us: u of each place of the first window, then of the second; `selected` alike.
        selected: see `accelerate.pairs.WindowPlace`.
        sizes: P of both.
        last: the last entry, whose second half are the gates.
        steps: as in `Weights`.
        decays: as in `Weights`.
    """
    return kernels("paired_windows").summed(us, selected, sizes, last, steps, decays)


@summed.register_fake
def _(us: Sequence[Tensor], _: object, sizes: Sequence[int], last: Tensor, *__: object) -> Tensor:
    return last.new_empty(len(sizes), *us[0].shape)
