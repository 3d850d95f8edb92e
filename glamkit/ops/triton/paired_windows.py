# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""Windows of both modules as Triton kernels for CUDA GPUs: both blocks in one start, each number read once.

States come one after the other, so that nothing is summed up across threads. Step sizes are made where they are needed.
Masked channels are loaded as zeros and never stored.

Letters as in `accelerate.imagination`. Names that end in `_at` are addresses; a tuple has one for each place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glamkit.ops.triton.scan import Tiles, jit, launch, tl, triton

CONVOLVED, SUMMED = Tiles(512, warps=2), Tiles(256, warps=4)


def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    """`imagination.convolved`."""
    entries, taps = tuple(entry.contiguous() for entry in entries), taps.contiguous()
    (_, count, _), (parts, conv, inner) = entries[0].shape, taps.shape
    new = min(sizes[0], conv - 1)
    u = entries[0].new_empty(parts, new, count, inner)
    grid = count, triton.cdiv(inner, CONVOLVED.channels), parts
    constants = sizes[0], sizes[1], len(entries), conv - 1, new, CONVOLVED.channels
    launch(_convolved, grid, entries, taps, u, count, inner, *constants, num_warps=CONVOLVED.warps)
    return u


def summed(
    us: Sequence[Tensor], selected: Sequence[Tensor], sizes: Sequence[int], last: Tensor, steps: Tensor, decays: Tensor
) -> Tensor:
    """`imagination.summed`."""
    us, selected = (tuple(part.contiguous() for part in parts) for parts in (us, selected))
    last, steps, decays = (part.contiguous() for part in (last, steps, decays))
    (count, inner), (parts, rank, _), first = us[0].shape, steps.shape, sizes[0]
    y = torch.empty(parts, count, inner, dtype=last.dtype, device=last.device)
    grid = triton.cdiv(count, SUMMED.rows), triton.cdiv(inner, SUMMED.channels), parts
    given = us[:first], selected[:first], us[first:], selected[first:], last, steps, decays, y, count, inner
    constants = first, sizes[1], rank - 1, decays.shape[1] - 1, SUMMED.rows, SUMMED.channels
    launch(_summed, grid, *given, *constants, num_warps=SUMMED.warps)
    return y


@jit
def _convolved(
    entries_at, taps_at, u_at, N, I,  # noqa: E741
    FIRST: tl.constexpr, SECOND: tl.constexpr, TOTAL: tl.constexpr, CONV: tl.constexpr, NEW: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Every block has its own number of places, which has to be known when this is compiled."""
    if tl.program_id(2) == 0:
        _convolve(entries_at, taps_at, u_at, N, I, 0, FIRST, TOTAL, CONV, NEW, BLOCK)
    else:
        _convolve(entries_at, taps_at, u_at, N, I, 1, SECOND, TOTAL, CONV, NEW, BLOCK)


@jit
def _convolve(
    entries_at, taps_at, u_at, N, I,  # noqa: E741
    PART: tl.constexpr, PLACES: tl.constexpr, TOTAL: tl.constexpr, CONV: tl.constexpr, NEW: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < I
    x_at, taps_at = (PART * N + row) * 2 * I + channel, taps_at + PART * (CONV + 1) * I + channel
    bias = tl.load(taps_at + CONV * I, inside, 0.0)
    for number in tl.static_range(NEW):
        u = bias
        for back in tl.static_range(CONV):
            # The first places have not as many before them; the last of those that are new is the window's last.
            if number == NEW - 1 and back < PLACES:
                x = tl.load(entries_at[TOTAL - 1 - back] + x_at, inside, 0.0)
                u += x.to(tl.float32) * tl.load(taps_at + (CONV - 1 - back) * I, inside, 0.0)
            elif number < NEW - 1 and back <= number:
                x = tl.load(entries_at[TOTAL - PLACES + number - back] + x_at, inside, 0.0)
                u += x.to(tl.float32) * tl.load(taps_at + (CONV - 1 - back) * I, inside, 0.0)
        u *= tl.sigmoid(u)
        at = ((PART * NEW + number) * N + row) * I + channel
        tl.store(u_at + at, u.to(u_at.dtype.element_ty), inside)


@jit
def _summed(
    first_u_at, first_selected_at, second_u_at, second_selected_at, last_at, steps_at, decays_at, y_at, N,
    I: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, R: tl.constexpr, S: tl.constexpr,  # noqa: E741
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As `_convolved`."""
    if tl.program_id(2) == 0:
        _sum(first_u_at, first_selected_at, last_at, steps_at, decays_at, y_at, N, I, 0, FIRST, R, S, ROWS, BLOCK)
    else:
        _sum(second_u_at, second_selected_at, last_at, steps_at, decays_at, y_at, N, I, 1, SECOND, R, S, ROWS, BLOCK)


@jit
def _sum(
    u_at, selected_at, last_at, steps_at, decays_at, y_at, N,
    I: tl.constexpr, PART: tl.constexpr, PLACES: tl.constexpr, R: tl.constexpr, S: tl.constexpr,  # noqa: E741
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    start, channel = tl.program_id(0).to(tl.int64) * ROWS, tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < I if I % BLOCK else tl.full((BLOCK,), True, tl.int1)
    steps_at, decays_at = steps_at + PART * (R + 1) * I + channel, decays_at + PART * (S + 1) * I + channel
    skip, bias, decays = tl.load(decays_at + S * I, inside, 0.0), tl.load(steps_at + R * I, inside, 0.0), ()
    for n in tl.static_range(S):
        decays += (tl.load(decays_at + n * I, inside, 0.0),)
    for row in range(start, tl.minimum(start + ROWS, N)):
        wide, narrow = row * I + channel, row * (R + 2 * S)
        y, elapsed = tl.load(u_at[PLACES - 1] + wide, inside, 0.0).to(tl.float32) * skip, tl.zeros((BLOCK,), tl.float32)
        for back in tl.static_range(PLACES):
            from_at, time, came = selected_at[PLACES - 1 - back] + narrow, bias, 0.0
            for r in tl.static_range(R):
                time += tl.load(from_at + r).to(tl.float32) * tl.load(steps_at + r * I, inside, 0.0)
            for n in tl.static_range(S):
                gate = tl.load(from_at + R + n).to(tl.float32)
                gate *= tl.load(selected_at[PLACES - 1] + narrow + R + S + n).to(tl.float32)
                if back == 0:  # reached in no time
                    came += gate
                elif n == 0:
                    came = gate * tl.exp2(elapsed * decays[n])
                else:
                    came += gate * tl.exp2(elapsed * decays[n])
            dt = _softplus(time)
            y += dt * tl.load(u_at[PLACES - 1 - back] + wide, inside, 0.0).to(tl.float32) * came
            elapsed += dt
        at = PART * N + row
        gate = tl.load(last_at + at * 2 * I + I + channel, inside, 0.0).to(tl.float32)
        tl.store(y_at + at * I + channel, (y * gate * tl.sigmoid(gate)).to(y_at.dtype.element_ty), inside)


@jit
def _softplus(x):
    """log(1 + exp(x)): its series where 1 would swallow digits of exp(x), and x itself from 20 on, as torch has it."""
    small = tl.exp(tl.minimum(x, 20.0))
    near = small * (1 - small * (0.5 - small * 0.3333333333))
    return tl.where(x > 20, x, tl.where(small < 0.01, near, tl.log(1 + small)))
