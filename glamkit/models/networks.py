"""Encoder, decoder and heads.

| here | paper | |
|---|---|---|
| `Encoder` | q's first part, Enc | frame x_t to embedding E_t |
| `Decoder` | p(x_t given z_t), Dec | latent z_t to picture |
| `MLP` | reward and termination heads; actor and critic | features to logits |
| `CategoricalHead` | posterior, prior and both variation heads | features to K categoricals with C classes each |
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from glamkit.ops.functional import pictures, squared_errors, unimix


class Encoder(nn.Sequential):
    """Frames (N, 3, size, size), bytes or pictures in [0, 1] -> (N, E = 16 x channels[-1]); layers halve the side."""

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.Flatten())
        self.features = 16 * channels[-1]

    def forward(self, frames: Tensor) -> Tensor:
        """All layers."""
        return super().forward(pictures(frames))


class Decoder(nn.Sequential):
    """Latents (N, Z) -> pictures (N, 3, size, size), about [0, 1]: the encoder backwards."""

    def __init__(self, latent: int, channels: Sequence[int]) -> None:
        last = channels[-1]
        layers: list[nn.Module] = [nn.Linear(latent, 16 * last, bias=False), nn.Unflatten(1, (last, 4, 4))]
        layers += [nn.BatchNorm2d(last), nn.ReLU()]
        for before, after in pairwise(reversed(channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose2d(channels[0], 3, 4, stride=2, padding=1))

    def error(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Squared errors (N,) of the pictures of latents (N, Z) against frames (N, 3, size, size) in bytes."""
        return squared_errors(self(latents), frames).sum((-3, -2, -1))


class MLP(nn.Sequential):
    """(..., features) -> (..., out): `layers` x [Linear without bias, LayerNorm, ReLU] of `width`, then a Linear."""

    def __init__(self, features: int, width: int, layers: int, out: int) -> None:
        parts: list[nn.Module] = []
        for before in [features] + [width] * (layers - 1):
            parts += [nn.Linear(before, width, bias=False), nn.LayerNorm(width), nn.ReLU()]
        super().__init__(*parts, nn.Linear(width, out))


class CategoricalHead(nn.Linear):
    """Features (..., F) -> log-probabilities (..., K, C) of K categoricals with C classes, mixed with some uniform."""

    def __init__(self, features: int, variables: int, classes: int, share: float) -> None:
        super().__init__(features, variables * classes)
        self.shape, self.share = (variables, classes), share

    def forward(self, x: Tensor) -> Tensor:
        """Computes the log-probabilities in float32."""
        return unimix(super().forward(x).float().unflatten(-1, self.shape), self.share)
