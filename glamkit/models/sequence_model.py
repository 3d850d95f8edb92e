"""GMamba, LMamba and their sum: the paper's contribution alone in its file (GLAM, section 3.2).

token e_t  --difference d_t = e_t - e_{t-1}-->  GMamba over the whole sequence  --> g_t   global variation
token e_t  --window e_{t-S+1} .. e_t-------->  LMamba over each window alone    --> l_t   local variation
hidden state h_t = g_t + l_t
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from glamkit.config import WorldModelConfig
from glamkit.models.mamba import Mamba, Place, State
from glamkit.models.paired_windows import Pair, fits
from glamkit.ops.scan import by_kernels


class ProjectedToken(NamedTuple):
    """A token on its way through blocks: itself, and its input projection in the last block if it can be shared."""

    token: Tensor
    projected: Tensor | None


class Block(nn.Module):
    """x + Mamba(LayerNorm(x))."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.mixer = Mamba(config.width, config.state, config.conv, config.expand)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return x + self.mixer(self.norm(x))


class Blocks(nn.ModuleList):
    """Residual Mamba blocks, each reading the one before."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__([Block(config) for _ in range(config.blocks)])

    @property
    def stack(self) -> list[Block]:
        """The blocks in order."""
        return cast(list[Block], list(self))

    def forward(self, x: Tensor) -> Tensor:
        """All outputs of sequences (B, T, D)."""
        for block in self:
            x = block(x)
        return x

    def prepare(self, tokens: Tensor) -> ProjectedToken:
        """What is computed once per token (..., D) however many windows it lies in.

        Only a single block can share it: in a deeper stack the later blocks' inputs depend on the window.
        """
        first, *deeper = self.stack
        return ProjectedToken(tokens, None if deeper else first.mixer.project(first.norm(tokens)))

    def last(self, window: list[ProjectedToken]) -> Tensor:
        """The last output (..., D) of a window of entries, read from a zero state."""
        return self.step_window(window, [])[0]

    def step_window(self, window: list[ProjectedToken], kept: list[Place]) -> tuple[Tensor, list[Place]]:
        """`last` of a window that moves on entry by entry, see `Mamba.step_window`; deeper stacks keep nothing."""
        *early, final = self.stack
        shared = [entry.projected for entry in window if entry.projected is not None]
        if shared:
            change, kept = final.mixer.step_window(shared, kept)
            return window[-1].token + change, kept
        x = torch.stack([entry.token for entry in window], -2)
        shape, x = x.shape, x.flatten(0, -3)
        for block in early:
            x = block(x)
        x = x.view(shape)
        places = final.mixer.project(final.norm(x)).unbind(-2)
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

    def step(self, x: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """One token (N, D), carrying one state per block."""
        after: list[State] = []
        for block, state in zip(self.stack, states, strict=True):
            change, state = block.mixer.step(block.norm(x), state)
            x, after = x + change, [*after, state]
        return x, after


class GMamba(nn.Module):
    """Reads the differences between consecutive tokens over the whole sequence: the global variation."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.blocks = Blocks(config)
        self.out = nn.Sequential(
            nn.Linear(config.width, config.width, bias=False), nn.LayerNorm(config.width), nn.SiLU()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, T - 1, D): g_t for t = 1 .. T - 1."""
        return self.out(self.blocks(tokens[:, 1:] - tokens[:, :-1]))


class LMamba(nn.Module):
    """Reads the last S tokens, each window on its own: the local variation."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.window = config.window
        self.blocks = Blocks(config)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, T - S + 1, D): l_t for t = S - 1 .. T - 1."""
        return self.out(self.blocks.windows(tokens, self.window))


class SequenceModel(nn.Module):
    """h_t = g_t + l_t, for training over sequences and for memories that imagine and act.

    For ablation `config.modules` leaves one of the two out of h. "gmamba": h = g, and LMamba is not trained at all.
    "lmamba": h = l; GMamba is still trained, by the variation loss that reads g, but no head of h sees it.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.gmamba, self.lmamba = GMamba(config), LMamba(config)
        self.added = config.modules

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) -> hidden states h and global variation g, both (B, T - S, D) for t = S .. T - 1."""
        count = tokens.shape[1] - self.lmamba.window
        g, l = self.gmamba(tokens)[:, -count:], self.lmamba(tokens)[:, -count:]  # noqa: E741 - the paper's letter
        return self.hidden(g, l).float(), g.float()

    def hidden(self, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """The hidden state h of the two parts, of any one shape."""
        return g + l if self.added == "both" else g if self.added == "gmamba" else l

    def memory(self, tokens: Tensor, kind: str = "window", apart: bool = False) -> ImaginationMemory:
        """A memory that has read the tokens (N, L, D).

        Args:
            tokens: of real steps.
            kind: see `ImaginationConfig.memory`.
            apart: its tensors are to have a row for each of the N first, so that rows can be picked.
        """
        pairs = by_kernels(tokens) and not apart and self.pairs(tokens.shape[1])
        return (Recurrent if kind == "recurrent" else Paired if pairs else Window)(self, tokens)

    def pairs(self, length: int) -> bool:
        """Whether windows over contexts of `length` steps can be read by both modules together, without gradients."""
        lone = len(self.gmamba.blocks) == 1
        return lone and not torch.is_grad_enabled() and fits(*self.mixers, self.spans(length))

    @property
    def mixers(self) -> tuple[Mamba, Mamba]:
        """The first Mamba of each module."""
        return self.gmamba.blocks.stack[0].mixer, self.lmamba.blocks.stack[0].mixer

    def spans(self, length: int) -> tuple[int, int]:
        """How many places each module's window has over a context of `length` steps."""
        return max(length - 1, 1), min(length, self.lmamba.window)


class ImaginationMemory:
    """Tokens read so far; `hidden` (N, D) is h of the last one."""

    hidden: Tensor
    variation: Tensor

    def read(self, token: Tensor) -> Tensor:
        """Takes in the next token (N, D) and returns its hidden state h (N, D)."""
        raise NotImplementedError

    def _sum(self, model: SequenceModel, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        return self._add(model, model.gmamba.out(g), model.lmamba.out(l))

    def _add(self, model: SequenceModel, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        self.variation = g.float()
        self.hidden = model.hidden(self.variation, l.float())
        return self.hidden


class Window(ImaginationMemory):
    """Re-reads the last L tokens at each step, as the released code does; projections are kept per token."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model = model
        steps = unbind_steps(tokens)
        # A lone token has no predecessor and is read as it is, as the released code does.
        pairs = pairwise(steps)
        changes = [new - old for old, new in pairs] or [steps[0]]
        self.token = steps[-1]
        self.changes = [model.gmamba.blocks.prepare(change) for change in changes]
        self.tokens = [model.lmamba.blocks.prepare(token) for token in steps[-model.lmamba.window :]]
        self.kept = list[Place](), list[Place]()
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Slides the window by one token."""
        change = self.model.gmamba.blocks.prepare(token - self.token)
        self.token = token
        self.changes = [*self.changes[1:], change]
        self.tokens = [*self.tokens[1:], self.model.lmamba.blocks.prepare(token)]
        return self._look()

    def _look(self) -> Tensor:
        g, of_changes = self.model.gmamba.blocks.step_window(self.changes, self.kept[0])
        l, of_tokens = self.model.lmamba.blocks.step_window(self.tokens, self.kept[1])  # noqa: E741
        self.kept = of_changes, of_tokens
        return self._sum(self.model, g, l)


class Paired(ImaginationMemory):
    """`Window` by half as many kernels, for GPUs: both modules do their work together, see `pair`."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, steps = model, unbind_steps(tokens)
        norms = model.gmamba.blocks.stack[0].norm, model.lmamba.blocks.stack[0].norm
        self.pair = Pair(norms, model.mixers, model.spans(len(steps)))
        self.out = torch.stack([cast(nn.Linear, model.gmamba.out[0]).weight, model.lmamba.out.weight])
        # As in `Window`, a lone token is its own change; that of the first of several lies in no window.
        changes = [steps[0], *(new - old for old, new in pairwise(steps))]
        both = [torch.stack(parts) for parts in zip(changes, steps, strict=True)]
        self.token, self.entries = steps[-1], [self.pair.project(latest) for latest in both]
        self.kept = self.pair.begin(model.mixers, self.entries)
        self._look(both[-1])

    def read(self, token: Tensor) -> Tensor:
        """Slides both windows by one token."""
        latest = torch.stack([token - self.token, token])
        self.token = token
        self.entries = [*self.entries[1:], self.pair.project(latest)]
        return self._look(latest)

    def _look(self, latest: Tensor) -> Tensor:
        change, self.kept = self.pair.step_window(self.entries, self.kept)
        g, l = ((latest + change) @ self.out.mT).unbind()  # noqa: E741
        _, norm, activation = self.model.gmamba.out
        return self._add(self.model, activation(norm(g)), l)


class Recurrent(ImaginationMemory):
    """Carries GMamba's state from step to step: O(1) per step, and nothing is forgotten by a window's edge."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, blocks = model, model.gmamba.blocks
        steps = unbind_steps(tokens)
        self.token = steps[-1]
        self.tokens = [model.lmamba.blocks.prepare(token) for token in steps[-model.lmamba.window :]]
        self.states = [block.mixer.start(len(tokens)) for block in blocks.stack]
        # A lone token is read as its own change but leaves no trace in the state: both memories count alike.
        g, _ = blocks.step(steps[0], self.states)
        for old, new in pairwise(steps):
            g, self.states = blocks.step(new - old, self.states)
        self._sum(model, g, model.lmamba.blocks.last(self.tokens))

    def read(self, token: Tensor) -> Tensor:
        """One step of GMamba, and LMamba's window slid by one token."""
        g, self.states = self.model.gmamba.blocks.step(token - self.token, self.states)
        self.token = token
        self.tokens = [*self.tokens, self.model.lmamba.blocks.prepare(token)][-self.model.lmamba.window :]
        return self._sum(self.model, g, self.model.lmamba.blocks.last(self.tokens))


def unbind_steps(tokens: Tensor) -> tuple[Tensor, ...]:
    """The steps (B, D) of tokens (B, T, D), in memory as those to come: what reads them is compiled once for all."""
    return tokens.transpose(0, 1).contiguous().unbind()
