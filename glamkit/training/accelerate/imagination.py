"""Imagined steps on GPUs: choices by one kernel each, and GMamba's and LMamba's block as one, a batch of two.

Otherwise an imagined step is some fifty kernels, most so small that starting them takes as long as they do. Both blocks
have the same sizes, so that one kernel can do the same part of both.

Letters: M = 2 blocks, N rows, I inner channels, S states, R rank of the step sizes, P places of a window, of which K
are new: the first few, and the last one. An entry is what `Paired.project` gives for one token: (M, N, 2 I).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.actor_critic import ActorCritic
from glamkit.models.sequence_model import ImaginationMemory, SequenceModel
from glamkit.models.world_model import WorldModel
from glamkit.ops import imagination as ops
from glamkit.ops.device import float32, precision
from glamkit.ops.functional import one_hot_sample
from glamkit.ops.scan import LOG2_E, by_kernels
from glamkit.training.accelerate.windows import convolved


class SampledStates(WorldModel):
    """`WorldModel` that chooses latents and reads tokens by the operations of `ops.imagination`."""

    def tokens(self, latents: Tensor, actions: Tensor) -> Tensor:
        """As `WorldModel.tokens`."""
        one_hot = self.config.latents != "probabilities"
        if not (one_hot and ops.supported(latents, self.config.variables * self.config.width)):
            return super().tokens(latents, actions)
        first, norm, _, last = self.stem
        scale, shift, classes = norm.weight, norm.bias, self.config.classes
        with float32(latents):
            return last(ops.tokens(latents, actions, first.weight, scale, shift, classes, norm.eps))

    def predict_states(self, hidden: Tensor) -> Tensor:
        """As `WorldModel.predict_states`, rounded once, as all products that read the states would do."""
        if self.sample is not one_hot_sample or not ops.supported(hidden, self.features):
            return super().predict_states(hidden)
        logits, (variables, classes) = nn.Linear.forward(self.prior, hidden), self.prior.shape
        uniform = torch.rand(*hidden.shape[:-1], variables, 1, device=hidden.device)
        return ops.states(logits, uniform, hidden, classes, self.prior.share, precision(hidden))


class SampledActions(ActorCritic):
    """`ActorCritic` that chooses actions by the operation of `ops.imagination`."""

    def act(self, states: Tensor) -> Tensor:
        """As `ActorCritic.act`."""
        if not ops.supported(states, self.actions * self.config.width):
            return super().act(states)
        *layers, norm, _, last = self.actor
        for layer in layers:
            states = layer(states)
        uniform = torch.rand(*states.shape[:-1], 1, device=states.device)
        return ops.actions(states, uniform, norm.weight, norm.bias, last.weight, last.bias, norm.eps)


class PairedSequenceModel(SequenceModel):
    """`SequenceModel` whose window memories read both modules together, where nobody wants gradients."""

    def memory(self, tokens: Tensor, kind: str = "window") -> ImaginationMemory:
        """As `SequenceModel.memory`; paired are windows with at least `conv` places, so that as many are new."""
        length, conv = tokens.shape[1], self.gmamba.blocks.stack[0].mixer.conv
        sizes = [length - 1, min(length, self.lmamba.window)]
        alike = len(self.gmamba.blocks) == 1 and min(sizes) >= conv
        if alike and kind == "window" and by_kernels(tokens) and not torch.is_grad_enabled():
            return Paired(self, tokens, sizes)
        return super().memory(tokens, kind)


class Paired(ImaginationMemory):
    """`WindowShared` of two windows of P = `sizes` by half as many kernels; u is kept as products read it."""

    def __init__(self, model: SequenceModel, tokens: Tensor, sizes: list[int]) -> None:
        self.model, self.sizes = model, sizes
        steps = tokens.transpose(0, 1).contiguous().unbind()  # in memory as those to come, for compilers
        blocks = [part.blocks.stack[0] for part in (model.gmamba, model.lmamba)]
        mixers = [block.mixer for block in blocks]
        self.eps, self.conv = blocks[0].norm.eps, mixers[0].conv
        taps = [torch.cat([taps, bias.unsqueeze(0)]) for taps, bias in (mixer.taps() for mixer in mixers)]
        times = [torch.cat([mixer.dt_proj.weight.T, mixer.dt_proj.bias.unsqueeze(0)]) for mixer in mixers]
        decays = [torch.cat([mixer.decay().T * LOG2_E, mixer.D.unsqueeze(0)]) for mixer in mixers]
        # Of both blocks; what products read is as the layers have it, the rest float32 with channels innermost.
        self.scale = torch.stack([block.norm.weight for block in blocks]).unsqueeze(1)  # (M, 1, D)
        self.shift = torch.stack([block.norm.bias for block in blocks]).unsqueeze(1)
        self.into = torch.stack([mixer.in_proj.weight for mixer in mixers])  # (M, 2 I, D)
        self.taps = torch.stack(taps).float()  # (M, conv + 1, I), oldest first, the bias last
        self.select = torch.stack([mixer.x_proj.weight for mixer in mixers])  # (M, R + 2 S, I)
        # (M, R + 1, I), the bias last; rounded, as in a product
        self.steps = torch.stack(times).to(precision(times[0])).float()
        self.decays = torch.stack(decays).float()  # (M, S + 1, I), for powers of two; the skip last
        self.back = torch.stack([mixer.out_proj.weight for mixer in mixers])  # (M, D, I)
        self.out = torch.stack([cast(nn.Linear, model.gmamba.out[0]).weight, model.lmamba.out.weight])  # (M, D, D)
        # The first change lies in no window.
        changes = [steps[0], *(new - old for old, new in pairwise(steps))]
        both = [torch.stack(parts) for parts in zip(changes, steps, strict=True)]
        self.token = steps[-1]
        self.entries = [self.project(latest) for latest in both]
        # As if windows had stood one place before: u (N, I) and what is selected of it (N, R + 2 S) at each place
        # with all its taps inside, but for the last one; both in the kind of numbers of the entries.
        self.kept: list[list[tuple[Tensor, Tensor]]] = []
        for part, (mixer, size) in enumerate(zip(mixers, sizes, strict=True)):
            inputs = [entry[part, :, : mixer.inner] for entry in self.entries[-size:]]
            places = range(self.conv - 1, size - 1)
            us = convolved(inputs, *mixer.taps(), places).to(self.entries[0].dtype).unbind() if places else ()
            self.kept.append([(u, mixer.x_proj(u)) for u in us])
        self._look(both[-1])

    def read(self, token: Tensor) -> Tensor:
        """Moves both windows on by one token."""
        latest, self.token = torch.stack([token - self.token, token]), token
        self.entries = [*self.entries[1:], self.project(latest)]
        return self._look(latest)

    def project(self, tokens: Tensor) -> Tensor:
        """The entry (M, N, 2 I) of tokens (M, N, D), one for each block."""
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=self.eps) * self.scale + self.shift
        return normed @ self.into.mT

    def _look(self, latest: Tensor) -> Tensor:
        u = ops.convolved(self.entries, self.sizes, self.taps)
        selected = (u.flatten(1, 2) @ self.select.mT).view(*u.shape[:3], -1)
        new, edge = [list(zip(*parts, strict=True)) for parts in zip(u, selected, strict=True)], self.conv - 1
        windows = [places[:edge] + old + places[edge:] for places, old in zip(new, self.kept, strict=True)]
        us, picked = zip(*(place for window in windows for place in window), strict=True)
        y = ops.summed(us, picked, self.sizes, self.entries[-1], self.steps, self.decays)
        self.kept = [window[self.conv :] for window in windows]
        g, l = ((latest + y @ self.back.mT) @ self.out.mT).unbind()  # noqa: E741
        _, norm, activation = self.model.gmamba.out
        return self.add(self.model, activation(norm(g)), l)
