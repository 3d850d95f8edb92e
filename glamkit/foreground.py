"""Small things: which pixels are foreground, and how much more their errors count.

A ball is two pixels of 4,096, the last thing a squared error notices. Background subtraction finds such things: what
departs from the usual picture is foreground. Here the usual picture is the batch's own mean, so that nothing needs to
be kept or saved. Where much departs, as when the background scrolls, each pixel counts less: the foreground of a frame
weighs at most as much as the whole frame, so that the loss keeps its scale.
"""

from __future__ import annotations

from torch import Tensor

from glamkit.shapes import Float, UInt8


def emphasis(
    frames: UInt8[Tensor, "B T 3 size size"], scale: float, threshold: float
) -> Float[Tensor, "B T 1 size size"]:
    """The extra weight of each pixel's squared error: 0 in the background, `scale` in a small foreground.

    A foreground of more than 1 / `scale` of a frame's pixels gets 1 / its share, so that a frame's mean is at most 1.

    Args:
        frames: B windows of T frames, uint8.
        scale: weight of a foreground pixel, beside the 1 that every pixel has.
        threshold: share of a channel's range by which a pixel of the foreground departs from the background.

    Returns:
        (B, T, 1, size, size) float32, without a gradient.
    """
    departing = departs(frames, threshold).float()
    share = departing.mean((-2, -1), keepdim=True)
    return departing * (1 / share.clamp(min=1e-9)).clamp(max=scale)


def departs(frames: UInt8[Tensor, "B T 3 size size"], threshold: float) -> Tensor:
    """Which pixels (B, T, 1, size, size) differ from the mean of all frames by over `threshold` in any channel."""
    shades = frames.float()
    gaps = (shades - shades.mean((0, 1), keepdim=True)).abs()
    return gaps.amax(-3, keepdim=True) > 255 * threshold


def errors(pictures: Tensor, frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors of pictures (N, 3, size, size) against frames / 255 in uint8, summed up plainly and weighted.

    Args:
        pictures: decoded, about [0, 1].
        frames: real, uint8.
        weights: (N, 1, size, size).

    Returns:
        Two sums (N,) float32 over channels and pixels.
    """
    squares = (pictures.float() - frames.float() / 255).square().sum(-3, keepdim=True)
    return squares.sum((-3, -2, -1)), (weights * squares).sum((-3, -2, -1))
