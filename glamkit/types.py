"""What the packages hand each other: real steps, contexts of them, imagined rollouts; and array types with a shape.

``Float[Tensor, "B T D"]`` names the axes by the letters of the glossary in `models.world_model`. Only the tests check
them. A single axis is written ``" B"`` with a space, so that linters do not take it for the name of a type.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from glamkit.runtime import send

try:
    from jaxtyping import Float, Int, Shaped, UInt8
except ImportError:  # only the tests need it
    from typing import Annotated

    Float = Int = Shaped = UInt8 = Annotated


class Batch(NamedTuple):
    """B windows of T consecutive real steps; a step is (frame seen, action taken, its reward, its termination)."""

    frames: UInt8[Tensor, "B T 3 size size"]
    actions: Int[Tensor, "B T"]
    rewards: Float[Tensor, "B T"]  # unclipped
    terminations: Float[Tensor, "B T"]  # 0 or 1


class Context(NamedTuple):
    """Real steps before a rollout, encoded."""

    latents: Float[Tensor, "N L Z"]
    actions: Int[Tensor, "N L"]


class Rollout(NamedTuple):
    """An imagined rollout: states [z, h], rounded under autocast; for each of its H actions reward and termination."""

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
