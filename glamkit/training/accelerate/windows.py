"""Mamba's scan by operations or mamba-ssm's kernel; and windows of modules with one block, sharing what they can.

A token's input projection is the same in every window, and a window's last output is one sum (`scan.window_sum`). A
window that moves on by one token computes its first few places and the new one; the others add what they added before.
In a stack of several blocks later ones read what depends on the window: there the plain classes do their work.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.models.mamba import Mamba
from glamkit.models.sequence_model import GMamba, ImaginationMemory, LMamba, SequenceModel
from glamkit.ops import scan as ops

Place = tuple[Tensor, Tensor, Tensor]  # what a place of a window adds to `window_sum`: driven and dt (N, I), B (N, S)
Token = tuple[Tensor, Tensor]  # a token (..., D) and its input projection (..., 2 I)


class ScanMamba(Mamba):
    """`Mamba` by the operations of `ops.scan`."""

    scan, scan_step = staticmethod(ops.selective_scan), staticmethod(ops.scan_step)

    def taps(self) -> tuple[Tensor, Tensor]:
        """As `Mamba.taps`, laid out for compilers."""
        assert self.conv1d.bias is not None
        return ops.transposed(self.conv1d.weight.squeeze(1)), self.conv1d.bias


class FusedMamba(Mamba):
    """`Mamba` whose scan is mamba-ssm's kernel, which keeps time in the last axis."""

    def scan(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """As `Mamba.scan`."""
        fused = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        u, dt, B, C = (part.transpose(1, 2).contiguous() for part in (u, dt, B, C))
        return fused(u, dt, A, B, C).transpose(1, 2)


def convolved(inputs: list[Tensor], taps: Tensor, bias: Tensor, wanted: Iterable[int]) -> Tensor:
    """The causal convolution and SiLU of a window's inputs (..., I) at wanted places; taps (conv, I), oldest first."""
    places = []
    for place in wanted:
        u = taps[-1] * inputs[place]
        for back in range(1, min(place + 1, len(taps))):
            u = u + taps[-1 - back] * inputs[place - back]
        places.append(F.silu((u + bias).float()))
    return torch.stack(places)


class WindowMamba(Mamba):
    """`Mamba` that also gives the last outputs of windows alone."""

    def step_window(self, places: list[Tensor], kept: list[Place]) -> tuple[Tensor, list[Place]]:
        """The output at a window's last place, read from a zero state, and what the next window need not compute again.

        There is an input projection (..., 2 I) for each place; `kept` is what the window one place before gave.
        """
        edge = self.conv - 1
        new = [place for place in range(len(places)) if not edge <= place < edge + len(kept)]
        gate = places[-1].chunk(2, -1)[1]
        u = convolved([place.chunk(2, -1)[0] for place in places], *self.taps(), new)
        dt, B, C = self.selection(u)
        read = [part.flatten(1, -2) for part in (dt * u, dt, B)]
        window: list[Place] = list(zip(*read, strict=True))
        window[edge:edge] = kept
        driven, times, gates = zip(*window, strict=True) if kept else read
        y = ops.window_sum(driven, times, self.decay(), gates, C[-1].flatten(0, -2)).view(u.shape[1:])
        return self.finish(y, u[-1], gate), window[self.conv :]


def prepare(module: GMamba | LMamba, tokens: Tensor) -> Token:
    """What a module's block computes once per token (..., D) however many windows it lies in."""
    (block,) = module.blocks.stack
    return tokens, block.mixer.in_proj(block.norm(tokens))


def prepare_all(module: GMamba | LMamba, tokens: Tensor) -> list[Token]:
    """`prepare` of tokens (B, T, D) at once, each in memory as those to come: what reads them is compiled once."""
    tokens, projected = prepare(module, tokens.transpose(0, 1).contiguous())
    return list(zip(tokens, projected, strict=True))


def step_window(module: GMamba | LMamba, window: list[Token], kept: list[Place]) -> tuple[Tensor, list[Place]]:
    """The block's output (..., D) at a window's last place, see `WindowMamba.step_window`."""
    mixer = cast(WindowMamba, module.blocks.stack[0].mixer)
    change, kept = mixer.step_window([projected for _, projected in window], kept)
    token, _ = window[-1]
    return token + change, kept


class WindowLMamba(LMamba):
    """`LMamba` that reads all windows at once."""

    def forward(self, tokens: Tensor) -> Tensor:
        """As `LMamba.forward`."""
        if len(self.blocks) > 1:
            return super().forward(tokens)
        size = min(self.window, tokens.shape[1])
        count = tokens.shape[1] - size + 1
        _, projected = prepare(self, tokens)
        places = [(tokens[:, start : start + count], projected[:, start : start + count]) for start in range(size)]
        return self.out(step_window(self, places, [])[0])


class WindowSequenceModel(SequenceModel):
    """`SequenceModel` whose window memory keeps what windows share."""

    def memory(self, tokens: Tensor, kind: str = "window") -> ImaginationMemory:
        """As `SequenceModel.memory`."""
        if kind == "recurrent" or len(self.gmamba.blocks) > 1:
            return super().memory(tokens, kind)
        return WindowShared(self, tokens)


class WindowShared(ImaginationMemory):
    """`sequence_model.Window` that keeps projections and places per token."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, alone = model, tokens.shape[1] == 1
        self.changes = prepare_all(model.gmamba, tokens if alone else tokens[:, 1:] - tokens[:, :-1])
        self.tokens = prepare_all(model.lmamba, tokens[:, -model.lmamba.window :])
        self.token = None if alone else self.tokens[-1][0]  # in a window of one each token is read as it is
        self.kept = list[Place](), list[Place]()
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Moves the window on by one token."""
        moved = token if self.token is None else token - self.token
        self.token = None if self.token is None else token
        self.changes = [*self.changes[1:], prepare(self.model.gmamba, moved)]
        self.tokens = [*self.tokens[1:], prepare(self.model.lmamba, token)]
        return self._look()

    def _look(self) -> Tensor:
        model = self.model
        g, of_changes = step_window(model.gmamba, self.changes, self.kept[0])
        l, of_tokens = step_window(model.lmamba, self.tokens, self.kept[1])  # noqa: E741
        self.kept = of_changes, of_tokens
        return self.add(model, model.gmamba.out(g), model.lmamba.out(l))
