"""BatchNorm and ReLU in one: as few passes over memory as the formula needs, on CPUs where things are compiled.

The statistics are two sums that one pass takes, of differences from the running mean, so that they lose no digits;
normalising and ReLU are the second. Backwards the pictures' gradient needs two passes likewise. A compiler that is
shown the formula amid a network takes twice as long: it finds the variance value by value (Welford's way), and reads
the channels in groups, for each from the first picture to the last. Hence small compiled functions inside of operations
that compilers do not look into, as in `winograd`; here they are compiled once for all sizes.

Letters: N pictures of H x W pixels and C channels; inside the operations P = H x W pixels, channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**22  # numbers in the pictures of a batch, from which a pass takes longer than calling for it


class BatchNormReLU(nn.BatchNorm2d):
    """ReLU of `nn.BatchNorm2d`, with its parameters: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """With fewer passes where that is faster."""
        if not (self.training and pays(x)):
            return F.relu(super().forward(x), inplace=True)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, variance = _normalized(x, self.weight, self.bias, self.running_mean, self.eps)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


def pays(x: Tensor) -> bool:
    """Whether training on these pictures is faster so: on CPUs, where things are compiled, from some size on."""
    compiled = torch.compiler.is_compiling() and torch.is_grad_enabled()
    return compiled and x.device.type == "cpu" and x.numel() >= LARGE


# Passes over pictures (N, P, C) ---------------------------------------------------------------------------------------


def _moments(x: Tensor, pivot: Tensor) -> Tensor:
    """Sums of differences from a pivot (C,) and of their squares: (2, C)."""
    away = x.float() - pivot
    return torch.stack((away.sum(1), away.square().sum(1))).sum(1)


def _rectified(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.relu(x.float() * scale + shift).to(x.dtype)


def _through(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The gradient that ReLU lets through."""
    return torch.where(x.float() * scale + shift > 0, grad.float(), 0.0)


def _pulls(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Sums of the gradients, and of their products with differences from the mean: (2, C)."""
    grad = _through(grad, x, scale, shift)
    return torch.stack((grad.sum(1), (grad * (x.float() - mean)).sum(1))).sum(1)


def _gradient(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return (_through(grad, x, scale, shift) * scale + x.float() * slope + offset).to(x.dtype)


@lru_cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=True)


# As operations of torch -----------------------------------------------------------------------------------------------


def _pixels(x: Tensor) -> Tensor:
    """Pictures (N, C, H, W) as (N, P, C)."""
    return x.detach().permute(0, 2, 3, 1).flatten(1, 2)


def _pictures(pixels: Tensor, like: Tensor) -> Tensor:
    return pixels.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _affine(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What normalised pixels are multiplied with and what is added, and one over the deviation: (C,) each."""
    inverse = (variance + eps).rsqrt()
    scale = weight.detach() * inverse
    return scale, bias.detach() - mean * scale, inverse


@torch.library.custom_op("glamkit::normalized", mutates_args=())
def _normalized(x: Tensor, weight: Tensor, bias: Tensor, pivot: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of the normalised pictures, their mean and variance (C,)."""
    pixels = _pixels(x)
    first, second = _compiled(_moments)(pixels, pivot) / (x.numel() // x.shape[1])
    mean, variance = first + pivot, (second - first.square()).clamp(min=0)
    scale, shift, _ = _affine(weight, bias, mean, variance, eps)
    return _pictures(_compiled(_rectified)(pixels, scale, shift), x), mean, variance


@_normalized.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.custom_op("glamkit::normalized_gradients", mutates_args=())
def _normalized_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    pixels, grad = _pixels(x), _pixels(grad)
    scale, shift, inverse = _affine(weight, bias, mean, variance, eps)
    pull, turn = _compiled(_pulls)(grad, pixels, scale, shift, mean)
    count = x.numel() // x.shape[1]
    slope = -scale * inverse.square() * turn / count
    of_x = _compiled(_gradient)(grad, pixels, scale, shift, slope, -scale * pull / count - mean * slope)
    return _pictures(of_x, x), turn * inverse, pull


@_normalized_gradients.register_fake
def _(_: Tensor, x: Tensor, weight: Tensor, *__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, _, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad = grad.contiguous(memory_format=torch.channels_last)
    return (*_normalized_gradients(grad, *ctx.saved_tensors, ctx.eps), None, None)


_normalized.register_autograd(_differentiate, setup_context=_remember)
