"""Mamba (Gu & Dao 2023, arXiv 2312.00752) for every machine: one block, five ways to run it.

    forward   a whole sequence: the selective scan (ours, or mamba-ssm's fused kernel where that is asked for)
    windows   the last output of every sliding window, sharing what does not depend on the window
    last      the last output of one sequence that starts from a zero state
    slide     the same for a window that moves on token by token
    step      one token, carrying the state

All five compute the same numbers; parameter names, shapes and initialisation are mamba-ssm's, so weights move freely.
Glossary (paper, section 3.2): u input after the convolution, dt step size, A decay, B and C input and output gates,
D skip.
The scan, the state and its exponentials are always float32.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.errors import GlamkitError
from glamkit.ops.causal_conv import convolved
from glamkit.ops.scan import scan_step, selective_scan, transposed, window_sum


class State(NamedTuple):
    """What `Mamba.step` carries: inputs (N, conv - 1, inner) still under the convolution, and ssm (N, inner, state)."""

    inputs: Tensor
    ssm: Tensor


class Place(NamedTuple):
    """What one place of a window adds to `window_sum`: its driven and dt (N, inner) and its B (N, state)."""

    driven: Tensor
    dt: Tensor
    B: Tensor


class Mamba(nn.Module):
    """A Mamba-1 block: (B, T, width) -> (B, T, width), causal.

    Args:
        width: features of a token.
        state: state-space states per channel.
        conv: taps of the causal convolution.
        expand: inner width over `width`.
    """

    def __init__(self, width: int, state: int = 16, conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.sizes = (rank, state, state)
        self.inner, self.conv, self.kernel = inner, conv, "glamkit"
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
        inputs, gate = self.in_proj(x).chunk(2, -1)
        u = self.conv1d(inputs.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        u = F.silu(u.float())
        dt, B, C = self.selection(u)
        scan = _fused_scan if self.kernel == "mamba-ssm" else selective_scan
        return self.finish(scan(u, dt, self.decay(), B, C), u, gate)

    def project(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., 2 inner): a token's part that does not depend on its place in a window."""
        return self.in_proj(x)

    def windows(self, x: Tensor, size: int) -> Tensor:
        """(B, T, width) -> (B, T - size + 1, width): the last output of each window of `size` tokens on its own."""
        projected, count = self.project(x), x.shape[1] - size + 1
        return self.last([projected[:, place : place + count] for place in range(size)])

    def last(self, places: list[Tensor]) -> Tensor:
        """The output at the last place, the state being zero before the first.

        Args:
            places: one (..., 2 inner) tensor of `project` for each place of the window.

        With A diagonal the recurrence unrolls (DESIGN section 4): the input at place p reaches the last place
        with weight exp(A * time from p to the end), and nothing but the last output is ever formed.
        """
        return self.step_window(places, [])[0]

    def step_window(self, places: list[Tensor], kept: list[Place]) -> tuple[Tensor, list[Place]]:
        """`last` of a window that moves on place by place, and what the next window need not compute again.

        A place with all its taps inside the window adds the same wherever the window begins, so that only the first
        few and the new last one are computed.

        Args:
            places: as for `last`.
            kept: what the window one place before gave; nothing for the first.
        """
        edge = self.conv - 1
        new = [place for place in range(len(places)) if not edge <= place < edge + len(kept)]
        gate = places[-1].chunk(2, -1)[1]
        u = self.convolve([place.chunk(2, -1)[0] for place in places], new)
        dt, B, C = self.selection(u)
        read = [part.flatten(1, -2) for part in (dt * u, dt, B)]
        window = [Place(*parts) for parts in zip(*read, strict=True)]
        window[edge:edge] = kept
        driven, times, gates = zip(*window, strict=True) if kept else read
        y = window_sum(driven, times, self.decay(), gates, C[-1].flatten(0, -2)).view(u.shape[1:])
        return self.finish(y, u[-1], gate), window[self.conv :]

    def start(self, count: int) -> State:
        """The zero state of `count` sequences."""
        zeros = self.A_log.new_zeros
        return State(zeros(count, self.conv - 1, self.inner), zeros(count, *self.A_log.shape))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token (N, width) -> its output (N, width) and the state after it."""
        new, gate = self.in_proj(x).chunk(2, -1)
        inputs = torch.cat([state.inputs, new.float().unsqueeze(1)], 1)
        taps, bias = self.taps()
        u = F.silu((inputs * taps).sum(1) + bias)
        dt, B, C = self.selection(u)
        y, ssm = scan_step(state.ssm, dt * u, dt, self.decay(), B, C)
        return self.finish(y, u, gate), State(inputs[:, 1:], ssm)

    def convolve(self, inputs: list[Tensor], wanted: Iterable[int]) -> Tensor:
        """The causal convolution and SiLU at some places, see `convolved`."""
        return convolved(inputs, *self.taps(), wanted)

    def taps(self) -> tuple[Tensor, Tensor]:
        """The convolution's weights (conv, inner), oldest first, and its bias (inner,)."""
        assert self.conv1d.bias is not None
        return transposed(self.conv1d.weight.squeeze(1)), self.conv1d.bias

    def selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps u (..., inner) to dt (..., inner), B and C (..., state): what makes the state space selective."""
        dt, B, C = self.x_proj(u).split(self.sizes, -1)
        return F.softplus(self.dt_proj(dt).float()), B.float(), C.float()

    def decay(self) -> Tensor:
        """A (inner, state), negative."""
        return -torch.exp(self.A_log.float())

    def finish(self, y: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        """Skip, gate and output projection."""
        return self.out_proj((y + self.D * u) * F.silu(gate.float()))


def available_kernels() -> dict[str, str]:
    """The scans by name; the text is empty where one can be used, else why mamba-ssm does not load."""
    try:
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # an import of compiled code can fail in any way; the doctor explains this text
        return {"glamkit": "", "mamba-ssm": f"{type(error).__name__}: {error}"}
    return {"glamkit": "", "mamba-ssm": ""}


def select_kernel(module: nn.Module, choice: str, device: torch.device) -> str:
    """Sets the training scan of every `Mamba` inside `module`, and returns its name for the run's record.

    Args:
        module: any module.
        choice: ``auto``, ``glamkit`` or ``mamba-ssm``; auto is glamkit's, which is as fast and repeats to the bit.
        device: where `module` will run.

    Raises:
        GlamkitError: mamba-ssm was asked for and cannot run here.
    """
    name = "mamba-ssm" if choice == "mamba-ssm" else "glamkit"
    if name == "mamba-ssm":
        elsewhere = "" if device.type == "cuda" else f"it needs a CUDA GPU, and the device is {device}"
        if reason := available_kernels()["mamba-ssm"] or elsewhere:
            raise GlamkitError(f"runtime.kernel = 'mamba-ssm' cannot be used ({reason}); use auto or glamkit.")
    for part in module.modules():
        if isinstance(part, Mamba):
            part.kernel = name
    return name


def _fused_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`selective_scan` by mamba-ssm's kernel, which keeps time in the last axis."""
    fused = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    u, dt, B, C = (part.transpose(1, 2).contiguous() for part in (u, dt, B, C))
    return fused(u, dt, A, B, C).transpose(1, 2)
