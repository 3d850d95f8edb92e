"""What the global and the local branch make of every step, and what the model expects to change.

A `Reading` is a stretch of steps as the model reads it, real or dreamt; everything else is measured on readings.
Letters as in `world_model`; step i leads from frame i to frame i + 1, and h_i has seen frame i and action i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.analysis.rollouts import looking, pictures
from glamkit.config import ImaginationConfig, coerce
from glamkit.errors import GlamkitError
from glamkit.models.world_model import Policy, WorldModel
from glamkit.ops.functional import kl_categorical, one_hot_likeliest, two_hot_mean
from glamkit.runtime import Machine
from glamkit.training.load import LoadedRun
from glamkit.training.replay import Replay
from glamkit.types import Context

QUANTITIES = ("hidden state", "next latent", "reward", "termination")
UNITS = ("length of the change", "nats", "reward", "probability")


class Reading(NamedTuple):
    """B stretches of n steps. Tokens also hold the steps before, which are only read; frames one more, to compare."""

    numbers: Tensor  # (B, n) of the steps in the run
    frames: Tensor  # (B, n + 1, 3, size, size) uint8
    rewards: Tensor  # (B, n)
    terminations: Tensor  # (B, n)
    embedding: Tensor  # (B, n + 1, E)
    posterior: Tensor  # (B, n + 1, K, C) log-probabilities
    tokens: Tensor  # (B, before + n, D)
    variation: Tensor  # (B, n, D): g, from which the variation is predicted
    globally: Tensor  # (B, n, D): what GMamba adds to h; 0 where it is left out
    locally: Tensor  # (B, n, D): what LMamba adds

    @property
    def hidden(self) -> Tensor:
        """(B, n, D): h."""
        return self.globally + self.locally


class Predictions(NamedTuple):
    """What is read off hidden states (..., D)."""

    latent: Tensor  # (..., K, C) log-probabilities
    reward: Tensor  # (...) expected
    termination: Tensor  # (...) probability


class Lens:
    """Reads steps with a world model, under the conditions it was trained in.

    In training a step is read after at most `sequence_length - 1` others. So a long stretch is read in pieces, each
    after `before` steps that overlap the piece before it.

    Args:
        model: the world model.
        replay: where the real steps are.
        machine: where the model computes.
        sequence_length: T of training.
    """

    def __init__(self, model: WorldModel, replay: Replay, machine: Machine, sequence_length: int) -> None:
        self.model, self.replay, self.machine, self.span = model, replay, machine, sequence_length
        self.before = max(model.config.window, sequence_length // 2)

    @classmethod
    def over(cls, loaded: LoadedRun) -> Lens:
        """The lens of a run."""
        return cls(loaded.agent.world_model, loaded.replay, loaded.machine, loaded.config.replay.sequence_length)

    def read(self, starts: Sequence[int], length: int, seed: int = 0) -> Reading:
        """The real steps start .. start + length - 1 of each start.

        Raises:
            GlamkitError: some of them, of those before or the one after are not stored.
        """
        self.check(min(starts), length)
        self.check(max(starts), length)
        with looking(self.model, self.machine, checked(seed)):
            steps = self.replay.window(torch.tensor(starts) - self.before, self.before + length + 1)
            seen, last = self.model.observe(steps.frames), slice(self.before, None)
            tokens = self.model.tokens(seen.latent, steps.actions)[:, :-1]
            return Reading(
                torch.tensor(starts).unsqueeze(1) + torch.arange(length),
                steps.frames[:, last],
                steps.rewards[:, self.before : -1],
                steps.terminations[:, self.before : -1],
                seen.embedding[:, last],
                seen.posterior[:, last].float(),
                tokens,
                *self.branches(tokens),
            )

    def dream(self, policy: Policy, imagination: ImaginationConfig, start: int, length: int, seed: int = 0) -> Reading:
        """A dream of `length` steps that begins where the real step `start` did, read as if it had happened.

        Its first frame is what the model expects after step start - 1. The latents that came are those it drew from,
        the variation that came is that of its own pictures.
        """
        self.check(start, length)
        seen = imagination.context_length
        read = min(max(self.before, seen), start - self.replay.oldest)
        steps = self.replay.window(torch.tensor([start - read]), read)
        with looking(self.model, self.machine, checked(seed)):
            latents = self.model.observe(steps.frames).latent
            context = Context(latents[:, -seen:], steps.actions[:, -seen:])
            rollout = self.model.imagine(policy, context, length, imagination.memory)
            dreamt = rollout.states[..., : self.model.latent]
            frames = torch.from_numpy(pictures(self.model.decode(dreamt)[0])).permute(0, 3, 1, 2).unsqueeze(0)
            embedding = self.model.embed(frames.to(dreamt.device))
            drawn_from = self.model.prior(rollout.states[..., self.model.latent :]).float()
            real = self.model.tokens(latents, steps.actions)[:, -self.before :]
            tokens = torch.cat([real, self.model.tokens(dreamt[:, :-1], rollout.actions)], 1)
            numbers = start + torch.arange(length).unsqueeze(0)
            outcome = (rollout.rewards.float(), rollout.terminations)
            return Reading(numbers, frames, *outcome, embedding, drawn_from, tokens, *self.branches(tokens))

    def check(self, start: int, length: int) -> None:
        """Refuses a stretch that is not stored.

        Raises:
            GlamkitError: it starts too early, is too long or empty.
        """
        first, end = self.replay.oldest + self.before, self.replay.count - 1
        if length < 1:
            raise GlamkitError(f"length = {length} is outside its range: at least 1.")
        if start < first < end:
            raise GlamkitError(
                f"start = {start} is too close to the beginning: {self.before} steps before it are needed, and the "
                f"replay holds steps from {self.replay.oldest:,} on; use at least {first}."
            )
        if length > end - first:
            stored = f"the replay holds {len(self.replay):,} steps, of which the first {self.before} are only read"
            raise GlamkitError(f"length = {length} is too long: {stored}; use at most {max(end - first, 0)}.")
        if start > end - length:
            raise GlamkitError(
                f"start = {start} with length = {length} goes beyond the stored steps, of which the last is {end:,}; "
                f"use a start of at most {end - length}."
            )

    def branches(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, before + n, D) -> g, and what GMamba and LMamba add to h; all (B, n, D)."""
        model, piece, count = self.model.sequence_model, self.span - self.before, tokens.shape[1] - self.before
        pieces = -(-count // piece)
        filled = F.pad(tokens, (0, 0, 0, pieces * piece - count))  # nothing looks ahead, so the filling is not seen
        windows = filled.unfold(1, self.span, piece).transpose(2, 3)
        g = model.gmamba(windows.flatten(0, 1))[:, -piece:].unflatten(0, windows.shape[:2])
        g = g.flatten(1, 2)[:, :count].float()
        return g, *self.added(g, model.lmamba(tokens)[:, -count:].float())

    def added(self, g: Tensor, l: Tensor) -> tuple[Tensor, Tensor]:  # noqa: E741 - the paper's letter
        """What the branches add to h: in an ablation one of them adds nothing."""
        modules = self.model.sequence_model.added
        return g * float(modules != "lmamba"), l * float(modules != "gmamba")

    def hidden(self, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """The hidden state of the branches' outputs, of any one shape."""
        return self.model.sequence_model.hidden(g, l)

    def predict(self, hidden: Tensor) -> Predictions:
        """The heads on hidden states (..., D)."""
        model = self.model
        with looking(model, self.machine, 0):
            reward = two_hot_mean(model.reward(hidden).float(), model.bins)
            return Predictions(
                model.prior(hidden).float(), reward, model.termination(hidden).squeeze(-1).float().sigmoid()
            )

    def effect(self, hidden: Tensor, other: Tensor) -> Tensor:
        """How far h and each prediction move when h becomes `other` (..., D): (..., 4), see `QUANTITIES`, `UNITS`."""
        before, after = self.predict(hidden), self.predict(other)
        moved = [
            (hidden - other).norm(dim=-1),
            kl_categorical(before.latent, after.latent).clamp(min=0),
            (before.reward - after.reward).abs(),
            (before.termination - after.termination).abs(),
        ]
        return torch.stack(moved, -1)

    def likely(self, logits: Tensor) -> Tensor:
        """Log-probabilities (..., K, C) -> one latent (..., Z) without chance.

        The likeliest classes where latents are drawn in training, else the probabilities.
        """
        if self.model.config.latents == "probabilities":
            return logits.exp().flatten(-2)
        return one_hot_likeliest(logits).flatten(-2)


def checked(seed: int) -> int:
    """A seed, if it is one.

    Raises:
        GlamkitError: it is not.
    """
    if not 0 <= (number := coerce("seed", seed, int)) < 2**31:
        raise GlamkitError(f"seed = {number} is outside 0 to {2**31 - 1}.")
    return number
