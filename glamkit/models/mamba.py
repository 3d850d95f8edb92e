"""Mamba (Gu & Dao 2023, arXiv 2312.00752): a selective state space model, for whole sequences and step by step.

| here | paper, section 3 | |
|---|---|---|
| `u` | x_t | input, after the convolution and SiLU |
| `dt` | Delta_t | step size, positive |
| `A` | A | decay, negative; diagonal |
| `B`, `C` | B_t, C_t | input gate and output gate |
| `D` | D | skip connection |
| `h` | h_t | state |

Parameter names, shapes and initialisation are mamba-ssm's, so weights move freely. Scan, state and exponentials are
always float32. Shapes: B sequences (N of them where there is one token each), T tokens, I inner channels, S states.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class State(NamedTuple):
    """What `Mamba.step` carries: inputs (N, conv - 1, I) still under the convolution, and ssm (N, I, S)."""

    inputs: Tensor
    ssm: Tensor


class Mamba(nn.Module):
    """A Mamba-1 block: (B, T, width) -> (B, T, width), causal.

    Args:
        width: features of a token.
        state: S, states of each channel.
        conv: taps of the causal convolution.
        expand: inner width I over `width`.
    """

    def __init__(self, width: int, state: int = 16, conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.sizes = (rank, state, state)
        self.inner, self.conv = inner, conv
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        # softplus(bias) is log-uniform in [0.001, 0.1]: step sizes from slow memory to fast.
        dt = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        """All outputs of sequences (B, T, width)."""
        inputs, gate = self.in_proj(x).chunk(2, -1)  # (B, T, I) each
        u = self.conv1d(inputs.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)  # what looks ahead is cut off
        u = F.silu(u.float())
        dt, B, C = self.selection(u)  # (B, T, I), (B, T, S), (B, T, S)
        return self.finish(self.scan(u, dt, self.decay(), B, C), u, gate)

    def scan(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t, h zero before the first token.

        u and dt are (B, T, I), A (I, S), B and C (B, T, S); the outputs (B, T, I).
        """
        h, outputs = u.new_zeros(u.shape[0], *A.shape), []
        for t in range(u.shape[1]):
            y, h = self.scan_step(h, dt[:, t] * u[:, t], dt[:, t], A, B[:, t], C[:, t])
            outputs.append(y)
        return torch.stack(outputs, 1)

    def scan_step(
        self, h: Tensor, driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step from states h (N, I, S): the output (N, I) and the states after it; `driven` is dt_t u_t (N, I)."""
        h = torch.exp(dt.unsqueeze(-1) * A) * h + driven.unsqueeze(-1) * B.unsqueeze(-2)
        return (h * C.unsqueeze(-2)).sum(-1), h

    def start(self, count: int) -> State:
        """The zero state of `count` sequences."""
        zeros = self.A_log.new_zeros
        return State(zeros(count, self.conv - 1, self.inner), zeros(count, *self.A_log.shape))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token (N, width) -> its output (N, width) and the state after it."""
        new, gate = self.in_proj(x).chunk(2, -1)
        inputs = torch.cat([state.inputs, new.float().unsqueeze(1)], 1)  # (N, conv, I)
        taps, bias = self.taps()
        u = F.silu((inputs * taps).sum(1) + bias)
        dt, B, C = self.selection(u)
        y, ssm = self.scan_step(state.ssm, dt * u, dt, self.decay(), B, C)
        return self.finish(y, u, gate), State(inputs[:, 1:], ssm)

    def taps(self) -> tuple[Tensor, Tensor]:
        """The convolution's weights (conv, I), oldest first, and its bias (I,)."""
        assert self.conv1d.bias is not None
        return self.conv1d.weight.squeeze(1).T, self.conv1d.bias

    def selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps u (..., I) to dt (..., I), B and C (..., S): what makes the state space selective."""
        dt, B, C = self.x_proj(u).split(self.sizes, -1)
        return F.softplus(self.dt_proj(dt).float()), B.float(), C.float()

    def decay(self) -> Tensor:
        """A (I, S), negative."""
        return -torch.exp(self.A_log.float())

    def finish(self, y: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        """Skip, gate and output projection."""
        return self.out_proj((y + self.D * u) * F.silu(gate.float()))
