"""What is logged besides the losses, so that a run can say why it does not learn: see `diagnostics`.

Shares are of steps: hits over alarms is a precision, hits over events a recall, also of their means over updates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glamkit.ops.functional import two_hot
from glamkit.types import Batch, Float, Int, Shaped

EVERY = 4  # steps between the frames whose spread is measured: neighbours are alike, and looking costs time


@torch.no_grad()
def detection(predicted: Int[Tensor, "*n"], actual: Int[Tensor, "*n"]) -> dict[str, Tensor]:
    """Shares of all steps whose event, a value other than 0, was predicted and came, was predicted, or came."""
    hits = (predicted == actual) & (actual != 0)
    shares = {"hits": hits, "alarms": predicted != 0, "events": actual != 0}
    return {name: share.float().mean() for name, share in shares.items()}


@torch.no_grad()
def sign(weights: Float[Tensor, "*n bins"], bins: Float[Tensor, " bins"]) -> Int[Tensor, "*n"]:
    """-1, 0 or 1: whether two-hot weights lie mostly below zero, at zero or above it."""
    edge = 0.75 * (bins[1] - bins[0])  # with an even number of bins the middle two stand for zero
    sides = torch.stack([bins < -edge, bins.abs() <= edge, bins > edge], -1).float()
    return (weights @ sides).argmax(-1) - 1


@torch.no_grad()
def heads(
    reward: Float[Tensor, "*n bins"],
    rewards: Float[Tensor, "*n"],
    bins: Float[Tensor, " bins"],
    termination: Float[Tensor, "*n"],
    terminations: Shaped[Tensor, "*n"],
) -> dict[str, Tensor]:
    """What the reward and the termination head (logits of both) predicted of what came, see `detection`."""
    signs = detection(sign(reward.softmax(-1), bins), sign(two_hot(rewards, bins), bins))
    ends = detection((termination > 0).long(), (terminations > 0.5).long())
    shares = {f"reward_{name}": share for name, share in signs.items()}
    shares |= {f"termination_{name}": share for name, share in ends.items()}
    return shares | {"termination_predicted": termination.sigmoid().mean()}


@torch.no_grad()
def experience(batch: Batch) -> dict[str, Tensor]:
    """What the sampled steps hold; ``spread`` is the squared error per frame of the best still picture."""
    frames = batch.frames[:, ::EVERY].flatten(0, 1).float() / 255
    return {
        "reward": batch.rewards.mean(),
        "reward_rate": (batch.rewards != 0).float().mean(),
        "reward_size": batch.rewards.abs().mean(),
        "termination": batch.terminations.mean(),
        "spread": (frames - frames.mean(0)).square().sum() / len(frames),  # frames.var(0) takes twenty times as long
    }
