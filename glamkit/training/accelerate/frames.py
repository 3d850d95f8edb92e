"""Encoder and decoder: on CPUs many frames go part by part where nothing is trained; on GPUs frames stay bytes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.networks import Decoder, Encoder
from glamkit.ops import image_conv
from glamkit.ops.conv import DoublingConv2d, HalvingConv2d
from glamkit.ops.precision import precision

SLICE = 128  # frames encoded at a time on a CPU when nothing is trained: their activations stay in its cache


class SlicingEncoder(Encoder):
    """`Encoder` that takes many frames in slices when nothing is trained: it needs less memory."""

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if self.training or torch.is_grad_enabled() or len(frames) <= SLICE:
            return super().forward(frames)
        return torch.cat([super(SlicingEncoder, self).forward(part) for part in frames.split(SLICE)])


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
                    x = image_conv.halved_relu(x, weight, bias, computed)
                    continue
                (x, weight), stride, padding = conv.as_blocks(x, weight), 1, 0
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
