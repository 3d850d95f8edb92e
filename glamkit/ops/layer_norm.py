"""LayerNorm and ReLU in one, whose gradient is a single pass over memory where things are compiled for GPUs.

A compiler that is shown torch's own layers makes three passes of it, and a fourth for the parameters. Here the rows
are in registers once: what the gradient needs of the forward pass is found again from the inputs.

Letters: M rows of W features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.ops.scan import has_kernels, kernels

PARTS = 1056  # in which a GPU sums up the parameters' gradients: as many programs as keep the memory busy


def rectified(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """ReLU of a LayerNorm of x (..., W), for layers to come: where that is faster in x's 16 bits, as they read it."""
    return _Rectified.apply(x, norm.weight, norm.bias, norm.eps) if supported(x) else F.relu(norm(x))


def supported(x: Tensor) -> bool:
    """Whether training on x is faster so: compiled, on GPUs, with numbers of 16 bits."""
    trained = torch.compiler.is_compiling() and torch.is_grad_enabled()
    return trained and has_kernels(x.device) and x.dtype.itemsize == 2


class _Rectified(torch.autograd.Function):
    """Compilers see how outputs are made; the gradient is an operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.eps = eps
        return F.relu(F.layer_norm(x.float(), weight.shape, weight, bias, eps)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        of_x, parts = _gradient(grad.flatten(0, -2), x.flatten(0, -2), weight, bias, ctx.eps, PARTS)
        of_weight, of_bias = parts.sum(0)
        return of_x.view(x.shape), of_weight, of_bias, None


@torch.library.custom_op("glamkit::rectified_gradient", mutates_args=())
def _gradient(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, parts: int) -> tuple[Tensor, Tensor]:
    """Gradients of x (M, W), and of weight and bias in parts (parts, 2, W) that are to be added up."""
    return kernels("batch_norm").rectified_gradient(grad, x, weight, bias, eps, parts)


@_gradient.register_fake
def _(_: Tensor, x: Tensor, weight: Tensor, __: Tensor, ___: float, parts: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), weight.new_empty(parts, 2, len(weight))
