"""GMamba, LMamba and their sum: the paper's contribution alone in its file (GLAM, section 3.2).

token e_t  --difference d_t = e_t - e_{t-1}-->  GMamba over the whole sequence  --> g_t   global variation
token e_t  --window e_{t-S+1} .. e_t-------->  LMamba over each window alone    --> l_t   local variation
hidden state h_t = g_t + l_t

Shapes: B sequences (N where there is one token each), T tokens, D features, S tokens of LMamba's window.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glamkit.config import WorldModelConfig
from glamkit.models.mamba import Mamba, State


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

    def start(self, count: int) -> list[State]:
        """The zero states of `count` sequences, one for each block."""
        return [block.mixer.start(count) for block in self.stack]

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
        """(B, T, D) -> (B, T - 1, D): g_t for t = 1 .. T - 1. A lone token is read as it is, as released."""
        alone = tokens.shape[1] == 1
        return self.out(self.blocks(tokens if alone else tokens[:, 1:] - tokens[:, :-1]))


class LMamba(nn.Module):
    """Reads the last S tokens, each window on its own: the local variation."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.window = config.window
        self.blocks = Blocks(config)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, T - S + 1, D): l_t for t = S - 1 .. T - 1. Fewer tokens than S are one window."""
        windows = tokens.unfold(1, min(self.window, tokens.shape[1]), 1).transpose(-2, -1)  # (B, T - S + 1, S, D)
        last = self.blocks(windows.flatten(0, 1))[:, -1]  # (B (T - S + 1), D)
        return self.out(last).unflatten(0, windows.shape[:2])


class SequenceModel(nn.Module):
    """h_t = g_t + l_t, for training over sequences and for memories that imagine and act.

    For ablation `config.modules` leaves one out of h. "lmamba" still trains GMamba, by the variation loss alone.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.gmamba, self.lmamba = GMamba(config), LMamba(config)
        self.added = config.modules

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) -> hidden states h and global variation g, both (B, T - S, D) for t = S .. T - 1."""
        S = self.lmamba.window
        g, l = self.gmamba(tokens)[:, S - 1 :], self.lmamba(tokens)[:, 1:]  # noqa: E741 - the paper's letter
        return self.hidden(g, l).float(), g.float()

    def hidden(self, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """The hidden state h of the two parts, of any one shape."""
        return g + l if self.added == "both" else g if self.added == "gmamba" else l

    def memory(self, tokens: Tensor, kind: str = "window") -> ImaginationMemory:
        """A memory that has read the tokens (N, L, D) of real steps; for `kind` see `ImaginationConfig.memory`."""
        return (Recurrent if kind == "recurrent" else Window)(self, tokens)


class ImaginationMemory:
    """Tokens read so far; `hidden` (N, D) is h of the last one, `variation` (N, D) its g."""

    hidden: Tensor
    variation: Tensor

    def read(self, token: Tensor) -> Tensor:
        """Takes in the next token (N, D) and returns its hidden state h (N, D)."""
        raise NotImplementedError

    def add(self, model: SequenceModel, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """Keeps and returns h of g and l, (N, D) each."""
        self.variation = g.float()
        self.hidden = model.hidden(self.variation, l.float())
        return self.hidden


class Window(ImaginationMemory):
    """Re-reads the last L tokens at each step, as the released code does."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Moves the window on by one token."""
        self.tokens = torch.cat([self.tokens[:, 1:], token.unsqueeze(1)], 1)
        return self._look()

    def _look(self) -> Tensor:
        g, l = self.model.gmamba(self.tokens), self.model.lmamba(self.tokens[:, -self.model.lmamba.window :])  # noqa: E741
        return self.add(self.model, g[:, -1], l[:, -1])


class Recurrent(ImaginationMemory):
    """Carries GMamba's state from step to step: O(1) per step, and nothing is forgotten by a window's edge."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, self.tokens, blocks = model, tokens[:, -model.lmamba.window :], model.gmamba.blocks
        self.states = blocks.start(len(tokens))
        # A lone token is read as its own change but leaves no trace in the state: both memories count alike.
        g, _ = blocks.step(tokens[:, 0], self.states)
        for change in (tokens[:, 1:] - tokens[:, :-1]).unbind(1):
            g, self.states = blocks.step(change, self.states)
        self._look(g)

    def read(self, token: Tensor) -> Tensor:
        """One step of GMamba, and LMamba's window moved on by one token."""
        g, self.states = self.model.gmamba.blocks.step(token - self.tokens[:, -1], self.states)
        self.tokens = torch.cat([self.tokens, token.unsqueeze(1)], 1)[:, -self.model.lmamba.window :]
        return self._look(g)

    def _look(self, g: Tensor) -> Tensor:
        return self.add(self.model, self.model.gmamba.out(g), self.model.lmamba(self.tokens)[:, -1])
