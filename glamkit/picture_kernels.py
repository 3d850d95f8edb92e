# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The operations of `pictures` as Triton kernels for CUDA GPUs: pixels are read as bytes, each about once.

    halved, halved_gradient    a convolution from frames, and its weights' gradient
    errors, errors_gradients   the squared errors of painted pictures, which are never written; gradients

A program computes a tile of pixels or blocks of one picture as a product of matrices whose rows are what these see.
Levels 0 to 255 are exact in 16 bits; what is multiplied by 1 / 255 are the sums. Gradients of weights are summed up by
programs that take the same tile of every so-many-th picture; torch adds up their parts, in the same order each time.

Letters: frames of 2 H x 2 W pixels, beside them H x W pixels of C channels. In kernels, names that end in `_at` are
addresses; a picture's address has 64 bits, what is counted from there 32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from glamkit.kernels import jit, tl, triton


class Cut(NamedTuple):
    """How work is cut: rows of a tile, warps of a program, and the programs that share all tiles out."""

    tile: int
    warps: int = 4
    programs: int = 0


HALVED, HALVED_GRADIENT = Cut(128), Cut(128, programs=528)
ERRORS, INPUTS_GRADIENT, TAPS_GRADIENT = Cut(128), Cut(128), Cut(128, programs=528)


def halved(frames: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    """`pictures.halved`, or with a bias `pictures.halved_relu`."""
    frames, weight = frames.contiguous(), weight.contiguous()
    shape = count, channels, height, width = len(frames), len(weight), *(side // 2 for side in frames.shape[2:])
    y = torch.empty(shape, dtype=kind, device=frames.device, memory_format=torch.channels_last)
    with torch.cuda.device_of(frames):
        _halved[(count * triton.cdiv(height * width, HALVED.tile),)](
            *(frames, weight, weight if bias is None else bias.contiguous(), y, bias is not None),
            *(height, width, channels, padded(channels), HALVED.tile),
            num_warps=HALVED.warps,
        )
    return y


def halved_gradient(frames: Tensor, grad: Tensor) -> Tensor:
    """`pictures.halved_gradient`."""
    frames, grad = frames.contiguous(), grad.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = grad.shape
    programs = shared(count, height * width, HALVED_GRADIENT)
    parts = frames.new_empty((*programs, 3, 4, 4, channels), dtype=torch.float32)
    with torch.cuda.device_of(frames):
        _halved_gradient[programs](
            *(frames, grad, parts, count, height, width, channels, padded(channels), HALVED_GRADIENT.tile),
            num_warps=HALVED_GRADIENT.warps,
        )
    return parts.sum((0, 1)).permute(3, 0, 1, 2).contiguous()


def errors(x: Tensor, taps: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """`pictures.errors`."""
    x, taps, frames = x.contiguous(memory_format=torch.channels_last), taps.contiguous(), frames.contiguous()
    (count, channels, height, width), blocks = x.shape, (x.shape[2] + 1) * (x.shape[3] + 1)
    tiles = triton.cdiv(blocks, ERRORS.tile)
    parts, differences = taps.new_empty((count, tiles), dtype=torch.float32), x.new_empty(count, blocks, taps.shape[1])
    with torch.cuda.device_of(x):
        _errors[(count * tiles,)](
            *(x, taps, frames, parts, differences),
            *(taps.shape[1], height, width, channels, padded(channels), ERRORS.tile),
            num_warps=ERRORS.warps,
        )
    return parts.sum(1), differences


def errors_gradients(grad: Tensor, x: Tensor, taps: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    """`pictures.errors_gradients`."""
    x = x.contiguous(memory_format=torch.channels_last)
    grad, taps, differences = (part.contiguous() for part in (grad, taps, differences))
    (count, channels, height, width), outs = x.shape, taps.shape[1]
    shape, of_x = (outs, height, width, channels, padded(channels)), torch.empty_like(x)
    programs = shared(count, (height + 1) * (width + 1), TAPS_GRADIENT)
    parts = taps.new_empty((*programs, *taps.shape), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _inputs_gradient[(count * triton.cdiv(height * width, INPUTS_GRADIENT.tile),)](
            *(grad, differences, taps, of_x, *shape, INPUTS_GRADIENT.tile),
            num_warps=INPUTS_GRADIENT.warps,
        )
        _taps_gradient[programs](
            *(grad, x, differences, parts, count, *shape, TAPS_GRADIENT.tile),
            num_warps=TAPS_GRADIENT.warps,
        )
    return of_x, parts.sum((0, 1))


def shared(count: int, pixels: int, cut: Cut) -> tuple[int, int]:
    """How many programs share pictures out: one for each tile, and those beside each other."""
    tiles = triton.cdiv(pixels, cut.tile)
    return tiles, max(1, min(count, cut.programs // tiles))


def padded(channels: int) -> int:
    """Channels as a product of matrices wants them."""
    return max(16, triton.next_power_of_2(channels))


@jit
def _halved(
    frames_at, weight_at, bias_at, y_at, RECTIFIED: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile: what its pixels see of one colour at a time."""
    picture, pixel = _pixels(H * W, TILE)
    place, channel = tl.arange(0, 16), tl.arange(0, PADDED)
    kind: tl.constexpr = y_at.dtype.element_ty
    at, there = _seen(pixel[:, None], place[None, :], H, W)
    frames_at += picture * 12 * H * W
    weight_at += channel[None, :] * 48 + place[:, None]
    y = tl.zeros((TILE, PADDED), tl.float32)
    for colour in tl.static_range(3):
        levels = _levels(frames_at + colour * 4 * H * W + at, there, kind)
        weight = tl.load(weight_at + colour * 16, (channel < C)[None, :], 0.0).to(kind)
        y = tl.dot(levels, weight, y)
    y *= 1 / 255
    if RECTIFIED:
        y = tl.maximum(y + tl.load(bias_at + channel, channel < C, 0.0)[None, :], 0.0)
    y_at += picture * H * W * C + pixel[:, None] * C + channel[None, :]
    tl.store(y_at, y.to(kind), (pixel < H * W)[:, None] & (channel < C)[None, :])


@jit
def _halved_gradient(
    frames_at, grad_at, parts_at, N,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile's, of every so-many-th picture: a sum for each of three colours."""
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    place, channel = tl.arange(0, 16), tl.arange(0, PADDED)
    at, there = _seen(pixel[None, :], place[:, None], H, W)
    grads, real = pixel[:, None] * C + channel[None, :], (pixel < H * W)[:, None] & (channel < C)[None, :]
    red, green = tl.zeros((16, PADDED), tl.float32), tl.zeros((16, PADDED), tl.float32)
    blue = tl.zeros((16, PADDED), tl.float32)
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        grad, frame_at = tl.load(grad_at + picture * H * W * C + grads, real, 0.0), frames_at + picture * 12 * H * W
        red = tl.dot(_levels(frame_at + at, there, grad.dtype), grad, red)
        green = tl.dot(_levels(frame_at + 4 * H * W + at, there, grad.dtype), grad, green)
        blue = tl.dot(_levels(frame_at + 8 * H * W + at, there, grad.dtype), grad, blue)
    parts_at += (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 48 * C
    parts_at += place[:, None] * C + channel[None, :]
    tl.store(parts_at, red * (1 / 255), (channel < C)[None, :])
    tl.store(parts_at + 16 * C, green * (1 / 255), (channel < C)[None, :])
    tl.store(parts_at + 32 * C, blue * (1 / 255), (channel < C)[None, :])


@jit
def _errors(
    x_at, taps_at, frames_at, parts_at, differences_at, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile of blocks: differences, and the sum of their squares."""
    picture, block = _pixels((H + 1) * (W + 1), TILE)
    out, row = tl.arange(0, OUTS), tl.arange(0, 4 * PADDED)
    corners, inside = _corners(block, H, W, C, PADDED)
    x = tl.load(x_at + picture * H * W * C + corners, inside, 0.0)
    at, real = row // PADDED * C + row % PADDED, row % PADDED < C
    taps = tl.load(taps_at + at[:, None] * OUTS + out[None, :], real[:, None], 0.0)
    y = tl.dot(x, taps.to(x.dtype)) + tl.load(taps_at + 4 * C * OUTS + out)[None, :]
    row = (block // (W + 1) * 2 - 1)[:, None] + (out % 4 // 2)[None, :]
    column = (block % (W + 1) * 2 - 1)[:, None] + (out % 2)[None, :]
    inside = (row >= 0) & (row < 2 * H) & (column >= 0) & (column < 2 * W) & (out < 12)[None, :]
    frames_at += picture * 12 * H * W + (out // 4 * 4 * H * W)[None, :]
    levels = tl.load(frames_at + row * 2 * W + column, inside, 0).to(tl.float32)
    y = tl.where(inside, y - levels * (1 / 255), 0.0)
    at = picture * (H + 1) * (W + 1) * OUTS + block[:, None] * OUTS + out[None, :]
    tl.store(differences_at + at, y.to(x.dtype), (block < (H + 1) * (W + 1))[:, None])
    tl.store(parts_at + tl.program_id(0), tl.sum(tl.sum(y * y, 1), 0))


@jit
def _inputs_gradient(
    grad_at, differences_at, taps_at, of_x_at, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile: a pixel of x is a corner of four blocks."""
    picture, pixel = _pixels(H * W, TILE)
    column, channel = tl.arange(0, 4 * OUTS), tl.arange(0, PADDED)
    out, tap = column % OUTS, column // OUTS
    block = (pixel // W + 1)[:, None] * (W + 1) + (pixel % W + 1)[:, None] - (tap // 2 * (W + 1) + tap % 2)[None, :]
    differences_at += picture * (H + 1) * (W + 1) * OUTS
    differences = tl.load(differences_at + block * OUTS + out[None, :], (pixel < H * W)[:, None], 0.0)
    taps_at += (tap * C * OUTS + out)[:, None] + channel[None, :] * OUTS
    taps = tl.load(taps_at, (channel < C)[None, :], 0.0).to(differences.dtype)
    of_x = tl.dot(differences, taps) * (2 * tl.load(grad_at + picture))
    of_x_at += picture * H * W * C + pixel[:, None] * C + channel[None, :]
    tl.store(of_x_at, of_x.to(differences.dtype), (pixel < H * W)[:, None] & (channel < C)[None, :])


@jit
def _taps_gradient(
    grad_at, x_at, differences_at, parts_at, N, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile of blocks', of every so-many-th picture."""
    block = tl.program_id(0) * TILE + tl.arange(0, TILE)
    out, row = tl.arange(0, OUTS), tl.arange(0, 4 * PADDED)
    corners, inside = _corners(block, H, W, C, PADDED)
    missed, real = block[:, None] * OUTS + out[None, :], (block < (H + 1) * (W + 1))[:, None]
    sums, total = tl.zeros((4 * PADDED, OUTS), tl.float32), tl.zeros((TILE, OUTS), tl.float32)
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        x = tl.load(x_at + picture * H * W * C + corners, inside, 0.0)
        differences = tl.load(differences_at + picture * (H + 1) * (W + 1) * OUTS + missed, real, 0.0)
        scale = 2 * tl.load(grad_at + picture)
        sums += tl.dot(tl.trans(x), differences) * scale
        total += differences.to(tl.float32) * scale
    parts_at += (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * (4 * C + 1) * OUTS + out
    at, real = row // PADDED * C + row % PADDED, row % PADDED < C
    tl.store(parts_at[None, :] + at[:, None] * OUTS, sums, real[:, None])
    tl.store(parts_at + 4 * C * OUTS, tl.sum(total, 0))


@jit
def _pixels(count: tl.constexpr, TILE: tl.constexpr):
    """The program's picture and which of its `count` pixels or blocks are the tile's; some may lie beyond the last."""
    tiles: tl.constexpr = (count + TILE - 1) // TILE
    return (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)


@jit
def _seen(pixel, place, H: tl.constexpr, W: tl.constexpr):
    """Where in a frame the 4 x 4 places are that a pixel sees, and whether they are inside."""
    row, column = pixel // W * 2 - 1 + place // 4, pixel % W * 2 - 1 + place % 4
    return row * 2 * W + column, (row >= 0) & (row < 2 * H) & (column >= 0) & (column < 2 * W)


@jit
def _levels(frame_at, there, kind):
    """Levels of pixels, zero outside of frames."""
    return tl.load(frame_at, there, 0).to(tl.float32).to(kind)


@jit
def _corners(block, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr):
    """Where in a picture the channels of a block's four corners are, side by side, and whether they are inside."""
    column = tl.arange(0, 4 * PADDED)
    channel, tap = column % PADDED, column // PADDED
    row = (block // (W + 1) - 1)[:, None] + (tap // 2)[None, :]
    column = (block % (W + 1) - 1)[:, None] + (tap % 2)[None, :]
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W) & (channel < C)[None, :]
    return (row * W + column) * C + channel[None, :], inside
