# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What imagination chooses as Triton kernels for CUDA GPUs: a row at a time, which stays in registers.

Masked numbers are loaded as zeros and never stored; masked classes and actions have no probability.
Letters as in `imagination`. Names that end in `_at` are addresses; what is padded is to a power of two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glamkit.ops.triton.scan import jit, launch, tl, triton

TOKENS_WARPS, STATES_WARPS, ACTIONS_WARPS = 2, 4, 2


def tokens(
    latents: Tensor, actions: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, classes: int, eps: float
) -> Tensor:
    """`imagination.tokens`, from a copy of the weight by columns."""
    (*shape, latent), width = latents.shape, len(weight)
    latents, actions, columns = latents.reshape(-1, latent), actions.contiguous(), weight.T.contiguous()
    latents = latents if latents.stride(1) == 1 else latents.contiguous()
    y, variables = weight.new_empty(*shape, width), latent // classes
    given, sizes = (latents, actions, columns, scale, shift, y, latents.stride(0), eps), (variables, classes, width)
    launch(_token, (len(latents),), *given, *sizes, *_padded(*sizes), num_warps=TOKENS_WARPS)
    return y


def states(logits: Tensor, uniform: Tensor, hidden: Tensor, classes: int, share: float, dtype: torch.dtype) -> Tensor:
    """`imagination.states`."""
    logits, uniform, hidden = (part.contiguous() for part in (logits, uniform, hidden))
    (*shape, latent), width = logits.shape, hidden.shape[-1]
    y, variables = hidden.new_empty(*shape, latent + width, dtype=dtype), latent // classes
    rows, sizes = hidden.shape[:-1].numel(), (variables, classes, width)
    launch(_state, (rows,), logits, uniform, hidden, y, share, *sizes, *_padded(*sizes), num_warps=STATES_WARPS)
    return y


def actions(
    x: Tensor, uniform: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """`imagination.actions`."""
    x, uniform, weight = (part.contiguous() for part in (x, uniform, weight))
    y = x.new_empty(x.shape[:-1], dtype=torch.long)
    given, sizes = (x, uniform, scale, shift, weight, bias, y, eps), (*weight.shape, *_padded(*weight.shape))
    launch(_act, (y.numel(),), *given, *sizes, num_warps=ACTIONS_WARPS)
    return y


def _padded(*sizes: int) -> list[int]:
    return [triton.next_power_of_2(size) for size in sizes]


@jit
def _token(
    latents_at, actions_at, columns_at, scale_at, shift_at, y_at, stride, eps,
    K: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    PADDED_K: tl.constexpr, PADDED_C: tl.constexpr, PADDED_D: tl.constexpr,
):  # fmt: skip
    """One row; `stride` is from one to the next."""
    row, channel = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED_D)
    variable, kind = tl.arange(0, PADDED_K), tl.arange(0, PADDED_C)
    real, inside = variable < K, channel < D
    there = real[:, None] & (kind < C)[None, :]
    latents_at += row * stride
    codes = tl.load(latents_at + variable[:, None] * C + kind[None, :], there, 0.0).to(tl.float32)
    picked = tl.sum(codes * kind[None, :], 1).to(tl.int32)
    odd = there & (codes != tl.where(kind[None, :] == picked[:, None], 1.0, 0.0))
    y = tl.load(columns_at + (K * C + tl.load(actions_at + row)) * D + channel, inside, 0.0)
    if tl.sum(tl.sum(odd.to(tl.int32), 1), 0) == 0:
        at = (variable * C + picked)[:, None] * D + channel[None, :]
        y += tl.sum(tl.load(columns_at + at, real[:, None] & inside[None, :], 0.0), 0)
    else:  # not one-hot: a product
        for column in range(K * C):
            code = tl.load(latents_at + column).to(tl.float32)
            y += code * tl.load(columns_at + column * D + channel, inside, 0.0)
    tl.store(y_at + row * D + channel, _normed(y, inside, channel, scale_at, shift_at, eps, D), inside)


@jit
def _state(
    logits_at, uniform_at, hidden_at, y_at, share,
    K: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    PADDED_K: tl.constexpr, PADDED_C: tl.constexpr, PADDED_D: tl.constexpr,
):  # fmt: skip
    """One row."""
    row, channel = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED_D)
    variable, kind = tl.arange(0, PADDED_K), tl.arange(0, PADDED_C)
    real, inside = variable < K, channel < D
    tile, there = variable[:, None] * C + kind[None, :], real[:, None] & (kind < C)[None, :]
    hidden = tl.load(hidden_at + row * D + channel, inside, 0.0)
    uniform = tl.load(uniform_at + row * K + variable, real, 0.0)
    logits = tl.load(logits_at + row * K * C + tile, there, 0.0).to(tl.float32)
    logits = tl.where((kind < C)[None, :], logits, float("-inf"))
    chances = tl.exp(logits - tl.max(logits, 1)[:, None])
    chances = chances / tl.sum(chances, 1)[:, None] * (1 - share) + share / C
    chances = tl.where((kind < C)[None, :], chances, 0.0)
    draw = uniform * tl.sum(chances, 1)
    picked = tl.minimum(tl.sum((tl.cumsum(chances, 1) <= draw[:, None]).to(tl.int32), 1), C - 1)
    codes = tl.where(kind[None, :] == picked[:, None], 1.0, 0.0)
    y_at += row * (K * C + D)
    tl.store(y_at + tile, codes.to(y_at.dtype.element_ty), there)
    tl.store(y_at + K * C + channel, hidden.to(y_at.dtype.element_ty), inside)


@jit
def _act(
    x_at, uniform_at, scale_at, shift_at, weight_at, bias_at, y_at, eps,
    A: tl.constexpr, W: tl.constexpr, PADDED_A: tl.constexpr, PADDED_W: tl.constexpr,
):  # fmt: skip
    """One row. Numbers are rounded where autocast rounds them: what a product reads, and what it gives."""
    kind: tl.constexpr = x_at.dtype.element_ty
    row, action, unit = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED_A), tl.arange(0, PADDED_W)
    real, inside = action < A, unit < W
    at, there = action[:, None] * W + unit[None, :], real[:, None] & inside[None, :]
    weight = tl.load(weight_at + at, there, 0.0).to(kind).to(tl.float32)
    bias = tl.load(bias_at + action, real, 0.0).to(kind).to(tl.float32)
    x = tl.load(x_at + row * W + unit, inside, 0.0).to(tl.float32)
    x = _normed(x, inside, unit, scale_at, shift_at, eps, W).to(kind).to(tl.float32)
    logits = (tl.sum(weight * x[None, :], 1) + bias).to(kind).to(tl.float32)
    logits = tl.where(real, logits, float("-inf"))
    chances = tl.exp(logits - tl.max(logits, 0))
    draw = tl.load(uniform_at + row) * tl.sum(chances, 0)
    picked = tl.sum((tl.cumsum(chances, 0) <= draw).to(tl.int32), 0)
    tl.store(y_at + row, tl.minimum(picked, A - 1).to(tl.int64))


@jit
def _normed(x, inside, place, scale_at, shift_at, eps, SIZE: tl.constexpr):
    """ReLU of the LayerNorm of x, which is zero beyond its `SIZE` numbers."""
    away = tl.where(inside, x - tl.sum(x, 0) / SIZE, 0.0)
    away *= tl.rsqrt(tl.sum(away * away, 0) / SIZE + eps)
    return tl.maximum(away * tl.load(scale_at + place, inside, 0.0) + tl.load(shift_at + place, inside, 0.0), 0.0)
