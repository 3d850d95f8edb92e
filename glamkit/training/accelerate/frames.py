"""Encoder and decoder: on CPUs frames go part by part or are known already; on GPUs they stay bytes (`image_conv`)."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.networks import Decoder, Encoder
from glamkit.ops import image_conv
from glamkit.ops.device import precision
from glamkit.ops.functional import pictures, squared_errors

SLICE = 128  # frames encoded at a time on a CPU when nothing is trained: their activations stay in its cache
CACHED = 1024  # frames of a call: more are contexts from the replay, of which few come again


class SlicingEncoder(Encoder):
    """For CPUs: `Encoder` that takes many frames in slices when nothing is trained, by `folded` layers."""

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if self.training or torch.is_grad_enabled() or len(frames) <= SLICE:
            return super().forward(frames)
        layers = [(weight.to(precision(weight)), bias.to(precision(bias))) for weight, bias in folded(self)]
        return torch.cat([embedded(part, layers) for part in frames.split(SLICE)])


class CachingEncoder(Encoder):
    """For CPUs: `Encoder` that keeps the embeddings of its last two calls, for as long as its weights stay.

    Acting asks for the frames of the past and then for the present one. An embedding is the same whichever frames are
    encoded with it, so that a run may be resumed with nothing kept.
    """

    state: tuple[object, ...] = ()  # what changes whenever weights, statistics or precision do
    newer: dict[bytes, Tensor]  # embeddings (E,) by the bytes of their frames, of the last call
    older: dict[bytes, Tensor]  # of the call before

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if self.training or torch.is_grad_enabled() or len(frames) > CACHED or frames.dtype != torch.uint8:
            return super().forward(frames)
        tensors = [*self.parameters(), *self.buffers()]
        state = precision(tensors[0]), *((tensor.data_ptr(), tensor._version) for tensor in tensors)
        if self.state != state:
            self.state, self.newer, self.older = state, {}, {}
        keys = [frame.tobytes() for frame in frames.permute(0, 2, 3, 1).cpu().numpy()]
        known = self.older | self.newer
        missing = {key: number for number, key in enumerate(keys) if key not in known}
        if missing:
            # The plain way: another, as for many frames, would round embeddings by how many are encoded together.
            made = Encoder.forward(self, frames[list(missing.values())])
            known.update(zip(missing, made, strict=True))
        self.older, self.newer = self.newer, {key: known[key] for key in keys}
        return torch.stack([known[key] for key in keys])


class BlockedConv2d(nn.ConvTranspose2d):
    """For CPUs: the decoder's last convolution, (N, C, H, W) -> (N, 3, 2 H, 2 W)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """In 16 bits its outputs come in blocks of 2 x 2: twelve at a time use a CPU core better than three."""
        if precision(x).itemsize > 2:
            return super().forward(x, output_size)
        bias = cast(Tensor, self.bias).repeat_interleave(4)
        blocks = F.conv2d(x, in_blocks(self.weight), bias, padding=1)  # (N, 12, H + 1, W + 1)
        return F.pixel_shuffle(blocks, 2)[..., 1:-1, 1:-1]


class HalvingConv2d(nn.Conv2d):
    """The encoder's first convolution, of frames in uint8 / 255: (N, 3, H, W) -> (N, out, H / 2, W / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """By a kernel of its own where it is for these frames."""
        if image_conv.supported(x, self.weight):
            return image_conv.halved(x, self.weight, None, precision(self.weight))
        return super().forward(pictures(x))


class DoublingConv2d(nn.ConvTranspose2d):
    """The decoder's last convolution, `HalvingConv2d` backwards: (N, C, H, W) -> (N, 3, 2 H, 2 W)."""

    def error(self, x: Tensor, frames: Tensor) -> Tensor:
        """Squared differences between its outputs and frames / 255, (N, 3, 2 H, 2 W) in uint8, summed up: (N,)."""
        if not image_conv.supported(frames, self.weight):
            return squared_errors(self(x), frames).sum((-3, -2, -1))
        x = x.to(precision(self.weight), memory_format=torch.channels_last)
        return image_conv.errors(x, self.taps(), frames)[0]

    def taps(self) -> Tensor:
        """Weights and bias as `image_conv.errors` wants them: (4 C + 1, 4 (3 + 1)).

        A spare colour of zeros makes 16 of 12 outputs: GPUs are fast with eights.
        """
        kernel = in_blocks(F.pad(self.weight, (0, 0, 0, 0, 0, 1)))
        bias = F.pad(cast(Tensor, self.bias), (0, 1)).repeat_interleave(4)
        return torch.cat([kernel.permute(2, 3, 1, 0).flatten(0, 2), bias.unsqueeze(0)])


class FrameEncoder(Encoder):
    """`Encoder` for GPUs, which reads frames as bytes; its first layer is a `HalvingConv2d`."""

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        trained = self.training or torch.is_grad_enabled()
        return nn.Sequential.forward(self, frames) if trained else self.at_once(frames)

    def at_once(self, frames: Tensor) -> Tensor:
        """The same function in evaluation, each layer one kernel."""
        return embedded(frames, folded(self))


class FrameDecoder(Decoder):
    """`Decoder` for GPUs, which compares with frames as bytes; its last layer is a `DoublingConv2d`."""

    def error(self, latents: Tensor, frames: Tensor) -> Tensor:
        """As `Decoder.error`."""
        *layers, last = self
        for layer in layers:
            latents = layer(latents)
        return cast(DoublingConv2d, last).error(latents, frames)


def in_blocks(weight: Tensor) -> Tensor:
    """A kernel (C, out, 4, 4) of `ConvTranspose2d` in steps of 2 as one (4 out, C, 2, 2) of `Conv2d`: 2 x 2 blocks."""
    return F.pixel_unshuffle(weight, 2).transpose(0, 1).flip(2, 3)


def folded(encoder: Encoder) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution in evaluation, its BatchNorm inside."""
    layers: list[Any] = list(encoder)[:-1]
    scales = [norm.weight * (norm.running_var + norm.eps).rsqrt() for norm in layers[1::3]]
    return [
        (conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)
        for conv, norm, scale in zip(layers[::3], layers[1::3], scales, strict=True)
    ]


def embedded(x: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """`Encoder.forward` of frames in evaluation, by `folded` layers."""
    for weight, bias in layers:
        computed = precision(weight)
        if image_conv.supported(x, weight):
            x = image_conv.halved(x, weight, bias, computed)
        else:
            x = convolution_relu(*(part.to(computed) for part in (pictures(x), weight, bias)))
    return x.flatten(1)


@torch.library.custom_op("glamkit::convolution_relu", mutates_args=())
def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of a convolution in steps of 2, channels last: cuDNN has that in one kernel."""
    x, weight = (part.contiguous(memory_format=torch.channels_last) for part in (x, weight))
    if x.device.type != "cpu" and torch.backends.cudnn.is_available() and torch.version.hip is None:
        return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, [2, 2], [1, 1], [1, 1], 1)
    return F.conv2d(x, weight, bias, stride=2, padding=1).relu_()


@convolution_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(F.conv2d(x, weight, bias, stride=2, padding=1), memory_format=torch.channels_last)
