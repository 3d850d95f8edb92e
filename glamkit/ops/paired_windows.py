"""The parts of GMamba's and LMamba's windows that one GPU kernel does for both; letters as in `models.paired_windows`.

The operations are the kernels of `triton.paired_windows`, or what stands here where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.ops import causal_conv
from glamkit.ops.scan import LOG2_E, by_kernels, kernels, window_sum

# As operations of torch: without gradients, and compilers do not look into them ---------------------------------------


@torch.library.custom_op("glamkit::pair_convolved", mutates_args=())
def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    """Convolution and SiLU at the new places: (M, K, N, I)."""
    if by_kernels(taps):
        by_kernel: Tensor = kernels("paired_windows").convolved(entries, sizes, taps)
        return by_kernel
    conv, inner = taps.shape[1] - 1, taps.shape[2]
    blocks = []
    for part, size in enumerate(sizes):
        inputs = [entry[part, :, :inner] for entry in entries[-size:]]
        new = [*range(min(size, conv) - 1), size - 1]
        blocks.append(causal_conv.convolved(inputs, taps[part, :-1], taps[part, -1], new))
    return torch.stack(blocks).to(entries[0].dtype)


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
    if by_kernels(steps):
        summed: Tensor = kernels("paired_windows").summed(us, selected, sizes, last, steps, decays)
        return summed
    states, rank, first = decays.shape[1] - 1, steps.shape[1] - 1, 0
    y = last.new_empty(len(sizes), *us[0].shape)
    for part, size in enumerate(sizes):
        u, picked = (torch.stack(list(parts[first : first + size])) for parts in (us, selected))
        u, picked = u.to(steps.dtype), picked.to(steps.dtype)
        time, B, C = picked.split([rank, states, states], -1)
        dt = F.softplus(time @ steps[part, :-1] + steps[part, -1])
        sums = window_sum(dt * u, dt, decays[part, :-1].T / LOG2_E, B, C[-1])
        y[part] = (sums + u[-1] * decays[part, -1]) * F.silu(last[part].chunk(2, -1)[1].to(steps.dtype))
        first += size
    return y


@summed.register_fake
def _(us: Sequence[Tensor], _: object, sizes: Sequence[int], last: Tensor, *__: object) -> Tensor:
    return last.new_empty(len(sizes), *us[0].shape)
