"""BatchNorm and LayerNorm, each with its ReLU: as few passes over memory as the formulas need, compiled for GPUs.

BatchNorm's statistics are two sums that one pass takes, of differences from the running mean, so that they lose no
digits; normalising and ReLU are the second. Backwards it takes two passes likewise, and LayerNorm one: they find out
from the inputs what ReLU let through. A compiler that is shown torch's own layers makes more passes: it finds the
variance value by value (Welford's way), and reads the outputs as well.

Letters: N pictures of H x W pixels and C channels; inside the operations P = H x W pixels, channels innermost. M rows
of W features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.ops.device import has_kernels, operation

LARGE = 2**23  # numbers in the pictures of a batch, from which a pass takes longer than calling for it
PARTS, ROW_PARTS = 512, 1056  # in which GPUs take sums: as many programs as keep the memory busy


def large(x: Tensor) -> bool:
    """Whether training on these pictures is faster by `normalized`: compiled for GPUs, from some size on."""
    return _compiled(x) and x.numel() >= LARGE


def short(x: Tensor) -> bool:
    """Whether training on x is faster by `rectified`: compiled for GPUs, with numbers of 16 bits."""
    return _compiled(x) and x.dtype.itemsize == 2


def _compiled(x: Tensor) -> bool:
    return torch.compiler.is_compiling() and torch.is_grad_enabled() and has_kernels(x.device)


# BatchNorm: compilers see how outputs are made and how the passes hang together ---------------------------------------


def normalized(x: Tensor, weight: Tensor, bias: Tensor, pivot: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of normalised pictures (N, C, H, W), channels last, mean and variance (C,); `pivot` is about the mean."""
    first, second = moments(_pixels(x), pivot, PARTS).sum(0) / (x.numel() // x.shape[1])
    mean, variance = first + pivot, (second - first.square()).clamp(min=0)
    return _Normalized.apply(x, weight, bias, mean, variance, eps), mean, variance


class _Normalized(torch.autograd.Function):
    """Outputs, with the gradient of the whole layer: mean and variance are the pictures' own."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps = eps
        scale, shift, _ = _affine(weight, bias, mean, variance, eps)
        return _pictures(torch.relu(_pixels(x).float() * scale + shift).to(x.dtype), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, mean, variance = ctx.saved_tensors
        pixels, grad = _pixels(x), _pixels(grad.contiguous(memory_format=torch.channels_last))
        scale, shift, inverse = _affine(weight, bias, mean, variance, ctx.eps)
        pull, turn = pulls(grad, pixels, scale, shift, mean, PARTS).sum(0)
        count = x.numel() // x.shape[1]
        slope = -scale * inverse.square() * turn / count
        of_x = gradient(grad, pixels, scale, shift, slope, -scale * pull / count - mean * slope)
        return _pictures(of_x, x), turn * inverse, pull, None, None, None


def _affine(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What normalised pixels are multiplied with and what is added, and one over the deviation: (C,) each."""
    inverse = (variance + eps).rsqrt()
    scale = weight.detach() * inverse
    return scale, bias.detach() - mean * scale, inverse


def _pixels(x: Tensor) -> Tensor:
    """Pictures (N, C, H, W) as (N, P, C)."""
    return x.detach().permute(0, 2, 3, 1).flatten(1, 2)


def _pictures(pixels: Tensor, like: Tensor) -> Tensor:
    return pixels.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


@operation("norms")
def moments(x: Tensor, pivot: Tensor, parts: int) -> Tensor:
    """Sums over pixels (N, P, C) of differences from a pivot (C,) and of their squares, in parts (parts, 2, C)."""
    return pivot.new_empty(parts, 2, x.shape[-1])


@operation("norms")
def pulls(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, parts: int) -> Tensor:
    """Sums of the gradients that ReLU lets through, and of their products with differences from the mean, likewise."""
    return mean.new_empty(parts, 2, x.shape[-1])


@operation("norms")
def gradient(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """What ReLU lets through of the gradients, times a scale, and the pixels times a slope and an offset."""
    return torch.empty_like(x)


# LayerNorm ------------------------------------------------------------------------------------------------------------


def rectified(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """ReLU of a LayerNorm of x (..., W), for layers to come: where that is faster in x's 16 bits, as they read it."""
    return _Rectified.apply(x, norm.weight, norm.bias, norm.eps) if short(x) else F.relu(norm(x))


class _Rectified(torch.autograd.Function):
    """Compilers see how outputs are made; the gradient is an operation, which has the rows in registers once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.eps = eps
        return F.relu(F.layer_norm(x.float(), weight.shape, weight, bias, eps)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        of_x, parts = rectified_gradient(grad.flatten(0, -2), x.flatten(0, -2), weight, bias, ctx.eps, ROW_PARTS)
        of_weight, of_bias = parts.sum(0)
        return of_x.view(x.shape), of_weight, of_bias, None


@operation("norms")
def rectified_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, parts: int
) -> tuple[Tensor, Tensor]:
    """Gradients of x (M, W), and of weight and bias in parts (parts, 2, W) that are to be added up."""
    return torch.empty_like(x, memory_format=torch.contiguous_format), weight.new_empty(parts, 2, len(weight))
