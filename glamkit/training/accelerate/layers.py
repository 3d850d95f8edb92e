"""Norms with their ReLUs, BatchNorm and for GPUs LayerNorm; and there products to odd numbers of outputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.networks import MLP
from glamkit.ops import norms
from glamkit.ops.device import precision


class BatchNormReLU(nn.BatchNorm2d):
    """ReLU of `nn.BatchNorm2d`, with its parameters: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """With fewer passes where that is faster."""
        if not (self.training and norms.large(x)):
            return F.relu(super().forward(x), inplace=True)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, variance = norms.normalized(x, self.weight, self.bias, self.running_mean, self.eps)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


class SilentReLU(nn.ReLU):
    """A ReLU whose work the layer before it has done, see `BatchNormReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        """Its input as it is."""
        return x


class RectifiedMLP(MLP):
    """`MLP` whose LayerNorms and ReLUs are one operation."""

    def forward(self, x: Tensor) -> Tensor:
        """As `MLP.forward`."""
        layers: list[Any] = list(self)
        for linear, norm in zip(layers[:-1:3], layers[1::3], strict=True):
            x = norms.rectified(norm, linear(x))
        return layers[-1](x)


class SpareOutputs(nn.Linear):
    """A linear layer to any number of outputs, such as 255 bins: (..., features) -> (..., out).

    GPUs have fast products in 16 bits for rows of 16 bytes alone, so that some outputs are added and taken away there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """With spare outputs where that is faster."""
        spare = -self.out_features % 8
        if precision(x).itemsize != 2 or not spare:
            return super().forward(x)
        weight, bias = F.pad(self.weight, (0, 0, 0, spare)), F.pad(self.bias, (0, spare))
        return F.linear(x, weight, bias)[..., : self.out_features]
