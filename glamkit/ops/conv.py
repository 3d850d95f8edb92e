"""Convolutions that halve or double the side, with kernels of 4 x 4 pixels in steps of 2, as is fast where they run.

Few channels are slow on GPUs; the results are torch's own, up to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.ops import image_conv
from glamkit.ops.functional import picture_error, pictures
from glamkit.ops.precision import precision


def blocks(x: Tensor, spare: int, margin: int = 0) -> Tensor:
    """Blocks of 2 x 2 become channels: (N, C, H, W) -> (N, 4 (C + spare), H / 2 + margin, W / 2 + margin).

    Spare channels and margin are zeros.
    """
    return F.pixel_unshuffle(F.pad(x, (margin, margin, margin, margin, 0, spare)), 2)


def faster_by_blocks(device: torch.device) -> bool:
    """Whether kernels there want channels by eights; CPUs do not, and on Apple's GPUs nobody has tried."""
    return device.type not in ("cpu", "mps")


class HalvingConv2d(nn.Conv2d):
    """A convolution for few channels C: (N, C, H, W) -> (N, out, H / 2, W / 2), H and W even; of frames in uint8 / 255.

    For 3 channels GPUs have slow kernels only. There a kernel of 4 x 4 in steps of 2 is computed as one of 2 x 2 in
    steps of 1 over blocks of 2 x 2 pixels: the same products, of four times the channels. For frames in uint8
    `image_conv` has a kernel of its own.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1, bias=False)

    @property
    def spare(self) -> int:
        """How many more channels a GPU wants: it is fast with eights, which are 16 bytes in bfloat16."""
        return self.in_channels % 2

    def forward(self, x: Tensor) -> Tensor:
        """By a kernel of its own or by blocks where that is faster."""
        if image_conv.supported(x, self.weight) and self.bias is None:
            return image_conv.halved(x, self.weight, precision(self.weight))
        return self.in_blocks(x) if faster_by_blocks(x.device) else super().forward(pictures(x))

    def in_blocks(self, x: Tensor) -> Tensor:
        """The same by blocks."""
        return F.conv2d(*self.as_blocks(x, self.weight), self.bias)

    def as_blocks(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, in the memory format of fast kernels, and weights for a convolution without padding."""
        inputs = blocks(pictures(x), self.spare, margin=1).contiguous(memory_format=torch.channels_last)
        return inputs, blocks(weight, self.spare)


class DoublingConv2d(nn.ConvTranspose2d):
    """`HalvingConv2d` backwards, for few channels out: (N, C, H, W) -> (N, out, 2 H, 2 W)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """By blocks where that is faster."""
        if output_size is None and faster_by_blocks(x.device):
            return self.in_blocks(x, self.out_channels % 2)
        return super().forward(x, output_size)

    def in_blocks(self, x: Tensor, spare: int) -> Tensor:
        """The same by blocks: in steps of 1, a transposed convolution is one with its kernel turned round.

        `spare` channels of zeros are added and taken away, see `HalvingConv2d.spare`.
        """
        assert self.bias is not None
        y = F.conv2d(x, self.turned(spare), F.pad(self.bias, (0, spare)).repeat_interleave(4), padding=1)
        # Not by slices: cropped at once, compilers do this and what follows in one pass, backwards too.
        return F.pad(F.pixel_shuffle(y, 2), (-1, -1, -1, -1, 0, -spare))

    def turned(self, spare: int) -> Tensor:
        """The kernel of `in_blocks`: (4 (out + spare), C, 2, 2)."""
        return blocks(self.weight, spare).transpose(0, 1).flip(2, 3)

    def error(self, x: Tensor, frames: Tensor) -> Tensor:
        """Squared differences between its outputs and frames / 255, (N, out, 2 H, 2 W) in uint8, summed up: (N,)."""
        if image_conv.supported(frames, self.weight):
            x = x.to(precision(self.weight), memory_format=torch.channels_last)
            return image_conv.errors(x, self.taps(), frames)[0]
        return picture_error(self(x), frames)

    def taps(self) -> Tensor:
        """Weights and bias as `image_conv.errors` wants them: (4 C + 1, 4 (out + 1))."""
        assert self.bias is not None
        bias = F.pad(self.bias, (0, 1)).repeat_interleave(4)
        return torch.cat([self.turned(1).permute(2, 3, 1, 0).flatten(0, 2), bias.unsqueeze(0)])
