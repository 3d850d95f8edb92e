"""What the operations for GPUs compute, in torch's own operations: importing this lets CPUs run them too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from glamkit.ops import image_conv, imagination, norms
from glamkit.ops.device import float32
from glamkit.ops.functional import picked, unimix
from glamkit.ops.scan import LOG2_E, window_sum
from glamkit.training.accelerate import windows

# BatchNorm's passes over pixels (N, P, C) -----------------------------------------------------------------------------


def moments(x: Tensor, pivot: Tensor) -> Tensor:
    """Sums of differences from a pivot (C,) and of their squares: (2, C)."""
    away = x.float() - pivot
    return torch.stack((away.sum(1), away.square().sum(1))).sum(1)


def through(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The gradient that ReLU lets through."""
    return torch.where(x.float() * scale + shift > 0, grad.float(), 0.0)


def pulls(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Sums of the gradients, and of their products with differences from the mean: (2, C)."""
    grad = through(grad, x, scale, shift)
    return torch.stack((grad.sum(1), (grad * (x.float() - mean)).sum(1))).sum(1)


def in_parts(sums: Tensor, parts: int) -> Tensor:
    """Sums (2, C) as one of so many parts (parts, 2, C), of which the others are zero."""
    return F.pad(sums.unsqueeze(0), (0, 0, 0, 0, 0, parts - 1))


norms.moments.register_kernel("cpu")(lambda *inputs: in_parts(moments(*inputs[:-1]), inputs[-1]))
norms.pulls.register_kernel("cpu")(lambda *inputs: in_parts(pulls(*inputs[:-1]), inputs[-1]))


@norms.gradient.register_kernel("cpu")
def gradient(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return (through(grad, x, scale, shift) * scale + x.float() * slope + offset).to(x.dtype)


# LayerNorm ------------------------------------------------------------------------------------------------------------


@norms.rectified_gradient.register_kernel("cpu")
def rectified_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, parts: int
) -> tuple[Tensor, Tensor]:
    wide, width = x.to(weight.dtype), x.shape[-1:]
    y, mean, inverse = torch.native_layer_norm(wide, width, weight, bias, eps)
    gradient = torch.where(y > 0, grad.to(weight.dtype), 0.0)
    backward = torch.ops.aten.native_layer_norm_backward
    of_x, *others = backward(gradient, wide, width, mean, inverse, weight, bias, [True, True, True])
    return of_x.to(x.dtype), in_parts(torch.stack(others), parts)


# Convolutions of frames -----------------------------------------------------------------------------------------------


@image_conv.halved.register_kernel("cpu")
def halved(frames: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    y = F.conv2d(frames.to(weight.dtype) / 255, weight, bias, stride=2, padding=1)
    y = y if bias is None else y.relu_()
    return y.to(kind).contiguous(memory_format=torch.channels_last)


@image_conv.halved_gradient.register_kernel("cpu")
def halved_gradient(frames: Tensor, grad: Tensor) -> Tensor:
    shape = grad.shape[1], frames.shape[1], 4, 4
    return conv2d_weight(frames.float() / 255, shape, grad.float(), stride=2, padding=1)


def as_convolution(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Taps as kernels (outputs, C, 2, 2) and bias (outputs,) of a convolution."""
    return taps[:-1].unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1), taps[-1]


@image_conv.errors.register_kernel("cpu")
def errors(x: Tensor, taps: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    y = F.conv2d(x.to(taps.dtype), *as_convolution(taps), padding=1)
    real, inside = (
        F.pixel_unshuffle(F.pad(part, (1, 1, 1, 1, 0, 1)), 2).to(y.dtype)
        for part in (frames, torch.ones_like(frames[:1]))
    )
    differences = y * inside - real / 255
    kept = differences.flatten(2).transpose(1, 2).contiguous().to(x.dtype)
    return differences.square().sum((1, 2, 3)).float(), kept


@image_conv.errors_gradients.register_kernel("cpu")
def errors_gradients(grad: Tensor, x: Tensor, taps: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    kernel, _ = as_convolution(taps)
    pull = (2 * grad.view(-1, 1, 1) * differences).to(taps.dtype).transpose(1, 2)
    pull = pull.unflatten(2, (x.shape[2] + 1, x.shape[3] + 1))
    of_x = F.conv_transpose2d(pull, kernel, padding=1).to(x.dtype).contiguous(memory_format=torch.channels_last)
    of_kernel = conv2d_weight(x.to(taps.dtype), kernel.shape, pull, padding=1)
    of_taps = torch.cat([of_kernel.permute(2, 3, 1, 0).flatten(0, 2), pull.sum((0, 2, 3)).unsqueeze(0)])
    return of_x, of_taps.float()


# Windows of both modules ----------------------------------------------------------------------------------------------


@imagination.convolved.register_kernel("cpu")
def convolved(entries: Sequence[Tensor], sizes: Sequence[int], taps: Tensor) -> Tensor:
    conv, inner = taps.shape[1] - 1, taps.shape[2]
    blocks = []
    for part, size in enumerate(sizes):
        inputs = [entry[part, :, :inner] for entry in entries[-size:]]
        new = [*range(min(size, conv) - 1), size - 1]
        blocks.append(windows.convolved(inputs, taps[part, :-1], taps[part, -1], new))
    return torch.stack(blocks).to(entries[0].dtype)


@imagination.summed.register_kernel("cpu")
def summed(
    us: Sequence[Tensor], selected: Sequence[Tensor], sizes: Sequence[int], last: Tensor, steps: Tensor, decays: Tensor
) -> Tensor:
    states, rank, first = decays.shape[1] - 1, steps.shape[1] - 1, 0
    y = last.new_empty(len(sizes), *us[0].shape)
    for part, size in enumerate(sizes):
        u, read = (torch.stack(list(parts[first : first + size])) for parts in (us, selected))
        u, read = u.to(steps.dtype), read.to(steps.dtype)
        time, B, C = read.split([rank, states, states], -1)
        dt = F.softplus(time @ steps[part, :-1] + steps[part, -1])
        sums = window_sum(dt * u, dt, decays[part, :-1].T / LOG2_E, B, C[-1])
        y[part] = (sums + u[-1] * decays[part, -1]) * F.silu(last[part].chunk(2, -1)[1].to(steps.dtype))
        first += size
    return y


# What imagination chooses ---------------------------------------------------------------------------------------------


@imagination.tokens.register_kernel("cpu")
def tokens(
    latents: Tensor, actions: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, classes: int, eps: float
) -> Tensor:
    del classes
    with float32(weight):
        others = F.one_hot(actions, weight.shape[1] - latents.shape[-1])
        x = torch.cat([latents.to(weight.dtype), others.to(weight.dtype)], -1)
        return F.relu(F.layer_norm(F.linear(x, weight), scale.shape, scale, shift, eps))


@imagination.states.register_kernel("cpu")
def states(logits: Tensor, uniform: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:
    prior = unimix(logits.to(hidden.dtype).unflatten(-1, (-1, classes)), share)
    codes = F.one_hot(picked(prior, uniform), classes).flatten(-2)
    return torch.cat([codes.to(dtype), hidden.to(dtype)], -1)


@imagination.actions.register_kernel("cpu")
def actions(
    x: Tensor, uniform: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    with float32(x):
        normed = F.relu(F.layer_norm(x.to(scale.dtype), scale.shape, scale, shift, eps))
        logits = F.linear(normed.to(x.dtype), weight.to(x.dtype), bias.to(x.dtype))
        return picked(F.log_softmax(logits.to(scale.dtype), -1), uniform)
