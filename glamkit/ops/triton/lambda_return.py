# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""`functional.lambda_return` as a Triton kernel for CUDA GPUs: plainly it is two small kernels for every step.

Each return is a line in the one that follows, and lines of lines are lines: they are put together from the last step
to the first, for all steps at the same time.

Letters: N rows, H steps. In the kernel, names that end in `_at` are addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glamkit.ops.triton.scan import jit, tl, triton

TILE, WARPS = 512, 4  # numbers that a program reads at a time


def lambda_return(
    rewards: Tensor, terminations: Tensor, values: Tensor, discount: float, trace: float, bootstrap: str = "current"
) -> Tensor:
    """As `functional.lambda_return`, float32, without gradients."""
    rewards, terminations, values = (part.contiguous() for part in (rewards, terminations, values))
    (count, steps), returns = rewards.shape, torch.empty_like(rewards)
    padded, ahead = triton.next_power_of_2(steps), int(bootstrap == "next")
    rows = max(1, TILE // padded)
    with torch.cuda.device_of(rewards):
        _returns[(triton.cdiv(count, rows),)](
            *(rewards, terminations, values, returns, count, steps, discount, trace, ahead, padded, rows),
            num_warps=WARPS,
        )
    return returns


@jit
def _returns(
    rewards_at, terminations_at, values_at, returns_at, N, H, discount, trace,
    AHEAD: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, step = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    there = (row < N)[:, None] & (step < H)[None, :]
    at, value_at = row[:, None] * H + step[None, :], values_at + row[:, None] * (H + 1)
    live = discount * (1 - tl.load(terminations_at + at, there, 0.0))
    mixed = tl.load(value_at + step[None, :] + AHEAD, there, 0.0)
    # Steps behind the end pass on what comes after them: the last value.
    known = tl.where(there, tl.load(rewards_at + at, there, 0.0) + live * (1 - trace) * mixed, 0.0)
    known, weight = tl.associative_scan((known, tl.where(there, live * trace, 1.0)), 1, _follow, reverse=True)
    last = tl.load(value_at + H, (row < N)[:, None], 0.0)
    tl.store(returns_at + at, known + weight * last, there)


@jit
def _follow(later_known, later_weight, known, weight):
    """The line of one step into the line of those that follow."""
    return known + weight * later_known, weight * later_weight
