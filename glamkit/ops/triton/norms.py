# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The operations of `ops.norms` as Triton kernels for CUDA GPUs.

Programs share the pixels or rows out, each taking every so-many-th stretch, and each writes its part of the sums.
Letters: M pixels of C channels, or rows of W features. Names that end in `_at` are addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glamkit.ops.triton.scan import jit, launch, tl, triton

TILE, WARPS = 4096, 4  # a tile is what a program reads at a time, in numbers
ROW_TILE, ROW_WARPS = 1024, 2  # the same for rows


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


def rectified_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, parts: int
) -> tuple[Tensor, Tensor]:
    """`norms.rectified_gradient`."""
    grad, x = grad.contiguous(), x.contiguous()
    (count, width), padded = x.shape, triton.next_power_of_2(x.shape[1])
    of_x, sums = torch.empty_like(x), weight.new_empty(parts, 2, width)
    given = grad, x, weight, bias, of_x, sums, count, eps, width, padded, max(1, ROW_TILE // padded)
    launch(_rectified_gradient, (parts,), *given, num_warps=ROW_WARPS)
    return of_x, sums


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


@jit
def _rectified_gradient(
    grad_at, x_at, weight_at, bias_at, of_x_at, sums_at, M, eps,
    W: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Every so-many-th stretch of rows."""
    feature, program = tl.arange(0, PADDED), tl.program_id(0)
    inside = feature < W
    weight = tl.load(weight_at + feature, inside, 0.0)[None, :]
    bias = tl.load(bias_at + feature, inside, 0.0)[None, :]
    of_weight, of_bias = tl.zeros((ROWS, PADDED), tl.float32), tl.zeros((ROWS, PADDED), tl.float32)
    for start in range(program * ROWS, M, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        at, there = row.to(tl.int64)[:, None] * W + feature[None, :], (row < M)[:, None] & inside[None, :]
        grad, x = tl.load(grad_at + at, there, 0.0).to(tl.float32), tl.load(x_at + at, there, 0.0).to(tl.float32)
        away = tl.where(there, x - (tl.sum(x, 1) / W)[:, None], 0.0)
        inverse = (1 / tl.sqrt(tl.sum(away * away, 1) / W + eps))[:, None]
        normed = away * inverse
        grad = tl.where(normed * weight + bias > 0, grad, 0.0)
        of_weight += grad * normed
        of_bias += grad
        pull = grad * weight
        of_x = pull - (tl.sum(pull, 1) / W)[:, None] - normed * (tl.sum(pull * normed, 1) / W)[:, None]
        tl.store(of_x_at + at, (of_x * inverse).to(of_x_at.dtype.element_ty), there)
    sums_at += program * 2 * W + feature
    tl.store(sums_at, tl.sum(of_weight, 0), inside)
    tl.store(sums_at + W, tl.sum(of_bias, 0), inside)
