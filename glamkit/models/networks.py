"""Parts without ideas of their own: encoder, decoder, MLP heads, categorical heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glamkit.ops import image_conv
from glamkit.ops.batch_norm import BatchNormReLU
from glamkit.ops.conv import DoublingConv2d, HalvingConv2d, likes_blocks
from glamkit.ops.functional import unimix
from glamkit.ops.layer_norm import rectified
from glamkit.ops.onehot_linear import CodeLinear, Codes, Inputs
from glamkit.ops.precision import precision


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    """BatchNorm with its ReLU; the names of parameters count ReLU as a layer of its own, as the released code does."""
    return BatchNormReLU(channels), nn.Identity()


class Encoder(nn.Sequential):
    """Frames (N, 3, size, size) -> embeddings (N, E = 16 x channels[-1]); each layer halves the side.

    Frames are in uint8, or pictures in [0, 1].
    """

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = [HalvingConv2d(3, channels[0]), *_norm(channels[0])]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), *_norm(after)]
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
        computed = precision(cast(HalvingConv2d, self[0]).weight)
        for conv, norm in zip(list(self)[:-1:3], list(self)[1::3], strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
            stride, padding = 2, 1
            if isinstance(conv, HalvingConv2d):
                if image_conv.pays(x, weight):
                    x = image_conv.halved_relu(x, weight, bias, computed)
                    continue
                (x, weight), stride, padding = conv.as_blocks(x, weight), 1, 0
            x = _convolution_relu(*(part.to(computed) for part in (x, weight, bias)), stride, padding)
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
            *_norm(last),
        ]
        for before, after in pairwise(reversed(channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), *_norm(after)]
        super().__init__(*layers, DoublingConv2d(channels[0], 3))

    def error(self, latents: Tensor, frames: Tensor) -> Tensor:
        """How far its pictures of latents (N, Z) are from frames (N, 3, size, size) uint8: squares summed up, (N,)."""
        *layers, last = self
        for layer in layers:
            latents = layer(latents)
        assert isinstance(last, DoublingConv2d)
        return last.error(latents, frames)


class OutputLinear(nn.Linear):
    """A linear layer to any number of outputs, such as 255 bins: (..., features) -> (..., out).

    GPUs have fast products in 16 bits for rows of 16 bytes alone, so that some outputs are added and taken away there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """With spare outputs where that is faster."""
        wanted = likes_blocks(x.device) and precision(x).itemsize == 2 and self.out_features % 8
        return self.padded(x, -self.out_features % 8) if wanted else super().forward(x)

    def padded(self, x: Tensor, spare: int) -> Tensor:
        """The same with spare outputs."""
        weight, bias = F.pad(self.weight, (0, 0, 0, spare)), F.pad(self.bias, (0, spare))
        return F.linear(x, weight, bias)[..., : self.out_features]


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
        super().__init__(*parts, OutputLinear(width, out))

    def forward(self, x: Tensor | Inputs) -> Tensor:
        """(..., features) -> (..., out)."""
        *hidden, out = self
        for linear, norm in zip(hidden[::3], hidden[1::3], strict=True):
            x = rectified(cast(nn.LayerNorm, norm), linear(x))
        return cast(Tensor, out(x))

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
        return unimix(self.logits(x).float().unflatten(-1, self.shape), self.share)

    def logits(self, x: Tensor) -> Tensor:
        """What they are the softmax of (..., K * C), as the product gives it."""
        return super().forward(x)


def symlog_bins(count: int, limit: float) -> Tensor:
    """`count` bin positions from -limit to limit, in symlog units."""
    return torch.linspace(-limit, limit, count)
