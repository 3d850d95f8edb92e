"""The plain way: what every fast path is tested equal to and timed against.

The same mathematics as the library's, without any of its savings, as in the released code: float32, a Python loop for
the scan, every LMamba window built explicitly and read in full, every dream's window of tokens read again from the
start at each step, nothing shared between windows or steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.mamba import Mamba
from glamkit.sequence_model import Blocks, Memory, SequenceModel
from glamkit.world_model import WorldModel


def plain_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`mamba.selective_scan` as its definition reads, one step after the other, left to autograd."""
    state, outputs = u.new_zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        state = torch.exp(dt[:, t, :, None] * A) * state + (dt[:, t] * u[:, t]).unsqueeze(-1) * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1)


def plain_mamba(mixer: Mamba, x: Tensor) -> Tensor:
    """All outputs of a Mamba block for sequences (B, T, width)."""
    inputs, gate = mixer.in_proj(x).chunk(2, -1)
    u = F.silu(mixer.conv1d(inputs.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    dt, B, C = mixer.x_proj(u).split(mixer.sizes, -1)
    y = plain_scan(u, F.softplus(mixer.dt_proj(dt)), -torch.exp(mixer.A_log), B, C)
    return mixer.out_proj((y + mixer.D * u) * F.silu(gate))


def plain_blocks(blocks: Blocks, x: Tensor) -> Tensor:
    """All outputs of a stack of residual blocks."""
    for block in blocks.stack:
        x = x + plain_mamba(block.mixer, block.norm(x))
    return x


class PlainSequenceModel(SequenceModel):
    """`SequenceModel` with explicit windows, read in full."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `SequenceModel.forward`."""
        size, count = self.lmamba.window, tokens.shape[1] - self.lmamba.window
        g = self.gmamba.out(plain_blocks(self.gmamba.blocks, tokens[:, 1:] - tokens[:, :-1]))[:, -count:]
        windows = tokens.unfold(1, size, 1)[:, -count:].transpose(-2, -1).flatten(0, 1)
        last = plain_blocks(self.lmamba.blocks, windows)[:, -1]
        return self.hidden(g, self.lmamba.out(last).unflatten(0, (len(tokens), count))), g

    def memory(self, tokens: Tensor, kind: str = "window") -> Memory:  # noqa: ARG002 - there is one plain way only
        """As `SequenceModel.memory`, for windows."""
        return PlainWindow(self, tokens)


class PlainWindow(Memory):
    """A window of tokens, read from the start at each step."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, self.window = model, tokens
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Slides the window by one token and reads all of it."""
        self.window = torch.cat([self.window[:, 1:], token.unsqueeze(1)], 1)
        return self._look()

    def _look(self) -> Tensor:
        model, window = self.model, self.window
        g = plain_blocks(model.gmamba.blocks, window[:, 1:] - window[:, :-1])[:, -1]
        return self._sum(model, g, plain_blocks(model.lmamba.blocks, window[:, -model.lmamba.window :])[:, -1])


def plain_copy(world_model: WorldModel) -> WorldModel:
    """A world model with the same weights that does everything the plain way."""
    plain = WorldModel(world_model.config, world_model.actions)
    plain.sequence_model = PlainSequenceModel(world_model.config)
    plain.load_state_dict(world_model.state_dict())
    return plain.train(world_model.training)
