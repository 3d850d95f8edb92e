"""Small things: which pixels are foreground, and how much more their errors count.

A ball is two pixels of 4,096, the last thing a squared error notices. What departs from the usual picture, a running
median of the frames trained on, is foreground. It weighs at most as much as a whole frame: the loss keeps its scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glamkit.ops.functional import squared_errors
from glamkit.types import Float, UInt8

FIRST, FALL, STEP = 128.0, 0.8, 4.0  # shades of 255: a step at first, what is left of it at the next, and the smallest


class Foreground(nn.Module):
    """The extra weight of each pixel's squared error: 0 in the background, `scale` in a small foreground.

    Frames have `size` pixels a side; those of the foreground depart from the usual picture, which is saved with the
    model, by more than `threshold`, a share of a channel's range.
    """

    usual: Tensor
    moves: Tensor

    def __init__(self, size: int, scale: float, threshold: float) -> None:
        super().__init__()
        self.scale, self.threshold = scale, threshold
        self.register_buffer("usual", torch.full((3, size, size), 127.5))
        self.register_buffer("moves", torch.zeros(()))

    def forward(self, frames: UInt8[Tensor, "B T 3 size size"]) -> Float[Tensor, "B T 1 size size"]:
        """Frames (B, T, 3, size, size) -> weights (B, T, 1, size, size) float32; in training the median moves first."""
        shades = frames.float()
        if self.training:
            with torch.no_grad():  # each pixel steps towards the side on which most of the batch lies
                step = (FIRST * FALL**self.moves).clamp(min=STEP)
                self.usual += step * (shades - self.usual).sign().mean((0, 1))
                self.moves += 1
        return emphasis((shades - self.usual).abs().amax(-3, keepdim=True) > 255 * self.threshold, self.scale)


def emphasis(departing: Tensor, scale: float) -> Tensor:
    """Weights (..., 1, size, size) of pixels that depart or not: `scale`, but a frame's mean is at most 1."""
    weights = departing.float()
    share = weights.mean((-2, -1), keepdim=True)
    return weights * (1 / share.clamp(min=1e-9)).clamp(max=scale)


def errors(painted: Tensor, frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """`squared_errors` summed over channels and pixels, (N,): plain, and by weights (N, 1, size, size)."""
    squares = squared_errors(painted, frames).sum(-3, keepdim=True)
    return squares.sum((-3, -2, -1)), (weights * squares).sum((-3, -2, -1))
