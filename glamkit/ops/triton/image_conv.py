# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The operations of `ops.image_conv` as Triton kernels for CUDA GPUs, which read pixels as bytes.

A program computes the same tile, of pixels or blocks, of every so-many-th picture, as a product of matrices. Levels 0
to 255 are exact in 16 bits: sums are multiplied by 1 / 255. Torch adds up each program's part of the gradients.

Letters: N frames of 2 H x 2 W pixels, their three levels side by side; beside them H x W pixels of C channels. Names
that end in `_at` are addresses; a picture's has 64 bits, what is counted from there 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from glamkit.ops.triton.scan import jit, launch, tl, triton


class ImageTiles(NamedTuple):
    """How work is cut: rows of a tile, how many programs share all tiles out, their warps, and loads on their way."""

    tile: int
    programs: int
    warps: int = 4
    stages: int = 3


# The fastest of those tried on an H100 that fit into the 100 KB of memory that threads share on smaller GPUs. With more
# than one stage Triton loads frames by way of that memory, word by word: five times as slow.
HALVED, HALVED_GRADIENT = ImageTiles(128, 5280, stages=1), ImageTiles(32, 2112, 1, stages=1)
ERRORS, INPUTS_GRADIENT, TAPS_GRADIENT = ImageTiles(64, 528), ImageTiles(128, 4224), ImageTiles(64, 528)


def halved(frames: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    """`image_conv.halved`."""
    words, weight = _words(frames), weight.contiguous()
    shape = count, _, height, width = len(frames), len(weight), *(side // 2 for side in frames.shape[2:])
    y = torch.empty(shape, dtype=kind, device=frames.device, memory_format=torch.channels_last)
    grid, constants = _cut(shape, height * width, HALVED)
    given = words, weight, weight if bias is None else bias.contiguous(), y, count, bias is not None
    launch(_halved, grid, *given, **constants)
    return y


def halved_gradient(frames: Tensor, grad: Tensor) -> Tensor:
    """`image_conv.halved_gradient`."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = grad.shape
    programs, constants = _cut(grad.shape, height * width, HALVED_GRADIENT)
    parts = grad.new_empty((*programs, 4, 4, 3, channels), dtype=torch.float32)
    launch(_halved_gradient, programs, _words(frames), grad, parts, count, **constants)
    return parts.sum((0, 1)).permute(3, 2, 0, 1).contiguous()


def errors(x: Tensor, taps: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """`image_conv.errors`."""
    x, frames = (part.contiguous(memory_format=torch.channels_last) for part in (x, frames))
    count, blocks, outs = len(x), (x.shape[2] + 1) * (x.shape[3] + 1), taps.shape[1]
    programs, constants = _cut(x.shape, blocks, ERRORS)
    parts = taps.new_empty((count, programs[0]), dtype=torch.float32)
    differences = x.new_empty(count, blocks, outs)
    launch(_errors, programs, x, taps.contiguous(), frames, parts, differences, count, outs, **constants)
    return parts.sum(1), differences


def errors_gradients(grad: Tensor, x: Tensor, taps: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    """`image_conv.errors_gradients`."""
    grad, taps, differences = (part.contiguous() for part in (grad, taps, differences))
    x = x.contiguous(memory_format=torch.channels_last)
    count, blocks, outs = differences.shape
    of_x = torch.empty_like(x, memory_format=torch.channels_last)
    programs, constants = _cut(x.shape, x.shape[2] * x.shape[3], INPUTS_GRADIENT)
    launch(_inputs_gradient, programs, grad, differences, taps, of_x, count, outs, **constants)
    programs, constants = _cut(x.shape, blocks, TAPS_GRADIENT)
    parts = x.new_empty((*programs, *taps.shape), dtype=torch.float32)
    launch(_taps_gradient, programs, grad, x, differences, parts, count, outs, **constants)
    return of_x, parts.sum((0, 1))


def _words(frames: Tensor) -> Tensor:
    """Frames by four levels of a row: (N, 2 H, 3 W / 2)."""
    return frames.permute(0, 2, 3, 1).contiguous().flatten(2).view(torch.uint32)


def _cut(shape: Sequence[int], pixels: int, cut: ImageTiles) -> tuple[tuple[int, int], dict[str, int]]:
    """A grid, tiles of a picture (N, C, H, W) x programs that share pictures out, and what a kernel is compiled for."""
    count, channels, height, width = shape
    tiles, padded = triton.cdiv(pixels, cut.tile), max(16, triton.next_power_of_2(channels))
    constants = {"H": height, "W": width, "C": channels, "PADDED": padded, "TILE": cut.tile}
    constants |= {"num_warps": cut.warps, "num_stages": cut.stages}
    return (tiles, max(1, min(count, cut.programs // tiles))), constants


@jit
def _halved(
    words_at, weight_at, bias_at, y_at, N, RECTIFIED: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """What the tile's pixels see, a third at a time."""
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    place, channel = tl.arange(0, 16), tl.arange(0, PADDED)
    kind: tl.constexpr = y_at.dtype.element_ty
    at, shift, inside, left, right = _seen(pixel, H, W)
    outs, real = pixel[:, None] * C + channel[None, :], (pixel < H * W)[:, None] & (channel < C)[None, :]
    weights = ()
    for third in tl.static_range(3):
        level = 4 * third + place % 4
        level_at = weight_at + channel[None, :] * 48 + (level % 3 * 16 + place // 4 * 4 + level // 3)[:, None]
        weights += (tl.load(level_at, (channel < C)[None, :], 0.0).to(kind),)
    if RECTIFIED:
        bias = tl.load(bias_at + channel, channel < C, 0.0)[None, :]
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        levels = _levels(words_at + picture * 3 * H * W + at, shift, inside, left, right, kind)
        y = tl.zeros((TILE, PADDED), tl.float32)
        for third in tl.static_range(3):
            y = tl.dot(levels[third], weights[third], y)
        y *= 1 / 255
        if RECTIFIED:
            y = tl.maximum(y + bias, 0.0)
        tl.store(y_at + picture * H * W * C + outs, y.to(kind), real)


@jit
def _halved_gradient(
    words_at, grad_at, parts_at, N,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sums over what the tile's pixels see, by thirds."""
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    place, channel = tl.arange(0, 16), tl.arange(0, PADDED)
    at, shift, inside, left, right = _seen(pixel, H, W)
    grads, real = pixel[:, None] * C + channel[None, :], (pixel < H * W)[:, None] & (channel < C)[None, :]
    first, second = tl.zeros((16, PADDED), tl.float32), tl.zeros((16, PADDED), tl.float32)
    last = tl.zeros((16, PADDED), tl.float32)
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        grad = tl.load(grad_at + picture * H * W * C + grads, real, 0.0)
        levels = _levels(words_at + picture * 3 * H * W + at, shift, inside, left, right, grad.dtype)
        first = tl.dot(tl.trans(levels[0]), grad, first)
        second = tl.dot(tl.trans(levels[1]), grad, second)
        last = tl.dot(tl.trans(levels[2]), grad, last)
    parts_at += (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 48 * C
    parts_at += (place // 4 * 12 + place % 4)[:, None] * C + channel[None, :]
    tl.store(parts_at, first * (1 / 255), (channel < C)[None, :])
    tl.store(parts_at + 4 * C, second * (1 / 255), (channel < C)[None, :])
    tl.store(parts_at + 8 * C, last * (1 / 255), (channel < C)[None, :])


@jit
def _errors(
    x_at, taps_at, frames_at, parts_at, differences_at, N, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Differences of a tile of blocks, and the sum of their squares."""
    block = tl.program_id(0) * TILE + tl.arange(0, TILE)
    out, tap = tl.arange(0, OUTS), tl.arange(0, 4 * PADDED)
    corners, inside = _corners(block, H, W, C, PADDED)
    bias = tl.load(taps_at + 4 * C * OUTS + out)[None, :]
    taps_at += (tap // PADDED * C + tap % PADDED)[:, None] * OUTS + out[None, :]
    taps = tl.load(taps_at, (tap % PADDED < C)[:, None], 0.0).to(x_at.dtype.element_ty)
    row = (block // (W + 1) * 2 - 1)[:, None] + (out % 4 // 2)[None, :]
    column = (block % (W + 1) * 2 - 1)[:, None] + (out % 2)[None, :]
    there = (row >= 0) & (row < 2 * H) & (column >= 0) & (column < 2 * W) & (out < 12)[None, :]
    seen = (row * 2 * W + column) * 3 + (out // 4)[None, :]
    missed, real = block[:, None] * OUTS + out[None, :], (block < (H + 1) * (W + 1))[:, None]
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        y = tl.dot(tl.load(x_at + picture * H * W * C + corners, inside, 0.0), taps) + bias
        levels = tl.load(frames_at + picture * 12 * H * W + seen, there, 0).to(tl.float32)
        y = tl.where(there, y - levels * (1 / 255), 0.0)
        tl.store(differences_at + picture * (H + 1) * (W + 1) * OUTS + missed, y.to(taps.dtype), real)
        tl.store(parts_at + picture * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.sum(y * y, 1), 0))


@jit
def _inputs_gradient(
    grad_at, differences_at, taps_at, of_x_at, N, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A pixel of x is a corner of four blocks."""
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column, channel = tl.arange(0, 4 * OUTS), tl.arange(0, PADDED)
    out, tap = column % OUTS, column // OUTS
    block = (pixel // W + 1)[:, None] * (W + 1) + (pixel % W + 1)[:, None] - (tap // 2 * (W + 1) + tap % 2)[None, :]
    missed, there = block * OUTS + out[None, :], (pixel < H * W)[:, None]
    taps_at += (tap * C * OUTS + out)[:, None] + channel[None, :] * OUTS
    taps = tl.load(taps_at, (channel < C)[None, :], 0.0).to(of_x_at.dtype.element_ty)
    outs, real = pixel[:, None] * C + channel[None, :], there & (channel < C)[None, :]
    for picture in range(tl.program_id(1), N, tl.num_programs(1)):
        picture = tl.cast(picture, tl.int64)
        differences = tl.load(differences_at + picture * (H + 1) * (W + 1) * OUTS + missed, there, 0.0)
        of_x = tl.dot(differences, taps) * (2 * tl.load(grad_at + picture))
        tl.store(of_x_at + picture * H * W * C + outs, of_x.to(taps.dtype), real)


@jit
def _taps_gradient(
    grad_at, x_at, differences_at, parts_at, N, OUTS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A tile of blocks'; the bias comes last."""
    block = tl.program_id(0) * TILE + tl.arange(0, TILE)
    out, tap = tl.arange(0, OUTS), tl.arange(0, 4 * PADDED)
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
    parts_at += (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * (4 * C + 1) * OUTS + out
    at = (tap // PADDED * C + tap % PADDED) * OUTS
    tl.store(parts_at[None, :] + at[:, None], sums, (tap % PADDED < C)[:, None])
    tl.store(parts_at + 4 * C * OUTS, tl.sum(total, 0))


@jit
def _seen(pixel, H: tl.constexpr, W: tl.constexpr):
    """Of each row of twelve levels that pixels see, in four words: place, others' bits, what is inside the frame."""
    row, first = (pixel // W * 2 - 1)[:, None] + tl.arange(0, 4)[None, :], (pixel % W * 6 - 3)[:, None]
    word, inside = (first + 4) // 4 - 1, (row >= 0) & (row < 2 * H)
    shift = ((first + 4) % 4 * 8).to(tl.uint32)
    return row * (3 * W // 2) + word, shift, inside, inside & (word >= 0), inside & (word + 3 < 3 * W // 2)


@jit
def _levels(word_at, shift, inside, left, right, kind):
    """Thirds of what pixels see, zero outside of frames: three times (pixels, 16), four levels of each row."""
    one, two = tl.load(word_at, left, 0), tl.load(word_at + 1, inside, 0)
    three, four = tl.load(word_at + 2, inside, 0), tl.load(word_at + 3, right, 0)
    return (
        _spread((one >> shift) | (two << (32 - shift)), kind),
        _spread((two >> shift) | (three << (32 - shift)), kind),
        _spread((three >> shift) | (four << (32 - shift)), kind),
    )


@jit
def _spread(word, kind):
    """The four levels of each word (pixels, 4): (pixels, 16)."""
    levels = tl.join(tl.join(word, word >> 16), tl.join(word >> 8, word >> 24)) & 255
    return tl.reshape(levels.to(tl.float32).to(kind), (word.shape[0], 16))


@jit
def _corners(block, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr):
    """Where in a picture the channels of a block's four corners are, side by side, and whether they are inside."""
    column = tl.arange(0, 4 * PADDED)
    channel, tap = column % PADDED, column // PADDED
    row = (block // (W + 1) - 1)[:, None] + (tap // 2)[None, :]
    column = (block % (W + 1) - 1)[:, None] + (tap % 2)[None, :]
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W) & (channel < C)[None, :]
    return (row * W + column) * C + channel[None, :], inside
