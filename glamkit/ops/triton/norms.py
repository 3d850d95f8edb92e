# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The operations of `ops.norms` as Triton kernels for CUDA GPUs.

Programs share the pixels out, each taking every so-many-th stretch, and each writes its part of the sums.
Letters: M pixels of C channels. Names that end in `_at` are addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glamkit.ops.triton.scan import jit, launch, tl, triton

TILE, WARPS = 4096, 4  # a tile is what a program reads at a time, in numbers


def moments(x: Tensor, pivot: Tensor, parts: int) -> Tensor:
    """`norms.moments`."""
    return _sums(x, x, pivot, pivot, pivot, parts, gradient=False)


def pulls(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, parts: int) -> Tensor:
    """`norms.pulls`."""
    return _sums(grad, x, scale, shift, mean, parts, gradient=True)


def _sums(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, pivot: Tensor, parts: int, gradient: bool) -> Tensor:
    grad, x = grad.contiguous(), x.contiguous()
    pixels, channels, padded, rows = _shape(x)
    sums = pivot.new_empty(parts, 2, channels)
    given = grad, x, scale, shift, pivot, sums, pixels, channels, padded, rows, gradient
    launch(_sum, (parts,), *given, num_warps=WARPS)
    return sums


def gradient(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """`norms.gradient`."""
    grad, x = grad.contiguous(), x.contiguous()
    (pixels, *shape), of_x = _shape(x), torch.empty_like(x)
    given = grad, x, scale, shift, slope, offset, of_x, pixels, *shape
    launch(_gradient, (triton.cdiv(pixels, shape[-1]),), *given, num_warps=WARPS)
    return of_x


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    """M, C, C rounded up to a power of two, and the pixels of a tile."""
    padded = triton.next_power_of_2(x.shape[-1])
    return x.shape[:-1].numel(), x.shape[-1], padded, max(1, TILE // padded)


@jit
def _sum(
    grad_at, x_at, scale_at, shift_at, pivot_at, sums_at, M,
    C: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """Of differences from the pivot and their squares, or of what ReLU lets through and its products with them."""
    channel, program = tl.arange(0, PADDED), tl.program_id(0)
    inside = channel < C
    pivot = tl.load(pivot_at + channel, inside, 0.0)[None, :]
    scale, shift = tl.load(scale_at + channel, inside, 0.0)[None, :], tl.load(shift_at + channel, inside, 0.0)[None, :]
    first, second = tl.zeros((ROWS, PADDED), tl.float32), tl.zeros((ROWS, PADDED), tl.float32)
    for start in range(program * ROWS, M, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        at, there = row.to(tl.int64)[:, None] * C + channel[None, :], (row < M)[:, None] & inside[None, :]
        x = tl.load(x_at + at, there, 0.0).to(tl.float32)
        away = tl.where(there, x - pivot, 0.0)
        if GRADIENT:
            grad = tl.load(grad_at + at, there, 0.0).to(tl.float32)
            grad = tl.where(x * scale + shift > 0, grad, 0.0)
            first += grad
            second += grad * away
        else:
            first += away
            second += away * away
    sums_at += program * 2 * C + channel
    tl.store(sums_at, tl.sum(first, 0), inside)
    tl.store(sums_at + C, tl.sum(second, 0), inside)


@jit
def _gradient(
    grad_at, x_at, scale_at, shift_at, slope_at, offset_at, of_x_at, M,
    C: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One tile."""
    channel, row = tl.arange(0, PADDED), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = channel < C
    at, there = row.to(tl.int64)[:, None] * C + channel[None, :], (row < M)[:, None] & inside[None, :]
    scale, shift = tl.load(scale_at + channel, inside, 0.0)[None, :], tl.load(shift_at + channel, inside, 0.0)[None, :]
    slope = tl.load(slope_at + channel, inside, 0.0)[None, :]
    offset = tl.load(offset_at + channel, inside, 0.0)[None, :]
    grad, x = tl.load(grad_at + at, there, 0.0).to(tl.float32), tl.load(x_at + at, there, 0.0).to(tl.float32)
    of_x = tl.where(x * scale + shift > 0, grad, 0.0) * scale + x * slope + offset
    tl.store(of_x_at + at, of_x.to(of_x_at.dtype.element_ty), there)
