"""The two ends of the autoencoder as operations on frames themselves: bytes go in, and no picture of floats is made.

    halved, halved_relu    the encoder's first convolution: kernels of 4 x 4 pixels in steps of 2
    errors                 the decoder's last one with the squared error of its pictures, which are never written

Three channels leave GPUs waiting for memory: what counts is how often pixels pass through it, and in how many bytes.
Where Triton is, these are the kernels of `triton.image_conv`, which multiply in 16 bits; what stands here is the same
in torch's own operations, for the rest to be tried on CPUs.

Letters: N frames of `colours` x 2 H x 2 W pixels, 0 to 255; beside them pictures of C channels and H x W pixels.
Painted pictures are cut into blocks of 2 x 2 pixels about the corners of those H x W pixels, (H + 1) (W + 1) of them,
so that the outer ones hang over: a block's `4 (colours + 1)` outputs are linear in the up to four pixels around it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from glamkit.ops.precision import precision
from glamkit.ops.scan import has_kernels, kernels

WIDEST = 32  # channels that the kernels' tiles are made for; more would not fit every GPU's shared memory


def supported(frames: Tensor, weight: Tensor) -> bool:
    """Whether the kernels are for these frames, and weights that map them to channels or channels to them."""
    if not has_kernels(frames.device) or frames.dtype != torch.uint8 or max(weight.shape[:2]) > WIDEST:
        return False
    _, colours, height, width = frames.shape
    fitting = colours == 3 and height % 2 == 0 and width % 4 == 0  # pixels are read four at a time
    return fitting and precision(weight) in (torch.bfloat16, torch.float16)


# From frames to channels ----------------------------------------------------------------------------------------------


@torch.library.custom_op("glamkit::picture_halved", mutates_args=())
def halved(frames: Tensor, weight: Tensor, kind: torch.dtype) -> Tensor:
    """The convolution of frames / 255 with weights (C, colours, 4, 4): (N, C, H, W) of some dtype."""
    if has_kernels(frames.device):
        y: Tensor = kernels("image_conv").halved(frames, weight, None, kind)
        return y
    y = F.conv2d(frames.to(weight.dtype) / 255, weight, stride=2, padding=1)
    return y.to(kind).contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("glamkit::picture_halved_relu", mutates_args=())
def halved_relu(frames: Tensor, weight: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
    """ReLU of `halved` plus a bias (C,), without gradients."""
    if has_kernels(frames.device):
        y: Tensor = kernels("image_conv").halved(frames, weight, bias, kind)
        return y
    y = F.conv2d(frames.to(weight.dtype) / 255, weight, bias, stride=2, padding=1).relu_()
    return y.to(kind).contiguous(memory_format=torch.channels_last)


@halved.register_fake
@halved_relu.register_fake
def _(frames: Tensor, weight: Tensor, *others: Any) -> Tensor:
    shape = frames.shape[0], weight.shape[0], frames.shape[2] // 2, frames.shape[3] // 2
    return torch.empty(shape, dtype=others[-1], device=frames.device, memory_format=torch.channels_last)


@torch.library.custom_op("glamkit::picture_halved_gradient", mutates_args=())
def halved_gradient(frames: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `halved` by its weights, (C, colours, 4, 4) float32, from that by its outputs."""
    if has_kernels(frames.device):
        of_weight: Tensor = kernels("image_conv").halved_gradient(frames, grad)
        return of_weight
    shape = grad.shape[1], frames.shape[1], 4, 4
    return conv2d_weight(frames.float() / 255, shape, grad.float(), stride=2, padding=1)


@halved_gradient.register_fake
def _(frames: Tensor, grad: Tensor) -> Tensor:
    return grad.new_empty((grad.shape[1], frames.shape[1], 4, 4), dtype=torch.float32)


def _remember_halved(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    frames, weight, _ = inputs
    ctx.save_for_backward(frames)
    ctx.dtype = weight.dtype


def _differentiate_halved(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (frames,) = ctx.saved_tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    return None, halved_gradient(frames, grad).to(ctx.dtype), None


halved.register_autograd(_differentiate_halved, setup_context=_remember_halved)


# From channels to errors ----------------------------------------------------------------------------------------------


@torch.library.custom_op("glamkit::picture_errors", mutates_args=())
def errors(x: Tensor, taps: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors of the pictures painted from x, (N,) float32, and the errors for the gradient.

    Args:
        x: (N, C, H, W), channels innermost.
        taps: (4 C + 1, outputs), how a block's outputs depend on the four pixels around it, row by row, and a bias.
        frames: what was to be painted, / 255.

    Returns:
        The sums, and painted less real pixels (N, blocks, outputs) in x's dtype, zero outside of pictures.
    """
    if has_kernels(x.device):
        sums, differences = kernels("image_conv").errors(x, taps, frames)
        return sums, differences
    y = F.conv2d(x.to(taps.dtype), *_as_convolution(taps), padding=1)
    real, inside = (
        F.pixel_unshuffle(F.pad(part, (1, 1, 1, 1, 0, 1)), 2).to(y.dtype)
        for part in (frames, torch.ones_like(frames[:1]))
    )
    differences = y * inside - real / 255
    kept = differences.flatten(2).transpose(1, 2).contiguous().to(x.dtype)
    return differences.square().sum((1, 2, 3)).float(), kept


@errors.register_fake
def _(x: Tensor, taps: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    count, _channels, height, width = x.shape
    sums = x.new_empty(count, dtype=torch.float32)
    return sums, x.new_empty(count, (height + 1) * (width + 1), taps.shape[1])


@torch.library.custom_op("glamkit::picture_errors_gradients", mutates_args=())
def errors_gradients(grad: Tensor, x: Tensor, taps: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and, in float32, of taps, from that by the sums (N,) and from the differences."""
    if has_kernels(x.device):
        by, inputs = kernels("image_conv"), (grad, x, taps, differences)
        return by.inputs_gradient(*inputs), by.taps_gradient(*inputs)
    kernel, _ = _as_convolution(taps)
    pull = (2 * grad.view(-1, 1, 1) * differences).to(taps.dtype).transpose(1, 2)
    pull = pull.unflatten(2, (x.shape[2] + 1, x.shape[3] + 1))
    of_x = F.conv_transpose2d(pull, kernel, padding=1).to(x.dtype).contiguous(memory_format=torch.channels_last)
    of_kernel = conv2d_weight(x.to(taps.dtype), kernel.shape, pull, padding=1)
    of_taps = torch.cat([of_kernel.permute(2, 3, 1, 0).flatten(0, 2), pull.sum((0, 2, 3)).unsqueeze(0)])
    return of_x, of_taps.float()


@errors_gradients.register_fake
def _(_: Tensor, x: Tensor, taps: Tensor, __: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.channels_last), taps.new_empty(taps.shape, dtype=torch.float32)


def _as_convolution(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Taps as kernels (outputs, C, 2, 2) and bias (outputs,) of a convolution."""
    return taps[:-1].unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1), taps[-1]


def _remember_errors(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    x, taps, _ = inputs
    ctx.save_for_backward(x, taps, output[1])


def _differentiate_errors(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, taps, differences = ctx.saved_tensors
    of_x, of_taps = errors_gradients(grad.contiguous(), x, taps, differences)
    return of_x, of_taps.to(taps.dtype), None


errors.register_autograd(_differentiate_errors, setup_context=_remember_errors)
