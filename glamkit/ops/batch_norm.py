"""BatchNorm and ReLU in one: as few passes over memory as the formula needs, where things are compiled.

The statistics are two sums that one pass takes, of differences from the running mean, so that they lose no digits;
normalising and ReLU are the second. Backwards the pictures' gradient needs two passes likewise, which find out from the
inputs what ReLU let through. A compiler that is shown torch's own layers does more: it finds the variance value by
value (Welford's way), and reads the outputs as well to see what ReLU let through.

Only for GPUs: compilers are shown how outputs are made and how the passes hang together; the rest are the kernels of
`triton.batch_norm`.

Letters: N pictures of H x W pixels and C channels; inside the operations P = H x W pixels, channels innermost.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.ops.scan import has_kernels, kernels

LARGE = 2**23  # numbers in the pictures of a batch, from which a pass takes longer than calling for it
PARTS = 512  # in which GPUs take sums: as many programs as keep the memory busy


class BatchNormReLU(nn.BatchNorm2d):
    """ReLU of `nn.BatchNorm2d`, with its parameters: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """With fewer passes where that is faster."""
        if not (self.training and supported(x)):
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


def supported(x: Tensor) -> bool:
    """Whether training on these pictures is faster so: where things are compiled, from some size on."""
    compiled = torch.compiler.is_compiling() and torch.is_grad_enabled()
    return compiled and has_kernels(x.device) and x.numel() >= LARGE


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


# From passes to the layer ---------------------------------------------------------------------------------------------


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


def _statistics(x: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,)."""
    first, second = _moments_shared(_pixels(x), pivot, PARTS).sum(0) / (x.numel() // x.shape[1])
    return first + pivot, (second - first.square()).clamp(min=0)


def _outputs(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    scale, shift, _ = _affine(weight, bias, mean, variance, eps)
    return _pictures(_rectified(_pixels(x), scale, shift), x)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    pixels, grad = _pixels(x), _pixels(grad)
    scale, shift, inverse = _affine(weight, bias, mean, variance, eps)
    pull, turn = _pulls_shared(grad, pixels, scale, shift, mean, PARTS).sum(0)
    count = x.numel() // x.shape[1]
    slope = -scale * inverse.square() * turn / count
    of_x = _gradient_whole(grad, pixels, scale, shift, slope, -scale * pull / count - mean * slope)
    return _pictures(of_x, x), turn * inverse, pull


# Formulas that compilers see, with operations in between --------------------------------------------------------------


@torch.library.custom_op("glamkit::moments", mutates_args=())
def _moments_shared(x: Tensor, pivot: Tensor, parts: int) -> Tensor:
    """`_moments` in parts (parts, 2, C): compilers add them up in one kernel with what is made of them."""
    if has_kernels(x.device):
        by_kernel: Tensor = kernels("batch_norm").moments(x, pivot, parts)
        return by_kernel
    return in_parts(_moments(x, pivot), parts)


@torch.library.custom_op("glamkit::pulls", mutates_args=())
def _pulls_shared(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, parts: int) -> Tensor:
    """`_pulls` likewise."""
    if has_kernels(x.device):
        by_kernel: Tensor = kernels("batch_norm").pulls(grad, x, scale, shift, mean, parts)
        return by_kernel
    return in_parts(_pulls(grad, x, scale, shift, mean), parts)


@_moments_shared.register_fake
@_pulls_shared.register_fake
def _(*inputs: Any) -> Tensor:
    *_, mean, parts = inputs
    empty: Tensor = mean.new_empty(parts, 2, len(mean))
    return empty


@torch.library.custom_op("glamkit::pixels_gradient", mutates_args=())
def _gradient_whole(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    if has_kernels(x.device):
        by_kernel: Tensor = kernels("batch_norm").gradient(grad, x, scale, shift, slope, offset)
        return by_kernel
    return _gradient(grad, x, scale, shift, slope, offset)


@_gradient_whole.register_fake
def _(_: Tensor, x: Tensor, *__: Tensor) -> Tensor:
    return torch.empty_like(x)


def in_parts(sums: Tensor, parts: int) -> Tensor:
    """Sums (2, C) as one of so many parts (parts, 2, C), of which the others are zero."""
    return F.pad(sums.unsqueeze(0), (0, 0, 0, 0, 0, parts - 1))


class _Outputs(torch.autograd.Function):
    """`_outputs`, with the gradient of the whole layer: mean and variance are the pictures' own."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, ctx.eps = inputs
        ctx.save_for_backward(*tensors)
        return _outputs(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad.contiguous(memory_format=torch.channels_last)
        x, weight, bias, mean, variance = ctx.saved_tensors
        return (*_gradients(grad, x, weight, bias, mean, variance, ctx.eps), None, None, None)


def _normalized(x: Tensor, weight: Tensor, bias: Tensor, pivot: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of the normalised pictures, their mean and variance (C,)."""
    mean, variance = _statistics(x, pivot)
    return _Outputs.apply(x, weight, bias, mean, variance, eps), mean, variance
