"""Layers of heads, actor and critic for GPUs: LayerNorm with its ReLU, and products to odd numbers of outputs."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.models.networks import MLP
from glamkit.ops.layer_norm import rectified
from glamkit.ops.precision import precision


class SilentReLU(nn.ReLU):
    """A ReLU whose work the layer before it has done, see `ops.batch_norm.BatchNormReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        """Its input as it is."""
        return x


class RectifiedMLP(MLP):
    """`MLP` whose LayerNorms and ReLUs are one operation."""

    def forward(self, x: Tensor) -> Tensor:
        """As `MLP.forward`."""
        *hidden, out = self
        for linear, norm in zip(hidden[::3], hidden[1::3], strict=True):
            x = rectified(cast(nn.LayerNorm, norm), linear(x))
        return cast(Tensor, out(x))


class SpareOutputs(nn.Linear):
    """A linear layer to any number of outputs, such as 255 bins: (..., features) -> (..., out).

    GPUs have fast products in 16 bits for rows of 16 bytes alone, so that some outputs are added and taken away there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """With spare outputs where that is faster."""
        wanted = precision(x).itemsize == 2 and self.out_features % 8
        return self.padded(x, -self.out_features % 8) if wanted else super().forward(x)

    def padded(self, x: Tensor, spare: int) -> Tensor:
        """The same with spare outputs."""
        weight, bias = F.pad(self.weight, (0, 0, 0, spare)), F.pad(self.bias, (0, spare))
        return F.linear(x, weight, bias)[..., : self.out_features]
