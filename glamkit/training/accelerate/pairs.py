"""GMamba's and LMamba's block as one, a batch of two, for windows that slide on GPUs.

With each block on its own an imagined step is some fifty kernels, most of them so small that starting them takes as
long as they do. Both have the same sizes, so that one kernel can do the same part of both: input projection, the
convolution at those places of the windows that are new, what is selected of them, the windows' sums with all that
stands around them, and the output.

The numbers are those of `WindowMamba.step_window`, but for u, which is kept in the kind of numbers that products read
it in; errors of 16 bits are no larger for it. The operations are those of `ops.paired_windows`.

Letters: M = 2 blocks, N rows, I inner channels, S states, R rank of the step sizes, P places of a window, of which K
are new: the first few, and the last one. An entry is what `Pair.project` gives for one token: (M, N, 2 I).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.mamba import Mamba
from glamkit.models.sequence_model import ImaginationMemory, SequenceModel
from glamkit.ops import paired_windows
from glamkit.ops.precision import precision
from glamkit.ops.scan import LOG2_E, by_kernels
from glamkit.training.accelerate.windows import convolved, unbind_steps


class WindowPlace(NamedTuple):
    """A place of a window, as the next window needs it: u (N, I) and what is selected from it (N, R + 2 S).

    Both are in the kind of numbers of the entries, as products read and give them.
    """

    u: Tensor
    selected: Tensor


class Weights(NamedTuple):
    """Those of both blocks; what products read as the layers have it, the rest float32 with channels innermost."""

    norm: Tensor  # (M, 2, 1, D), weight and bias
    into: Tensor  # (M, 2 I, D)
    taps: Tensor  # (M, conv + 1, I), oldest first, the bias last
    select: Tensor  # (M, R + 2 S, I)
    steps: Tensor  # (M, R + 1, I), the bias last
    decays: Tensor  # (M, S + 1, I), for powers of two; the skip last
    out: Tensor  # (M, D, I)


class Pair:
    """Two blocks and their windows, which slide together.

    Args:
        norms: what normalises the tokens, of both blocks.
        mixers: both blocks.
        sizes: P of both windows.
    """

    def __init__(self, norms: tuple[nn.LayerNorm, nn.LayerNorm], mixers: tuple[Mamba, Mamba], sizes: Sequence[int]):
        self.sizes, self.eps, self.conv = list(sizes), norms[0].eps, mixers[0].conv
        taps = [torch.cat([taps, bias.unsqueeze(0)]) for taps, bias in (mixer.taps() for mixer in mixers)]
        steps = [torch.cat([mixer.dt_proj.weight.T, mixer.dt_proj.bias.unsqueeze(0)]) for mixer in mixers]
        decays = [torch.cat([mixer.decay().T * LOG2_E, mixer.D.unsqueeze(0)]) for mixer in mixers]
        self.weights = Weights(
            torch.stack([torch.stack([norm.weight, norm.bias]) for norm in norms]).unsqueeze(2),
            torch.stack([mixer.in_proj.weight for mixer in mixers]),
            torch.stack(taps).float(),
            torch.stack([mixer.x_proj.weight for mixer in mixers]),
            torch.stack(steps).to(precision(steps[0])).float(),  # rounded, as in a product
            torch.stack(decays).float(),
            torch.stack([mixer.out_proj.weight for mixer in mixers]),
        )

    def project(self, tokens: Tensor) -> Tensor:
        """The entry of tokens (M, N, D), one for each block."""
        weight, bias = self.weights.norm.unbind(1)
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=self.eps) * weight + bias
        return normed @ self.weights.into.mT

    def begin(self, mixers: tuple[Mamba, Mamba], entries: list[Tensor]) -> list[list[WindowPlace]]:
        """What the windows before would have kept: places with all their taps inside, but for the last one."""
        kept = []
        for part, (mixer, size) in enumerate(zip(mixers, self.sizes, strict=True)):
            inputs = [entry[part, :, : mixer.inner] for entry in entries[-size:]]
            places = range(self.conv - 1, size - 1)
            us = convolved(inputs, *mixer.taps(), places).to(entries[0].dtype).unbind() if places else ()
            kept.append([WindowPlace(u, mixer.x_proj(u)) for u in us])
        return kept

    def step_window(
        self, entries: list[Tensor], kept: list[list[WindowPlace]]
    ) -> tuple[Tensor, list[list[WindowPlace]]]:
        """The blocks' outputs (M, N, D) at the windows' last place, without the residual; and what the next can keep.

        Args:
            entries: those of the longer window, and maybe some before.
            kept: for each block, what the windows one place before gave.
        """
        weights, edge = self.weights, self.conv - 1
        u = paired_windows.convolved(entries, self.sizes, weights.taps)
        selected = (u.flatten(1, 2) @ weights.select.mT).view(*u.shape[:3], -1)
        new = [[WindowPlace(*place) for place in zip(*parts, strict=True)] for parts in zip(u, selected, strict=True)]
        windows = [places[:edge] + old + places[edge:] for places, old in zip(new, kept, strict=True)]
        us, picked = zip(*(place for window in windows for place in window), strict=True)
        y = paired_windows.summed(us, picked, self.sizes, entries[-1], weights.steps, weights.decays)
        return y @ weights.out.mT, [window[self.conv :] for window in windows]


class PairedSequenceModel(SequenceModel):
    """`SequenceModel` whose window memories read both modules together, where nobody wants gradients."""

    def memory(self, tokens: Tensor, kind: str = "window") -> ImaginationMemory:
        """As `SequenceModel.memory`; rows of a `Paired` one cannot be picked."""
        pairs = kind == "window" and by_kernels(tokens) and self.pairs(tokens.shape[1])
        return Paired(self, tokens) if pairs else super().memory(tokens, kind)

    def pairs(self, length: int) -> bool:
        """Whether windows over contexts of `length` steps can be read by both modules together, without gradients.

        Both then have as many new places, those that see fewer than `conv` tokens and the last one.
        """
        lone = len(self.gmamba.blocks) == 1
        return lone and not torch.is_grad_enabled() and min(self.spans(length)) >= self.mixers[0].conv

    @property
    def mixers(self) -> tuple[Mamba, Mamba]:
        """The first Mamba of each module."""
        return self.gmamba.blocks.stack[0].mixer, self.lmamba.blocks.stack[0].mixer

    def spans(self, length: int) -> tuple[int, int]:
        """How many places each module's window has over a context of `length` steps."""
        return length - 1, min(length, self.lmamba.window)


class Paired(ImaginationMemory):
    """`sequence_model.Window` by half as many kernels, for GPUs: both modules do their work together."""

    def __init__(self, model: PairedSequenceModel, tokens: Tensor) -> None:
        self.model, steps = model, unbind_steps(tokens)
        norms = model.gmamba.blocks.stack[0].norm, model.lmamba.blocks.stack[0].norm
        self.pair = Pair(norms, model.mixers, model.spans(len(steps)))
        self.out = torch.stack([cast(nn.Linear, model.gmamba.out[0]).weight, model.lmamba.out.weight])
        # The first change lies in no window.
        changes = [steps[0], *(new - old for old, new in pairwise(steps))]
        both = [torch.stack(parts) for parts in zip(changes, steps, strict=True)]
        self.token = steps[-1]
        self.entries = [self.pair.project(latest) for latest in both]
        self.kept = self.pair.begin(model.mixers, self.entries)
        self._look(both[-1])

    def read(self, token: Tensor) -> Tensor:
        """Moves both windows on by one token."""
        latest, self.token = torch.stack([token - self.token, token]), token
        self.entries = [*self.entries[1:], self.pair.project(latest)]
        return self._look(latest)

    def _look(self, latest: Tensor) -> Tensor:
        change, self.kept = self.pair.step_window(self.entries, self.kept)
        g, l = ((latest + change) @ self.out.mT).unbind()  # noqa: E741
        _, norm, activation = self.model.gmamba.out
        return self.add(self.model, activation(norm(g)), l)
