"""Parts without ideas of their own: encoder, decoder, MLP heads, categorical heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glamkit.codes import CodeLinear, Codes, Inputs
from glamkit.functional import unimix


def blocks(x: Tensor, spare: int, margin: int = 0) -> Tensor:
    """Blocks of 2 x 2 become channels: (N, C, H, W) -> (N, 4 (C + spare), H / 2 + margin, W / 2 + margin).

    Spare channels and margin are zeros.
    """
    return F.pixel_unshuffle(F.pad(x, (margin, margin, margin, margin, 0, spare)), 2)


def likes_blocks(device: torch.device) -> bool:
    """Whether kernels there are slow for few channels; on CPUs they are not, and on Apple's GPUs nobody has tried."""
    return device.type not in ("cpu", "mps")


class HalvingConv2d(nn.Conv2d):
    """A convolution for few channels C: (N, C, H, W) -> (N, out, H / 2, W / 2), H and W even.

    For 3 channels GPUs have slow kernels only. There a kernel of 4 x 4 in steps of 2 is computed as one of 2 x 2 in
    steps of 1 over blocks of 2 x 2 pixels: the same products, of four times the channels.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1, bias=False)

    @property
    def spare(self) -> int:
        """How many more channels a GPU wants: it is fast with eights, which are 16 bytes in bfloat16."""
        return self.in_channels % 2

    def forward(self, x: Tensor) -> Tensor:
        """By blocks where that is faster."""
        return self.in_blocks(x) if likes_blocks(x.device) else super().forward(x)

    def in_blocks(self, x: Tensor) -> Tensor:
        """The same by blocks."""
        return F.conv2d(*self.as_blocks(x, self.weight), self.bias)

    def as_blocks(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, in the memory format of fast kernels, and weights for a convolution without padding."""
        inputs = blocks(x, self.spare, margin=1).contiguous(memory_format=torch.channels_last)
        return inputs, blocks(weight, self.spare)


class DoublingConv2d(nn.ConvTranspose2d):
    """`HalvingConv2d` backwards, for few channels out: (N, C, H, W) -> (N, out, 2 H, 2 W)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """By blocks where that is faster."""
        if output_size is None and likes_blocks(x.device):
            return self.in_blocks(x, self.out_channels % 2)
        return super().forward(x, output_size)

    def in_blocks(self, x: Tensor, spare: int) -> Tensor:
        """The same by blocks: in steps of 1, a transposed convolution is one with its kernel turned round.

        `spare` channels of zeros are added and taken away, see `HalvingConv2d.spare`.
        """
        assert self.bias is not None
        kernel = blocks(self.weight, spare).transpose(0, 1).flip(2, 3)
        y = F.conv2d(x, kernel, F.pad(self.bias, (0, spare)).repeat_interleave(4), padding=1)
        # Not by slices: cropped at once, compilers do this and what follows in one pass, backwards too.
        return F.pad(F.pixel_shuffle(y, 2), (-1, -1, -1, -1, 0, -spare))

    def error(self, x: Tensor, frames: Tensor) -> Tensor:
        """Squared differences between its outputs and frames / 255, (N, out, 2 H, 2 W) in uint8, summed up: (N,)."""
        if x.device.type == "cpu" and torch.compiler.is_compiling():
            return self.error_in_blocks(x, frames)
        return F.mse_loss(self(x).float(), frames.float() / 255, reduction="none").sum((-3, -2, -1))

    def error_in_blocks(self, x: Tensor, frames: Tensor) -> Tensor:
        """The same for compilers on CPUs, which pick the pixels of blocks one by one: here they come row by row."""
        assert self.bias is not None
        _, out, height, width = frames.shape
        kernel = blocks(self.weight, 0).transpose(0, 1).flip(2, 3).unflatten(0, (out, 4)).transpose(0, 1).flatten(0, 1)
        y = F.conv2d(x, kernel, self.bias.repeat(4), padding=1)
        rows = y.permute(0, 2, 3, 1).unflatten(-1, (2, 2 * out))  # of each block
        real, inside = (
            part.view(-1, height // 2 + 1, 2, width // 2 + 1, 2 * out).transpose(2, 3).float()
            for part in (_bordered(frames), _bordered(torch.ones_like(frames[:1])))
        )
        return (rows.float() * inside - real / 255).square().sum((-4, -3, -2, -1))


@torch.library.custom_op("glamkit::bordered", mutates_args=())
def _bordered(frames: Tensor) -> Tensor:
    """Frames (N, C, H, W) in a border of zeros, channels last: (N, H + 2, W + 2, C)."""
    return F.pad(frames.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()


@_bordered.register_fake
def _(frames: Tensor) -> Tensor:
    return F.pad(frames.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()


class Encoder(nn.Sequential):
    """Frames (N, 3, size, size) in [0, 1] -> embeddings (N, E = 16 x channels[-1]); each layer halves the side."""

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in zip([3, *channels], channels, strict=False):
            conv = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False) if layers else HalvingConv2d(3, after)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Flatten())
        self.features = 16 * channels[-1]

    def folded(self) -> nn.Sequential:
        """The same function in evaluation, every BatchNorm inside its convolution: less traffic with the memory."""
        layers: list[nn.Module] = []
        for conv, norm in zip(list(self)[:-1:3], list(self)[1::3], strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            layers += [fuse_conv_bn_eval(conv, norm), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Flatten())

    def at_once(self, x: Tensor) -> Tensor:
        """The same function in evaluation, on a GPU: each layer is one kernel, its BatchNorm inside the convolution."""
        precision = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        for conv, norm in zip(list(self)[:-1:3], list(self)[1::3], strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, stride, padding = conv.weight * scale.view(-1, 1, 1, 1), 2, 1
            if isinstance(conv, HalvingConv2d):
                (x, weight), stride, padding = conv.as_blocks(x, weight), 1, 0
            parts = (x, weight, norm.bias - norm.running_mean * scale)
            x = _convolution_relu(*(part.to(precision) for part in parts), stride, padding)
        return x.flatten(1)


@torch.library.custom_op("glamkit::convolution_relu", mutates_args=())
def _convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """ReLU of a convolution, channels last: cuDNN has that in one kernel."""
    x, weight = (part.contiguous(memory_format=torch.channels_last) for part in (x, weight))
    if x.device.type != "cpu" and torch.backends.cudnn.is_available() and torch.version.hip is None:
        steps, margins = [stride, stride], [padding, padding]
        return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, steps, margins, [1, 1], 1)
    return F.conv2d(x, weight, bias, stride, padding).relu_()


@_convolution_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    y = F.conv2d(x, weight, bias, stride, padding)
    return torch.empty_like(y, memory_format=torch.channels_last)


class Decoder(nn.Sequential):
    """Latents (N, Z) -> frames (N, 3, size, size): the encoder backwards."""

    def __init__(self, codes: Codes, channels: Sequence[int]) -> None:
        last = channels[-1]
        layers: list[nn.Module] = [
            CodeLinear(codes, 0, 16 * last),
            nn.Unflatten(1, (last, 4, 4)),
            nn.BatchNorm2d(last),
            nn.ReLU(inplace=True),
        ]
        backwards = list(reversed(channels))
        for before, after in pairwise(backwards):
            conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers, DoublingConv2d(channels[0], 3))

    def error(self, latents: Tensor, frames: Tensor) -> Tensor:
        """How far its pictures of latents (N, Z) are from frames (N, 3, size, size) uint8: squares summed up, (N,)."""
        *layers, last = self
        for layer in layers:
            latents = layer(latents)
        assert isinstance(last, DoublingConv2d)
        return last.error(latents, frames)


class MLP(nn.Sequential):
    """`layers` x [Linear without bias, LayerNorm, ReLU] of `width`, then a Linear to `out`.

    Args:
        features: number of inputs.
        width: units of each hidden layer.
        layers: number of hidden layers.
        out: number of outputs.
        codes: shape of the codes that the inputs begin with, if they do.
    """

    def __init__(self, features: int, width: int, layers: int, out: int, codes: Codes | None = None) -> None:
        parts: list[nn.Module] = []
        for before in [features] + [width] * (layers - 1):
            linear = nn.Linear(before, width, bias=False)
            if codes and not parts:
                linear = CodeLinear(codes, features - codes.size, width)
            parts += [linear, nn.LayerNorm(width), nn.ReLU()]
        super().__init__(*parts, nn.Linear(width, out))

    def inputs(self, x: Tensor) -> Tensor | Inputs:
        """Inputs (..., features), for several MLPs that read the same: what each would look up is, once."""
        first = self[0]
        return first.inputs(x) if isinstance(first, CodeLinear) else x


class CategoricalHead(nn.Linear):
    """Features (..., F) -> log-probabilities (..., K, C) of K categoricals with C classes, mixed with some uniform."""

    def __init__(self, features: int, variables: int, classes: int, share: float) -> None:
        super().__init__(features, variables * classes)
        self.shape, self.share = (variables, classes), share

    def forward(self, x: Tensor) -> Tensor:
        """Computes the log-probabilities in float32."""
        logits = super().forward(x).float().unflatten(-1, self.shape)
        return unimix(logits, self.share)


def symlog_bins(count: int, limit: float) -> Tensor:
    """`count` bin positions from -limit to limit, in symlog units."""
    return torch.linspace(-limit, limit, count)
