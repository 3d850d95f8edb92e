"""A stretch of steps as the model reads it; step i leads from frame i to frame i + 1, and h_i has seen
frame and action i.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.analysis.rollouts import looking
from glamkit.config import TrainerConfig
from glamkit.errors import GlamkitError
from glamkit.ops.functional import kl_categorical, one_hot_likeliest, two_hot_mean
from glamkit.training.load import LoadedRun

# In units of: length of the change, nats, reward, probability.
QUANTITIES = ("hidden state", "next latent", "reward", "termination")


class Reading(NamedTuple):
    """n steps in a row. Tokens also hold the steps before, which are only read; frames one more, to compare."""

    numbers: Tensor  # (n,) of the steps in the run
    frames: Tensor  # (n + 1, 3, size, size) uint8
    embedding: Tensor  # (n + 1, E)
    posterior: Tensor  # (n + 1, K, C) log-probabilities
    tokens: Tensor  # (before + n, D)
    variation: Tensor  # (n, D): g, from which the variation is predicted
    globally: Tensor  # (n, D): what GMamba adds to h; 0 where it is left out
    locally: Tensor  # (n, D): what LMamba adds

    @property
    def hidden(self) -> Tensor:
        """(n, D): h."""
        return self.globally + self.locally


class Lens:
    """Reads the steps of a run with its world model, under the conditions it was trained in.

    In training a step is read after at most `sequence_length - 1` others. So a long stretch is read in pieces, each
    after `before` steps that overlap the piece before it.
    """

    def __init__(self, loaded: LoadedRun) -> None:
        self.model, self.replay, self.machine = loaded.agent.world_model, loaded.replay, loaded.machine
        self.span = loaded.config.replay.sequence_length
        self.before = max(self.model.config.window, self.span // 2)

    def read(self, start: int, length: int, seed: int = 0) -> Reading:
        """The real steps start .. start + length - 1.

        Raises:
            GlamkitError: some of them, of those before or the one after are not stored.
        """
        first, end = self.replay.oldest + self.before, self.replay.count - 2
        if length < 1 or not first <= start <= end - length + 1:
            raise GlamkitError(
                f"start = {start} with length = {length} is not within the steps that can be looked at, {first:,} to "
                f"{end:,}: the {self.before} before are only read."
            )
        with looking(self.model, self.machine, TrainerConfig(seed=seed).seed):
            steps = self.replay.window(torch.tensor([start - self.before]), self.before + length + 1)
            seen, last = self.model.observe(steps.frames), slice(self.before, None)
            tokens = self.model.tokens(seen.latent, steps.actions)[0, :-1]
            return Reading(
                start + torch.arange(length),
                steps.frames[0, last],
                seen.embedding[0, last],
                seen.posterior[0, last].float(),
                tokens,
                *self.branches(tokens),
            )

    def branches(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (before + n, D) -> g, and what GMamba and LMamba add to h; all (n, D)."""
        model, piece, count = self.model.sequence_model, self.span - self.before, len(tokens) - self.before
        filled = F.pad(tokens, (0, 0, 0, -count % piece))  # nothing looks ahead, so the filling is not seen
        windows = filled.unfold(0, self.span, piece).transpose(1, 2)
        g = model.gmamba(windows)[:, -piece:].flatten(0, 1)[:count].float()
        return g, *self.added(g, model.lmamba(tokens[None])[0, -count:].float())

    def added(self, g: Tensor, l: Tensor) -> tuple[Tensor, Tensor]:  # noqa: E741 - the paper's letter
        """What the branches add to h: in an ablation one of them adds nothing."""
        modules = self.model.sequence_model.added
        return g * float(modules != "lmamba"), l * float(modules != "gmamba")

    def predict(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The heads on (..., D): log-probabilities (..., K, C) of latents, expected reward, probability of the end."""
        model = self.model
        with looking(model, self.machine, 0):
            reward = two_hot_mean(model.reward(hidden).float(), model.bins)
            return model.prior(hidden).float(), reward, model.termination(hidden).squeeze(-1).float().sigmoid()

    def effect(self, hidden: Tensor, other: Tensor) -> Tensor:
        """How far h and each prediction move when h becomes `other` (..., D): (..., 4), see `QUANTITIES`."""
        (latent, reward, end), (latent_now, reward_now, end_now) = self.predict(hidden), self.predict(other)
        surprise = kl_categorical(latent, latent_now).clamp(min=0)
        moved = [(hidden - other).norm(dim=-1), surprise, (reward - reward_now).abs(), (end - end_now).abs()]
        return torch.stack(moved, -1)

    def likely(self, logits: Tensor) -> Tensor:
        """Log-probabilities (..., K, C) -> a latent (..., Z): the likeliest classes where training draws latents."""
        if self.model.config.latents == "probabilities":
            return logits.exp().flatten(-2)
        return one_hot_likeliest(logits).flatten(-2)
