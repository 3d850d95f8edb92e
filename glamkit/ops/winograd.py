"""Convolutions in steps of 2 with 9 products for 16: Winograd's minimal filtering, F(2 x 2, 2 x 2), on CPUs.

Over blocks of 2 x 2 pixels a kernel of 4 x 4 in steps of 2 is one of 2 x 2 in steps of 1. Along one axis two
neighbouring outputs read three blocks a, b, c with the kernel's halves j and k, and share a product:

    a j + b k = (a - b) j + b (j + k)
    b j + c k =             b (j + k) + (c - b) k

That makes 3 products of 4, and 9 of 16 along both axes; gradients are such sums too. The method and its name: Lavin &
Gray 2016, arXiv 1509.09308. In bfloat16 the sums are rounded as well, so that errors double or triple: to 0.5 to 0.7 %
of a layer's outputs and gradients. It pays only where a compiler makes the sums in one pass each, of a few pictures at
a time that stay in the cache; hence compiled functions inside of operations that compilers do not look into. The
convolution that halves the side gains nothing by it and is torch's own; its gradients gain.

Letters: N pictures, larger ones of H x W pixels and C channels, smaller ones of half the side and c channels; these are
cut into tiles of 2 x 2 pixels. Inside the operations channels are innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.ops.precision import precision

LARGE = 2**17  # numbers in a kernel, from which products take so long that sums are worth it
CACHED = 2**20  # numbers of larger pictures at a time, at most: what is made of them stays in a third-level cache


def pays(weight: Tensor) -> bool:
    """Whether training with this kernel is faster so: in bfloat16 on CPUs, where things are compiled."""
    compiled = torch.compiler.is_compiling() and torch.is_grad_enabled() and weight.device.type == "cpu"
    return compiled and precision(weight) == torch.bfloat16 and weight.numel() >= LARGE


def halved(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution: x (N, C, H, W) and weight (c, C, 4, 4) -> (N, c, H / 2, W / 2), H and W in fours."""
    return _halved(x.to(precision(x)), weight.to(precision(x)))


def doubled(x: Tensor, weight: Tensor) -> Tensor:
    """A transposed convolution: x (N, c, H / 2, W / 2) and weight (c, C, 4, 4) -> (N, C, H, W)."""
    return _doubled(x.to(precision(x)), weight.to(precision(x)))


# Sums along one axis -------------------------------------------------------------------------------------------------


def _differences(x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, 4 n + 2 along the axis -> a - b, b and c - b: 3 times (n, 2) of them."""
    span = x.shape[axis] - 2
    tiles, later = (x.narrow(axis, start, span).unflatten(axis, (-1, 4)) for start in (0, 2))
    a, b, c = tiles.narrow(axis + 1, 0, 2), tiles.narrow(axis + 1, 2, 2), later.narrow(axis + 1, 2, 2)
    return a - b, b, c - b


def _merged(parts: Sequence[Tensor] | Tensor, axis: int) -> Tensor:
    """`_differences` backwards, without the margin: 3 times (n, 2) pixels -> 4 n along the axis."""
    first, middle, last = parts
    margin = [0, 0] * (first.dim() - axis - 2)
    tiles = F.pad(first, [*margin, 0, 2]) + F.pad(middle - first - last, [*margin, 2, 0])
    tiles, later = (part.flatten(axis, axis + 1) for part in (tiles, F.pad(last, [*margin, 2, 0])))
    margin = [0, 0] * (tiles.dim() - axis - 1)
    return F.pad(tiles, [*margin, -1, 1]) + F.pad(later, [*margin, 1, -1])


def _sums(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is multiplied of a kernel's halves j and k, and of two outputs' gradients."""
    return first, first + second, second


def _pairs(parts: Tensor) -> Tensor:
    """`_sums` backwards, along both axes: (3, 3, ...) -> (2, 2, ...)."""
    parts = parts[:2] + parts[1:]
    return parts[:, :2] + parts[:, 1:]


# Along both -----------------------------------------------------------------------------------------------------------


def _spread_large(pixels: Tensor) -> Tensor:
    """Larger pictures in a margin of zeros (N, H + 2, W + 2, C) -> what is multiplied: (9, tiles, 4 C)."""
    parts = [part for rows in _differences(pixels, 1) for part in _differences(rows, 3)]
    return torch.stack([part.transpose(2, 3).reshape(-1, 4 * pixels.shape[-1]) for part in parts])


def _spread_small(x: Tensor) -> Tensor:
    """Smaller pictures (N, H / 2, W / 2, c) -> what is multiplied: (9, tiles, c)."""
    tiles = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    parts = [part for rows in _sums(*tiles.unbind(2)) for part in _sums(*rows.unbind(3))]
    return torch.stack([part.reshape(-1, x.shape[-1]) for part in parts])


def _collect_large(g: Tensor, out: Tensor) -> None:
    """`_spread_large` backwards: products (9, tiles, 4 C) -> larger pictures (N, H, W, C)."""
    count, height, width, channels = out.shape
    parts = g.view(3, 3, count, height // 4, width // 4, 2, 2, channels).transpose(4, 5)
    out.copy_(_merged([_merged(row, 3) for row in parts], 1))


def _collect_small(v: Tensor, out: Tensor) -> None:
    """`_spread_small` backwards: products (9, tiles, c) -> smaller pictures (N, H / 2, W / 2, c)."""
    count, height, width, channels = out.shape
    parts = _pairs(v.view(3, 3, count, height // 2, width // 2, channels))
    out.copy_(parts.permute(2, 3, 0, 4, 1, 5).reshape(out.shape))


def _spread_kernel(weight: Tensor) -> Tensor:
    """A kernel (c, C, 4, 4) -> what pixels are multiplied with: (9, 4 C, c)."""
    quarters = weight.float().unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(2, 4, 3, 5, 1, 0).flatten(2, 4)
    return torch.stack([part for half in _sums(*quarters) for part in _sums(*half)]).to(weight.dtype)


def _collect_kernel(u: Tensor, like: Tensor) -> Tensor:
    """`_spread_kernel` backwards, as a kernel `like` another."""
    quarters = _pairs(u.view(3, 3, 2, 2, like.shape[1], like.shape[0]))
    return quarters.permute(5, 4, 0, 2, 1, 3).reshape(like.shape).to(like.dtype)


@lru_cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


# As operations of torch -----------------------------------------------------------------------------------------------


def _parts(large: Tensor, small: Tensor, *more: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Pictures, channels innermost, some at a time: always as many, as functions are compiled for each number."""
    most = max(1, CACHED // large[0].numel())
    count = next(count for count in range(most, 0, -1) if len(large) % count == 0)
    return zip(*(x.detach().permute(0, 2, 3, 1).split(count) for x in (large, small, *more)), strict=True)


def _large(x: Tensor) -> Tensor:
    spread: Tensor = _compiled(_spread_large)(F.pad(x, (0, 0, 1, 1, 1, 1)))
    return spread


def _small(x: Tensor) -> Tensor:
    spread: Tensor = _compiled(_spread_small)(x)
    return spread


def _empty(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    return x.new_empty(len(x), height, width, channels).permute(0, 3, 1, 2)


@torch.library.custom_op("glamkit::halved", mutates_args=())
def _halved(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, stride=2, padding=1).contiguous(memory_format=torch.channels_last)


@_halved.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return _empty(x, len(weight), x.shape[2] // 2, x.shape[3] // 2)


@torch.library.custom_op("glamkit::doubled", mutates_args=())
def _doubled(x: Tensor, weight: Tensor) -> Tensor:
    y, kernel = _empty(x, weight.shape[1], 2 * x.shape[2], 2 * x.shape[3]), _spread_kernel(weight)
    for large, small in _parts(y, x):
        _compiled(_collect_large)(_small(small) @ kernel.mT, large)
    return y


@_doubled.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return _empty(x, weight.shape[1], 2 * x.shape[2], 2 * x.shape[3])


@torch.library.custom_op("glamkit::gradients", mutates_args=())
def _gradients(grad: Tensor, x: Tensor, weight: Tensor, doubles: bool) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight."""
    of_x, kernel = _empty(x, *x.shape[1:]), _spread_kernel(weight)
    of_kernel = torch.zeros(kernel.shape)
    for large, small, into in _parts(*((grad, x) if doubles else (x, grad)), of_x):
        v, g = _large(large), _small(small)
        of_kernel += v.mT @ g
        if doubles:
            _compiled(_collect_small)(v @ kernel, into)
        else:
            _compiled(_collect_large)(g @ kernel.mT, into)
    return of_x, _collect_kernel(of_kernel, weight)


@_gradients.register_fake
def _(_: Tensor, x: Tensor, weight: Tensor, __: bool) -> tuple[Tensor, Tensor]:
    return _empty(x, *x.shape[1:]), weight.new_empty(weight.shape)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)
    ctx.doubles = output.shape[-1] > inputs[0].shape[-1]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _gradients(grad, *ctx.saved_tensors, ctx.doubles)


_halved.register_autograd(_differentiate, setup_context=_remember)
_doubled.register_autograd(_differentiate, setup_context=_remember)
