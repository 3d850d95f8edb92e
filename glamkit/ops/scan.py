"""The state space's two sums (Gu & Dao 2023, section 3.2).

    selective_scan  all outputs of a sequence, step after step; `scan_step` is one of its steps
    window_sum      the last output of a short window, with A diagonal and a zero state before it

On CUDA GPUs with Triton both are kernels of `triton.scan`. Elsewhere the scan is an operation with its own gradient,
which compilers do not unroll: rows go in slices that stay in a CPU's cache. Sums are taken in a fixed order.

Letters: N rows, T steps or P places of a window, I inner channels, S states of each channel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from glamkit.ops.device import float32, has_kernels, kernels, operation

Places = Tensor | tuple[Tensor, ...]  # something for each place of a window, stacked or not
LOG2_E = math.log2(math.e)
CACHED = 2**19  # float32 numbers in a slice of rows: 2 MB


def selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t and h before the first token zero.

    Inputs u and positive step sizes dt are (N, T, I), decays A (I, S), input and output gates B and C (N, T, S). The
    outputs (N, T, I) are differentiable in all of them, in deterministic order.
    """
    with float32(u):
        if by_kernels(u):  # the kernels want channels innermost: a compiler writes them so in the first place
            u, dt, B, C = (part.contiguous() for part in (u, dt, B, C))
        # An operation's first call loads torch's compiler, which takes 1.5 s; without gradients there is no need to.
        plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        return (_scan_here if plain else _scan)(u, dt, A, B, C)[0]


def window_sum(driven: Places, dt: Places, A: Tensor, B: Places, C: Tensor) -> Tensor:
    """The last of the scan's outputs over P places: sum_p driven_p (sum_n C_n B_pn exp(A_n sum_{q>p} dt_q)).

    `driven`, inputs times step sizes, and dt are P x (N, I), A (I, S), B is P x (N, S), and C (N, S) that of the last
    place. The output (N, I) is differentiable in all of them.
    """
    with float32(A):
        if by_kernels(A):
            driven, dt, B = (x if isinstance(x, Tensor) else torch.stack(x) for x in (driven, dt, B))
            return window(driven, dt, A, B, C)
        # Compilers fuse the formula as it stands, channels innermost, and nothing of it passes through memory. Powers
        # of two are what machines have exponentials of: to bring the base to e costs a sixth more.
        y, elapsed = driven[-1] * (C * B[-1]).sum(-1, keepdim=True), torch.zeros_like(C[:, :1])
        decays = transposed(A) * LOG2_E
        for place in reversed(range(len(driven) - 1)):
            elapsed = elapsed + dt[place + 1]
            reach = torch.exp2(elapsed.unsqueeze(1) * decays)
            y = y + driven[place] * (reach * (C * B[place]).unsqueeze(-1)).sum(1)
        return y


def scan_step(h: Tensor, driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """One step from states h (N, I, S), driven and dt (N, I), B and C (N, S): output (N, I) and the states after it."""
    with float32(h):
        # Laid out anew for compilers: rounded numbers would be read half a register at a time.
        B, C = transposed(B.T), transposed(C.T)
        h = torch.exp2(dt.unsqueeze(-1) * (A * LOG2_E)) * h + driven.unsqueeze(-1) * B.unsqueeze(-2)
        return (h * C.unsqueeze(-2)).sum(-1), h


def transposed(x: Tensor) -> Tensor:
    """x.T for x (I, S); laid out anew for compilers, which would otherwise read it a number at a time on CPUs."""
    return _transposed(x) if torch.compiler.is_compiling() and x.device.type == "cpu" else x.T


@torch.library.custom_op("glamkit::transposed", mutates_args=())
def _transposed(x: Tensor) -> Tensor:
    return x.T.clone(memory_format=torch.contiguous_format)


@_transposed.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[::-1])


_transposed.register_autograd(lambda _, grad: _transposed(grad))


def _slices(rows: int, size: int, device: torch.device) -> list[slice]:
    """Slices of the rows, of `size` numbers each, that fit a CPU's cache; all rows at once elsewhere."""
    step = max(1, CACHED // size) if device.type == "cpu" else rows
    return [slice(first, first + step) for first in range(0, rows, step)]


def by_kernels(x: Tensor) -> bool:
    """Whether Triton's kernels do the operations on x."""
    return has_kernels(x.device) and x.dtype == torch.float32


def _scan_here(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The scan, and of its states what its gradient needs: here all (N, T, I, S)."""
    if by_kernels(u):
        return kernels("scan").scan(u, dt, A, B, C)
    (count, steps, inner), driven = u.shape, dt * u
    y, states = u.new_empty(u.shape), u.new_empty(count, steps, *A.shape)
    for rows in _slices(count, steps * inner * A.shape[1], u.device):
        h, decays = states[rows], (dt[rows].unsqueeze(-1) * A).exp_()
        torch.mul(driven[rows].unsqueeze(-1), B[rows].unsqueeze(-2), out=h)
        for t in range(1, steps):
            h[:, t].addcmul_(decays[:, t], h[:, t - 1])
        y[rows] = decays.copy_(h).mul_(C[rows].unsqueeze(-2)).sum(-1)
    return y, states


_scan = torch.library.custom_op("glamkit::scan", _scan_here, mutates_args=())


@_scan.register_fake
def _(u: Tensor, _: Tensor, A: Tensor, *__: Tensor) -> tuple[Tensor, Tensor]:
    kept = kernels("scan").kept_shape(u, A) if by_kernels(u) else (*u.shape[:2], *A.shape)
    return u.new_empty(u.shape), u.new_empty(kept)


@torch.library.custom_op("glamkit::scan_backward", mutates_args=())
def _scan_backward(
    grad: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C: the same recurrence run backwards over the states' gradients."""
    if by_kernels(u):
        return kernels("scan").scan_backward(grad, u, dt, A, B, C, states)
    (count, steps, inner), driven = u.shape, dt * u
    du, ddt, dB, dC = (part.new_empty(part.shape) for part in (u, dt, B, C))
    dA = A.new_zeros(A.shape)
    for rows in _slices(count, steps * inner * A.shape[1], u.device):
        h, decays = states[rows], (dt[rows].unsqueeze(-1) * A).exp_()
        dh = grad[rows].unsqueeze(-1) * C[rows].unsqueeze(-2)
        for t in reversed(range(steps - 1)):
            dh[:, t].addcmul_(decays[:, t + 1], dh[:, t + 1])
        dC[rows] = (grad[rows].unsqueeze(-2) @ h).squeeze(-2)
        dB[rows] = (driven[rows].unsqueeze(-2) @ dh).squeeze(-2)
        ddriven = (dh * B[rows].unsqueeze(-2)).sum(-1)
        du[rows], ddt[rows] = dt[rows] * ddriven, u[rows] * ddriven
        exponent = dh[:, 1:].mul_(h[:, :-1]).mul_(decays[:, 1:])  # gradient of dt_t A; the first token has none
        ddt[rows, 1:] += torch.mul(exponent, A, out=decays[:, 1:]).sum(-1)
        dA += exponent.mul_(dt[rows, 1:].unsqueeze(-1)).sum((0, 1))
    return du, ddt, dA, dB, dC


@_scan_backward.register_fake
def _(_: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.new_empty(part.shape) for part in inputs[:5])


@operation("scan")
def window(driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`window_sum` by a kernel."""
    return driven.new_empty(driven.shape[1:])


@operation("scan")
def window_backward(
    grad: Tensor, driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of driven, dt, A, B, C; the exponentials are computed again."""
    return tuple(part.new_empty(part.shape) for part in (driven, dt, A, B, C))  # type: ignore[return-value]


def _differentiable(forward: Any, backward: Any) -> None:
    """Registers the gradient of one of the sums, from its inputs and what else it gives beside its first output."""

    def remember(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs, *(output[1:] if isinstance(output, tuple) else ()))

    def differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> Any:
        with float32(grad):
            return backward(grad.contiguous(), *ctx.saved_tensors)

    forward.register_autograd(differentiate, setup_context=remember)


_differentiable(_scan, _scan_backward)
_differentiable(window, window_backward)
