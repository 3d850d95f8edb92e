# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The two sums of `scan` as Triton kernels for CUDA GPUs: a state stays in registers from its first step to its last.

A warp has a row, or some rows of windows, and a block of channels. Time is cut into chunks: the scan keeps the states
before each, and its gradient computes those inside again. A chunk's loads come before its sums, so that they are on
their way together. Parts of sums are added up by torch: no atomic additions, so the same inputs give the same bits.

Masked steps, channels and states are loaded as zeros, which change nothing. Exponentials are taken to the base 2.

Letters: N rows, T steps or P places, I inner channels, S states. Names that end in `_at` are addresses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:  # this module can be read anywhere
    triton = tl = None

    def jit(kernel: Any) -> Any:
        """Leaves a kernel as it is."""
        return kernel


def launch(kernel: Any, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
    """Starts a grid of a kernel's programs on the device of the first tensor that it is given."""
    with torch.cuda.device_of(next(part for part in given if isinstance(part, Tensor))):
        kernel[grid](*given, **constants)


CHUNK = 4  # steps between two kept states of the scan


class Tiles(NamedTuple):
    """How a sum is cut into programs: `channels` and `rows` of each, its warps, and a bound on a thread's registers."""

    channels: int
    rows: int = 1
    warps: int = 1
    registers: int | None = None


SCAN, SCAN_BACKWARD = Tiles(16), Tiles(16, registers=168)
WINDOW, WINDOW_BACKWARD = Tiles(32, 8), Tiles(32, 16)


def scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """`scan.selective_scan`, float32: outputs (N, T, I), and the states before each chunk (N, chunks, I, S)."""
    u, dt, A, B, C = (part.contiguous() for part in (u, dt, A, B, C))
    (count, steps, inner), states = u.shape, A.shape[1]
    y, kept = torch.empty_like(u), u.new_empty(kept_shape(u, A))
    grid, constants = (count, triton.cdiv(inner, SCAN.channels)), _constants(states, SCAN)
    launch(_scan_forward, grid, u, dt, A, B, C, y, kept, steps, inner, CHUNK=CHUNK, **constants)
    return y, kept


def scan_backward(
    grad: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C, of their shapes, from `grad` (N, T, I) and what `scan` kept."""
    grad, u, dt, A, B, C = (part.contiguous() for part in (grad, u, dt, A, B, C))
    (count, steps, inner), states = u.shape, A.shape[1]
    blocks = triton.cdiv(inner, SCAN_BACKWARD.channels)
    du, ddt, dA = torch.empty_like(u), torch.empty_like(dt), u.new_empty(count, inner, states)
    dB, dC = (u.new_empty(count, blocks, steps, states) for _ in range(2))
    given, constants = (grad, u, dt, A, B, C, kept, du, ddt, dA, dB, dC), _constants(states, SCAN_BACKWARD)
    launch(_scan_backward, (count, blocks), *given, steps, inner, CHUNK=CHUNK, **constants)
    return du, ddt, dA.sum(0), dB.sum(1), dC.sum(1)


def window(driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`scan.window_sum`, float32: (N, I)."""
    inputs = tuple(part.contiguous().unbind() for part in (driven, dt, B))
    (places, count, inner), states = driven.shape, A.shape[1]
    y = A.new_empty(count, inner)
    grid = triton.cdiv(count, WINDOW.rows), triton.cdiv(inner, WINDOW.channels)
    constants = {**_constants(states, WINDOW), "PLACES": places, "ROWS": WINDOW.rows}
    launch(_window_forward, grid, *inputs, A.contiguous(), C.contiguous(), y, count, inner, **constants)
    return y


def window_backward(
    grad: Tensor, driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of driven, dt, A, B, C, of their shapes, from `grad` (N, I)."""
    grad, driven, dt, A, B, C = (part.contiguous() for part in (grad, driven, dt, A, B, C))
    (places, count, inner), states = driven.shape, A.shape[1]
    groups, blocks = triton.cdiv(count, WINDOW_BACKWARD.rows), triton.cdiv(inner, WINDOW_BACKWARD.channels)
    ddriven, ddt, dA = torch.empty_like(driven), torch.empty_like(dt), grad.new_empty(groups, inner, states)
    dgates = grad.new_empty(blocks, places, count, states)  # of the products B_p C, all that is known of either
    given = grad, driven, dt, A, B, C, ddriven, ddt, dA, dgates, count, inner
    constants = {**_constants(states, WINDOW_BACKWARD), "PLACES": places, "ROWS": WINDOW_BACKWARD.rows}
    launch(_window_backward, (groups, blocks), *given, **constants)
    dgates = dgates.sum(0)
    return ddriven, ddt, dA.sum(0), dgates * C, (dgates * B).sum(0)


def kept_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """The shape of what `scan` keeps."""
    return u.shape[0], -(-u.shape[1] // CHUNK), *A.shape


def _constants(states: int, cut: Tiles) -> dict[str, int | None]:
    """What a kernel is compiled for."""
    shape = {"S": states, "PADDED": triton.next_power_of_2(states), "BLOCK": cut.channels}
    return {**shape, "num_warps": cut.warps, "maxnreg": cut.registers}


@jit
def _scan_forward(
    u_at, dt_at, A_at, B_at, C_at, y_at, kept_at, T, I,  # noqa: E741
    S: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One row and `BLOCK` channels: y, and the states before each chunk."""
    row = tl.program_id(0).to(tl.int64)
    channel, state = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = channel < I, state < S
    tile, there = channel[:, None] * S + state[None, :], inside[:, None] & real[None, :]
    u_at, dt_at, y_at = u_at + row * T * I, dt_at + row * T * I, y_at + row * T * I
    B_at, C_at, kept_at = B_at + row * T * S, C_at + row * T * S, kept_at + row * tl.cdiv(T, CHUNK) * I * S
    A = tl.load(A_at + tile, there, 0.0) * 1.4426950408889634  # log2(e)
    h = tl.zeros((BLOCK, PADDED), tl.float32)
    for first in range(0, T, CHUNK):
        us, dts, Bs, Cs = (), (), (), ()
        for step in tl.static_range(CHUNK):
            wide, narrow, now = (first + step) * I + channel, (first + step) * S + state, first + step < T
            us += (tl.load(u_at + wide, inside & now, 0.0),)
            dts += (tl.load(dt_at + wide, inside & now, 0.0),)
            Bs += (tl.load(B_at + narrow, real & now, 0.0),)
            Cs += (tl.load(C_at + narrow, real & now, 0.0),)
        tl.store(kept_at + tile, h, there)
        kept_at += I * S
        for step in tl.static_range(CHUNK):
            h = tl.exp2(dts[step][:, None] * A) * h + (dts[step] * us[step])[:, None] * Bs[step][None, :]
            y = tl.sum(h * Cs[step][None, :], 1)
            tl.store(y_at + (first + step) * I + channel, y, inside & (first + step < T))


@jit
def _scan_backward(
    grad_at, u_at, dt_at, A_at, B_at, C_at, kept_at, du_at, ddt_at, dA_at, dB_at, dC_at, T, I,  # noqa: E741
    S: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One row and `BLOCK` channels, from the last chunk to the first; dA is the row's, dB and dC the block's."""
    row, chunks = tl.program_id(0).to(tl.int64), tl.cdiv(T, CHUNK)
    channel, state = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = channel < I, state < S
    tile, there = channel[:, None] * S + state[None, :], inside[:, None] & real[None, :]
    grad_at, u_at, dt_at = grad_at + row * T * I, u_at + row * T * I, dt_at + row * T * I
    du_at, ddt_at, dA_at = du_at + row * T * I, ddt_at + row * T * I, dA_at + row * I * S
    B_at, C_at, kept_at = B_at + row * T * S, C_at + row * T * S, kept_at + row * chunks * I * S
    part = (row * tl.num_programs(1) + tl.program_id(1)) * T * S  # this block's sums over its channels
    dB_at, dC_at = dB_at + part, dC_at + part
    A = tl.load(A_at + tile, there, 0.0) * 1.4426950408889634  # log2(e)
    dh = tl.zeros((BLOCK, PADDED), tl.float32)  # gradient of the state, as the later steps pass it back
    dA = tl.zeros((BLOCK, PADDED), tl.float32)
    for done in range(chunks):
        first = (chunks - 1 - done) * CHUNK
        grads, us, dts, Bs, Cs = (), (), (), (), ()
        for step in tl.static_range(CHUNK):
            wide, narrow, now = (first + step) * I + channel, (first + step) * S + state, first + step < T
            grads += (tl.load(grad_at + wide, inside & now, 0.0),)
            us += (tl.load(u_at + wide, inside & now, 0.0),)
            dts += (tl.load(dt_at + wide, inside & now, 0.0),)
            Bs += (tl.load(B_at + narrow, real & now, 0.0),)
            Cs += (tl.load(C_at + narrow, real & now, 0.0),)
        hs = (tl.load(kept_at + (chunks - 1 - done).to(tl.int64) * I * S + tile, there, 0.0),)
        for step in tl.static_range(CHUNK):
            decay = tl.exp2(dts[step][:, None] * A)
            hs += (decay * hs[step] + (dts[step] * us[step])[:, None] * Bs[step][None, :],)
        for step in tl.static_range(CHUNK - 1, -1, -1):
            wide, narrow, now = (first + step) * I + channel, (first + step) * S + state, first + step < T
            grad, u, dt, B = grads[step], us[step], dts[step], Bs[step]
            dh += grad[:, None] * Cs[step][None, :]
            tl.store(dC_at + narrow, tl.sum(grad[:, None] * hs[step + 1], 0), real & now)
            tl.store(dB_at + narrow, tl.sum((dt * u)[:, None] * dh, 0), real & now)
            ddriven = tl.sum(dh * B[None, :], 1)
            dh *= tl.exp2(dt[:, None] * A)
            exponent = dh * hs[step]  # gradient of dt A
            dA += exponent * dt[:, None]
            ddt = u * ddriven + tl.sum(exponent * A, 1) * 0.6931471805599453  # ln(2)
            tl.store(du_at + wide, dt * ddriven, inside & now)
            tl.store(ddt_at + wide, ddt, inside & now)
    tl.store(dA_at + tile, dA, there)


@jit
def _window_forward(
    driven_at, dt_at, B_at, A_at, C_at, y_at, N, I,  # noqa: E741
    S: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """`ROWS` rows and `BLOCK` channels, from the last place to the first; driven, dt and B are tuples of addresses."""
    start = tl.program_id(0).to(tl.int64) * ROWS
    channel, state = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = channel < I, state < S
    tile, there = channel[:, None] * S + state[None, :], inside[:, None] & real[None, :]
    A = tl.load(A_at + tile, there, 0.0) * 1.4426950408889634  # log2(e)
    for row in range(start, tl.minimum(start + ROWS, N)):
        wide, narrow = row * I + channel, row * S + state
        C = tl.load(C_at + narrow, real, 0.0)
        gate = C * tl.load(B_at[PLACES - 1] + narrow, real, 0.0)
        y = tl.load(driven_at[PLACES - 1] + wide, inside, 0.0) * tl.sum(gate, 0)
        elapsed = tl.zeros((BLOCK,), tl.float32)
        for back in tl.static_range(1, PLACES):
            elapsed += tl.load(dt_at[PLACES - back] + wide, inside, 0.0)
            gate = C * tl.load(B_at[PLACES - 1 - back] + narrow, real, 0.0)
            reach = tl.exp2(elapsed[:, None] * A)
            y += tl.load(driven_at[PLACES - 1 - back] + wide, inside, 0.0) * tl.sum(reach * gate[None, :], 1)
        tl.store(y_at + wide, y, inside)


@jit
def _window_backward(
    grad_at, driven_at, dt_at, A_at, B_at, C_at, ddriven_at, ddt_at, dA_at, dgates_at, N, I,  # noqa: E741
    S: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """`ROWS` rows and `BLOCK` channels; dA is these rows', dgates the block's."""
    group = tl.program_id(0).to(tl.int64)
    channel, state = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = channel < I, state < S
    tile, there = channel[:, None] * S + state[None, :], inside[:, None] & real[None, :]
    A = tl.load(A_at + tile, there, 0.0) * 1.4426950408889634  # log2(e)
    part = tl.program_id(1).to(tl.int64) * PLACES * N  # of this block's sums over its channels
    dA = tl.zeros((BLOCK, PADDED), tl.float32)
    for row in range(group * ROWS, tl.minimum((group + 1) * ROWS, N)):
        grad, C = tl.load(grad_at + row * I + channel, inside, 0.0), tl.load(C_at + row * S + state, real, 0.0)
        drivens, gates, past = (), (), (tl.zeros((BLOCK,), tl.float32),)
        for place in tl.static_range(PLACES):
            at = place * N + row
            drivens += (tl.load(driven_at + at * I + channel, inside, 0.0),)
            gates += (C * tl.load(B_at + at * S + state, real, 0.0),)
        for back in tl.static_range(1, PLACES):  # times from each place to the end, the last place's first
            at = (PLACES - back) * N + row
            past += (past[back - 1] + tl.load(dt_at + at * I + channel, inside, 0.0),)
        ddt = tl.zeros((BLOCK,), tl.float32)
        for place in tl.static_range(PLACES - 1):
            at, pulled, elapsed = place * N + row, grad * drivens[place], past[PLACES - 1 - place]
            # The time from a place to the end is the sum of all later steps: each has part in every earlier place.
            tl.store(ddt_at + at * I + channel, ddt, inside)
            reach = tl.exp2(elapsed[:, None] * A)
            tl.store(dgates_at + (part + at) * S + state, tl.sum(pulled[:, None] * reach, 0), real)
            reach *= gates[place][None, :]
            tl.store(ddriven_at + at * I + channel, grad * tl.sum(reach, 1), inside)
            dA += reach * (pulled * elapsed)[:, None]
            ddt += pulled * tl.sum(reach * A, 1) * 0.6931471805599453  # ln(2)
        at = (PLACES - 1) * N + row  # reached in no time
        tl.store(ddt_at + at * I + channel, ddt, inside)
        tl.store(dgates_at + (part + at) * S + state, tl.sum(grad * drivens[PLACES - 1], 0) + tl.zeros_like(C), real)
        tl.store(ddriven_at + at * I + channel, grad * tl.sum(gates[PLACES - 1], 0), inside)
    tl.store(dA_at + group * I * S + tile, dA, there)
