"""What the rooms hand each other: real steps, contexts of them, and dreams. Letters as in `world_model`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from glamkit.runtime import send
from glamkit.shapes import Float, Int, UInt8


class Batch(NamedTuple):
    """B windows of T consecutive real steps; a step is (frame seen, action taken, its reward, its termination)."""

    frames: UInt8[Tensor, "B T 3 size size"]
    actions: Int[Tensor, "B T"]
    rewards: Float[Tensor, "B T"]  # unclipped
    terminations: Float[Tensor, "B T"]  # 0 or 1


class Context(NamedTuple):
    """Real steps before a dream, encoded."""

    latents: Float[Tensor, "N L Z"]
    actions: Int[Tensor, "N L"]


class Rollout(NamedTuple):
    """A dream: states [z, h], and for each of its H actions the reward and termination.

    Under autocast states may be rounded, see `WorldModel.foresee`.
    """

    states: Float[Tensor, "N H+1 Z+D"]
    actions: Int[Tensor, "N H"]
    rewards: Float[Tensor, "N H"]
    terminations: Float[Tensor, "N H"]


def choose_contexts(batch: Batch, latents: Tensor, count: int, length: int) -> Context:
    """`count` contexts of `length` steps at random places of a batch just encoded as latents (B, T, Z)."""
    rows, steps = batch.actions.shape
    row = torch.randint(rows, (count, 1))
    place = torch.randint(steps - length + 1, (count, 1)) + torch.arange(length)
    chosen = send(row * steps + place, latents.device)
    return Context(latents.detach().flatten(0, 1)[chosen], batch.actions.flatten()[chosen])
