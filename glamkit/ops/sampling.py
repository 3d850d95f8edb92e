"""Codes and actions that imagination chooses, and what reads them first, each in one kernel for GPUs.

    tokens     a token's first layer: the columns of its weights that codes and action pick, added up and normalised
    states     a latent drawn from the prior's logits, and the hidden state behind it
    actions    the policy from its last hidden layer on: normalised, multiplied and drawn from

Written out these are a dozen kernels of an imagined step, of which most take as long to start as they do. The numbers
are those of the formulas, tokens in all of float32's digits. Random ones are drawn as `functional.sample_categorical`
draws them. There are no gradients. The operations are the kernels of `triton.sampling`.

Letters as in `world_model`; W units of the last hidden layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glamkit.ops.precision import precision
from glamkit.ops.scan import has_kernels, kernels

MOST = 2**14  # numbers of a row or a layer that a program keeps in registers


def supported(x: Tensor, size: int) -> bool:
    """Whether that is for x, and as many numbers at a time: where kernels are, and nobody wants gradients."""
    return has_kernels(x.device) and not torch.is_grad_enabled() and size <= MOST


def tokens(stem: nn.Sequential, latents: Tensor, actions: Tensor, classes: int) -> Tensor:
    """The stem's tokens (..., D) of latents (..., Z), with so many classes each, and actions (...).

    Latents need not be one-hot, but if they are not, it takes long.
    """
    first, norm, _, last = stem
    assert isinstance(first, nn.Linear) and isinstance(norm, nn.LayerNorm)
    read = _tokens(latents, actions, first.weight, norm.weight, norm.bias, classes, norm.eps)
    return last(read)


def states(logits: Tensor, hidden: Tensor, shape: tuple[int, int], share: float) -> Tensor:
    """States [z, h] (..., Z + D) whose latents are drawn from the prior of hidden states (..., D).

    The prior is that of logits (..., K * C), `shape` its K and C, `share` what is mixed in of uniform.

    They are rounded as all products that read them would do.
    """
    variables, classes = shape
    uniform = torch.rand(*hidden.shape[:-1], variables, 1, device=hidden.device)
    return _states(logits, uniform, hidden, classes, share, precision(hidden))


def actions(actor: nn.Sequential, x: Tensor) -> Tensor:
    """Actions (...) drawn from the actor's policy at states (..., Z + D)."""
    *layers, norm, _, last = actor
    assert isinstance(norm, nn.LayerNorm) and isinstance(last, nn.Linear)
    for layer in layers:
        x = layer(x)
    uniform = torch.rand(*x.shape[:-1], 1, device=x.device)
    return _actions(x, uniform, norm.weight, norm.bias, last.weight, last.bias, norm.eps)


# As operations of torch: without gradients, and compilers do not look into them ---------------------------------------


@torch.library.custom_op("glamkit::choice_tokens", mutates_args=())
def _tokens(
    latents: Tensor, actions: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, classes: int, eps: float
) -> Tensor:
    """ReLU of the LayerNorm (scale, shift) of a product with weight (D, Z + A), in float32: (..., D)."""
    return kernels("sampling").tokens(latents, actions, weight, scale, shift, classes, eps)


@_tokens.register_fake
def _(latents: Tensor, _: Tensor, weight: Tensor, *__: object) -> Tensor:
    return weight.new_empty(*latents.shape[:-1], len(weight))


@torch.library.custom_op("glamkit::choice_states", mutates_args=())
def _states(logits: Tensor, uniform: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:
    """From logits (..., K * C), uniform numbers (..., K, 1) and hidden states (..., D): (..., K * C + D)."""
    return kernels("sampling").states(logits, uniform, hidden, classes, share, dtype)


@_states.register_fake
def _(logits: Tensor, _: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    size = logits.shape[-1] + hidden.shape[-1]
    return hidden.new_empty(*hidden.shape[:-1], size, dtype=dtype)


@torch.library.custom_op("glamkit::choice_actions", mutates_args=())
def _actions(
    x: Tensor, uniform: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """From products x (..., W), uniform numbers (..., 1) and a layer's weight (A, W) and bias: (...), int64.

    Its product is computed in the kind of numbers of x.
    """
    return kernels("sampling").actions(x, uniform, scale, shift, weight, bias, eps)


@_actions.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.long)
