"""Encoder and decoder: on CPUs many frames go part by part where nothing is trained; on GPUs frames stay bytes.

For 3 channels GPUs have slow kernels only. There a kernel of 4 x 4 pixels in steps of 2 is computed as one of 2 x 2 in
steps of 1 over blocks of 2 x 2 pixels: the same products, of four times the channels. For frames in bytes `image_conv`
has kernels of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.networks import Decoder, Encoder
from glamkit.ops import image_conv
from glamkit.ops.functional import picture_error, pictures
from glamkit.ops.precision import precision

SLICE = 128  # frames encoded at a time on a CPU when nothing is trained: their activations stay in its cache


class SlicingEncoder(Encoder):
    """`Encoder` that takes many frames in slices when nothing is trained: it needs less memory."""

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if self.training or torch.is_grad_enabled() or len(frames) <= SLICE:
            return super().forward(frames)
        return torch.cat([super(SlicingEncoder, self).forward(part) for part in frames.split(SLICE)])


# A convolution from pictures and one to pictures ---------------------------------------------------------------------


def faster_by_blocks(device: torch.device) -> bool:
    """Whether kernels there want channels by eights; CPUs do not, and on Apple's GPUs nobody has tried."""
    return device.type not in ("cpu", "mps")


def blocks(x: Tensor, margin: int = 0) -> Tensor:
    """Blocks of 2 x 2 become channels: (N, C, H, W) -> (N, 4 (C + 1), H / 2 + margin, W / 2 + margin).

    The margin is zeros, and so is a spare channel: GPUs are fast with eights, which are 16 bytes in bfloat16.
    """
    return F.pixel_unshuffle(F.pad(x, (margin, margin, margin, margin, 0, 1)), 2)


def as_blocks(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs, in the memory format of fast kernels, and weights for a convolution without padding."""
    return blocks(pictures(x), margin=1).contiguous(memory_format=torch.channels_last), blocks(weight)


class HalvingConv2d(nn.Conv2d):
    """The encoder's first convolution: (N, 3, H, W) -> (N, out, H / 2, W / 2), H and W even; of frames in uint8 / 255.

    The results are torch's own, up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """By a kernel of its own or by blocks where that is faster."""
        if image_conv.supported(x, self.weight):
            return image_conv.halved(x, self.weight, None, precision(self.weight))
        return self.in_blocks(x) if faster_by_blocks(x.device) else super().forward(pictures(x))

    def in_blocks(self, x: Tensor) -> Tensor:
        """The same by blocks."""
        return F.conv2d(*as_blocks(x, self.weight))


class DoublingConv2d(nn.ConvTranspose2d):
    """The decoder's last convolution, `HalvingConv2d` backwards: (N, C, H, W) -> (N, 3, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """By blocks where that is faster."""
        return self.in_blocks(x) if faster_by_blocks(x.device) else super().forward(x)

    def in_blocks(self, x: Tensor) -> Tensor:
        """The same by blocks: in steps of 1, a transposed convolution is one with its kernel turned round."""
        y = F.conv2d(x, self.turned(), self.spread_bias(), padding=1)
        # Not by slices: cropped at once, compilers do this and what follows in one pass, backwards too.
        return F.pad(F.pixel_shuffle(y, 2), (-1, -1, -1, -1, 0, -1))

    def turned(self) -> Tensor:
        """The kernel of `in_blocks`: (4 (3 + 1), C, 2, 2)."""
        return blocks(self.weight).transpose(0, 1).flip(2, 3)

    def spread_bias(self) -> Tensor:
        """The bias of `in_blocks`: (4 (3 + 1),)."""
        assert self.bias is not None
        return F.pad(self.bias, (0, 1)).repeat_interleave(4)

    def error(self, x: Tensor, frames: Tensor) -> Tensor:
        """Squared differences between its outputs and frames / 255, (N, 3, 2 H, 2 W) in uint8, summed up: (N,)."""
        if image_conv.supported(frames, self.weight):
            x = x.to(precision(self.weight), memory_format=torch.channels_last)
            return image_conv.errors(x, self.taps(), frames)[0]
        return picture_error(self(x), frames)

    def taps(self) -> Tensor:
        """Weights and bias as `image_conv.errors` wants them: (4 C + 1, 4 (3 + 1))."""
        return torch.cat([self.turned().permute(2, 3, 1, 0).flatten(0, 2), self.spread_bias().unsqueeze(0)])


# Encoder and decoder with them ----------------------------------------------------------------------------------------


class FrameEncoder(Encoder):
    """`Encoder` for GPUs, which reads frames as bytes; its first layer is a `HalvingConv2d`."""

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if not (self.training or torch.is_grad_enabled()):
            return self.at_once(frames)
        for layer in self:
            frames = layer(frames)
        return frames

    def at_once(self, x: Tensor) -> Tensor:
        """The same function in evaluation: each layer is one kernel, its BatchNorm inside the convolution."""
        computed = precision(_layers(self)[0][0].weight)
        for conv, norm in _layers(self):
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
            stride, padding = 2, 1
            if isinstance(conv, HalvingConv2d):
                if image_conv.supported(x, weight):
                    x = image_conv.halved(x, weight, bias, computed)
                    continue
                (x, weight), stride, padding = as_blocks(x, weight), 1, 0
            x = convolution_relu(*(part.to(computed) for part in (x, weight, bias)), stride, padding)
        return x.flatten(1)


class FrameDecoder(Decoder):
    """`Decoder` for GPUs, which compares with frames as bytes; its last layer is a `DoublingConv2d`."""

    def error(self, latents: Tensor, frames: Tensor) -> Tensor:
        """As `Decoder.error`."""
        *layers, last = self
        for layer in layers:
            latents = layer(latents)
        assert isinstance(last, DoublingConv2d)
        return last.error(latents, frames)


def _layers(encoder: nn.Sequential) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The encoder's convolutions with their norms."""
    pairs = []
    for conv, norm in zip(list(encoder)[:-1:3], list(encoder)[1::3], strict=True):
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        pairs.append((conv, norm))
    return pairs


@torch.library.custom_op("glamkit::convolution_relu", mutates_args=())
def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """ReLU of a convolution, channels last: cuDNN has that in one kernel."""
    x, weight = (part.contiguous(memory_format=torch.channels_last) for part in (x, weight))
    if x.device.type != "cpu" and torch.backends.cudnn.is_available() and torch.version.hip is None:
        steps, margins = [stride, stride], [padding, padding]
        return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, steps, margins, [1, 1], 1)
    return F.conv2d(x, weight, bias, stride, padding).relu_()


@convolution_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    y = F.conv2d(x, weight, bias, stride, padding)
    return torch.empty_like(y, memory_format=torch.channels_last)
