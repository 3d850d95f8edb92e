"""LMamba's and imagination's windows, sharing what does not depend on the window.

In a lone block a token's input projection is the same in every window, and with A diagonal the last output of a window
is one sum (`ops.scan.window_sum`): nothing but that output is ever formed. A window that moves on by
one token computes its first few places and the new one; the others add what they added before.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from glamkit.models.mamba import Mamba
from glamkit.models.sequence_model import Blocks, ImaginationMemory, LMamba, SequenceModel
from glamkit.ops.causal_conv import convolved
from glamkit.ops.scan import window_sum


class Place(NamedTuple):
    """What one place of a window adds to `window_sum`: its driven and dt (N, I) and its B (N, S)."""

    driven: Tensor
    dt: Tensor
    B: Tensor


class ProjectedToken(NamedTuple):
    """A token on its way through blocks: itself, and its input projection in the last block if it can be shared."""

    token: Tensor
    projected: Tensor | None


class WindowMamba(Mamba):
    """`Mamba` that also gives the last outputs of windows alone."""

    def windows(self, x: Tensor, size: int) -> Tensor:
        """(B, T, width) -> (B, T - size + 1, width): the last output of each window of `size` tokens on its own."""
        projected, count = self.in_proj(x), x.shape[1] - size + 1
        return self.last([projected[:, place : place + count] for place in range(size)])

    def last(self, places: list[Tensor]) -> Tensor:
        """The output at the last place, the state being zero before the first.

        Args:
            places: one (..., 2 I) tensor of input projections for each place of the window.
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
        u = convolved([place.chunk(2, -1)[0] for place in places], *self.taps(), new)
        dt, B, C = self.selection(u)
        read = [part.flatten(1, -2) for part in (dt * u, dt, B)]
        window = [Place(*parts) for parts in zip(*read, strict=True)]
        window[edge:edge] = kept
        driven, times, gates = zip(*window, strict=True) if kept else read
        y = window_sum(driven, times, self.decay(), gates, C[-1].flatten(0, -2)).view(u.shape[1:])
        return self.finish(y, u[-1], gate), window[self.conv :]


class WindowBlocks(Blocks):
    """`Blocks` of `WindowMamba` that also give the last outputs of windows alone."""

    def prepare(self, tokens: Tensor) -> ProjectedToken:
        """What is computed once per token (..., D) however many windows it lies in.

        Only a single block can share it: in a deeper stack the later blocks' inputs depend on the window.
        """
        first, *deeper = self.stack
        return ProjectedToken(tokens, None if deeper else first.mixer.in_proj(first.norm(tokens)))

    def prepare_all(self, tokens: Tensor) -> list[ProjectedToken]:
        """`prepare` of tokens (B, T, D) at once, each in memory as those to come: what reads them is compiled once."""
        entry = self.prepare(tokens.transpose(0, 1).contiguous())
        projected = [None] * len(entry.token) if entry.projected is None else entry.projected.unbind()
        return [ProjectedToken(*parts) for parts in zip(entry.token.unbind(), projected, strict=True)]

    def last(self, window: list[ProjectedToken]) -> Tensor:
        """The last output (..., D) of a window of entries, read from a zero state."""
        return self.step_window(window, [])[0]

    def step_window(self, window: list[ProjectedToken], kept: list[Place]) -> tuple[Tensor, list[Place]]:
        """`last` of a window that moves on, see `WindowMamba.step_window`; deeper stacks keep nothing."""
        *early, final = self.stack
        assert isinstance(final.mixer, WindowMamba)
        shared = [entry.projected for entry in window if entry.projected is not None]
        if shared:
            change, kept = final.mixer.step_window(shared, kept)
            return window[-1].token + change, kept
        x = torch.stack([entry.token for entry in window], -2)
        shape, x = x.shape, x.flatten(0, -3)
        for block in early:
            x = block(x)
        x = x.view(shape)
        places = final.mixer.in_proj(final.norm(x)).unbind(-2)
        return x[..., -1, :] + final.mixer.last(list(places)), []

    def windows(self, x: Tensor, size: int) -> Tensor:
        """(B, T, D) -> (B, T - size + 1, D): the last output of every window of `size` tokens."""
        entry, count = self.prepare(x), x.shape[1] - size + 1
        return self.last(
            [
                ProjectedToken(
                    x[:, p : p + count], None if entry.projected is None else entry.projected[:, p : p + count]
                )
                for p in range(size)
            ]
        )


class WindowLMamba(LMamba):
    """`LMamba` by `WindowBlocks`."""

    def forward(self, tokens: Tensor) -> Tensor:
        """As `LMamba.forward`."""
        return self.out(_blocks(self).windows(tokens, min(self.window, tokens.shape[1])))


class WindowSequenceModel(SequenceModel):
    """`SequenceModel` whose memories keep what windows share."""

    def memory(self, tokens: Tensor, kind: str = "window") -> ImaginationMemory:
        """As `SequenceModel.memory`."""
        return (RecurrentShared if kind == "recurrent" else WindowShared)(self, tokens)


class WindowShared(ImaginationMemory):
    """`sequence_model.Window` that keeps projections and places per token."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, alone = model, tokens.shape[1] == 1
        self.changes = _blocks(model.gmamba).prepare_all(tokens if alone else tokens[:, 1:] - tokens[:, :-1])
        self.tokens = _blocks(model.lmamba).prepare_all(tokens[:, -model.lmamba.window :])
        self.token = None if alone else self.tokens[-1].token  # in a window of one each token is read as it is
        self.kept = list[Place](), list[Place]()
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Moves the window on by one token."""
        moved = token if self.token is None else token - self.token
        self.token = None if self.token is None else token
        change = _blocks(self.model.gmamba).prepare(moved)
        self.changes = [*self.changes[1:], change]
        self.tokens = [*self.tokens[1:], _blocks(self.model.lmamba).prepare(token)]
        return self._look()

    def _look(self) -> Tensor:
        model = self.model
        g, of_changes = _blocks(model.gmamba).step_window(self.changes, self.kept[0])
        l, of_tokens = _blocks(model.lmamba).step_window(self.tokens, self.kept[1])  # noqa: E741
        self.kept = of_changes, of_tokens
        return self.add(model, model.gmamba.out(g), model.lmamba.out(l))


class RecurrentShared(ImaginationMemory):
    """`sequence_model.Recurrent` that keeps LMamba's projections per token."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, blocks = model, model.gmamba.blocks
        steps = unbind_steps(tokens)
        self.tokens = _blocks(model.lmamba).prepare_all(tokens[:, -model.lmamba.window :])
        self.token = steps[-1]
        self.states = blocks.start(len(tokens))
        g, _ = blocks.step(steps[0], self.states)
        for old, new in pairwise(steps):
            g, self.states = blocks.step(new - old, self.states)
        self._look(g)

    def read(self, token: Tensor) -> Tensor:
        """One step of GMamba, and LMamba's window moved on by one token."""
        g, self.states = self.model.gmamba.blocks.step(token - self.token, self.states)
        self.token = token
        self.tokens = [*self.tokens, _blocks(self.model.lmamba).prepare(token)][-self.model.lmamba.window :]
        return self._look(g)

    def _look(self, g: Tensor) -> Tensor:
        l = _blocks(self.model.lmamba).last(self.tokens)  # noqa: E741
        return self.add(self.model, self.model.gmamba.out(g), self.model.lmamba.out(l))


def unbind_steps(tokens: Tensor) -> tuple[Tensor, ...]:
    """The steps (B, D) of tokens (B, T, D), in memory as those to come: what reads them is compiled once for all."""
    return tokens.transpose(0, 1).contiguous().unbind()


def _blocks(module: torch.nn.Module) -> WindowBlocks:
    blocks = module.blocks
    assert isinstance(blocks, WindowBlocks)
    return blocks
