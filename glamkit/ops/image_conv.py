"""The two ends of the autoencoder on frames in bytes: no picture of floats is made, since GPUs wait for memory there.

    halved    the encoder's first convolution: kernels of 4 x 4 pixels in steps of 2, and maybe its ReLU
    errors    the decoder's last one with the squared error of its pictures, which are never written

Letters: N frames of `colours` x 2 H x 2 W pixels, 0 to 255; beside them pictures of C channels and H x W pixels.
Painted pictures are cut into blocks of 2 x 2 pixels about the corners of those H x W pixels, (H + 1) (W + 1) of them,
so that the outer ones hang over: a block's `4 (colours + 1)` outputs are linear in the up to four pixels around it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glamkit.ops.device import has_kernels, operation, precision

WIDEST = 32  # channels that the kernels' tiles are made for; more would not fit every GPU's shared memory


def supported(frames: Tensor, weight: Tensor) -> bool:
    """Whether the kernels are for these frames, and weights that map them to channels or channels to them."""
    if not has_kernels(frames.device) or frames.dtype != torch.uint8 or max(weight.shape[:2]) > WIDEST:
        return False
    _, colours, height, width = frames.shape
    fitting = colours == 3 and height % 2 == 0 and width % 4 == 0  # pixels are read four at a time
    return fitting and precision(weight) in (torch.bfloat16, torch.float16)


@operation("image_conv")
def halved(frames: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    """Frames / 255 convolved with weights (C, colours, 4, 4): (N, C, H, W); with a bias its ReLU, without gradient."""
    shape = frames.shape[0], weight.shape[0], frames.shape[2] // 2, frames.shape[3] // 2
    return torch.empty(shape, dtype=kind, device=frames.device, memory_format=torch.channels_last)


@operation("image_conv")
def halved_gradient(frames: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `halved` by its weights, (C, colours, 4, 4) float32, from that by its outputs."""
    return grad.new_empty((grad.shape[1], frames.shape[1], 4, 4), dtype=torch.float32)


def _remember_halved(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    frames, weight, bias, _ = inputs
    assert bias is None, "with a bias there is no gradient"
    ctx.save_for_backward(frames)
    ctx.dtype = weight.dtype


def _differentiate_halved(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (frames,) = ctx.saved_tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    return None, halved_gradient(frames, grad).to(ctx.dtype), None, None


halved.register_autograd(_differentiate_halved, setup_context=_remember_halved)


@operation("image_conv")
def errors(x: Tensor, taps: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors (N,) float32 of pictures painted from x (N, C, H, W), channels innermost, against frames / 255.

    Taps (4 C + 1, outputs) say how a block's outputs depend on the four pixels around it, row by row; a bias is last.
    For the gradient also painted less real pixels (N, blocks, outputs) in x's dtype, zero outside of pictures.
    """
    count, _, height, width = x.shape
    sums = x.new_empty(count, dtype=torch.float32)
    return sums, x.new_empty(count, (height + 1) * (width + 1), taps.shape[1])


@operation("image_conv")
def errors_gradients(grad: Tensor, x: Tensor, taps: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and, in float32, of taps, from that by the sums (N,) and from the differences."""
    return torch.empty_like(x, memory_format=torch.channels_last), taps.new_empty(taps.shape, dtype=torch.float32)


def _remember_errors(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    x, taps, _ = inputs
    ctx.save_for_backward(x, taps, output[1])


def _differentiate_errors(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, taps, differences = ctx.saved_tensors
    of_x, of_taps = errors_gradients(grad.contiguous(), x, taps, differences)
    return of_x, of_taps.to(taps.dtype), None


errors.register_autograd(_differentiate_errors, setup_context=_remember_errors)
