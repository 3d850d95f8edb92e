"""Encoder and decoder: what GPUs have in their place is the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glamkit.config import WorldModelConfig
from glamkit.models.networks import Decoder, Encoder
from glamkit.models.world_model import WorldModel
from glamkit.training.accelerate import accelerate, layers
from glamkit.training.accelerate.frames import (
    SLICE,
    BlockedConv2d,
    DoublingConv2d,
    FrameEncoder,
    HalvingConv2d,
    SlicingEncoder,
)
from glamkit.training.accelerate.layers import SpareOutputs
from glamkit.training.accelerate.rules import swap


def outcome(function: nn.Module, x: Tensor) -> list[Tensor]:
    """What a module says, and the gradients of some function of it by the input and by all weights."""
    y = function(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *function.parameters()])]


def close(mine: list[Tensor], other: list[Tensor], within: float) -> None:
    for one, two in zip(mine, other, strict=True):
        assert one.shape == two.shape
        one, two = one.detach().double().cpu(), two.detach().double().cpu()
        assert (one - two).norm() <= within * two.norm()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 12), (2, 6)])
def test_errors_are_squares_of_differences(channels_last: bool, height: int, width: int) -> None:
    conv = DoublingConv2d(5, 3, 4, stride=2, padding=1)
    x = torch.rand(4, 5, height // 2, width // 2, requires_grad=True)
    frames = torch.randint(256, (4, 3, height, width), dtype=torch.uint8)
    frames = frames.contiguous(memory_format=torch.channels_last) if channels_last else frames
    weight, parts = torch.linspace(-1, 2, 4), [x, *conv.parameters()]
    result = conv.error(x, frames)
    expected = (conv(x) - frames / 255).square().sum((1, 2, 3))
    close([result], [expected], 1e-6)
    gradients = [torch.autograd.grad((error * weight).sum(), parts) for error in (result, expected)]
    close(*gradients, 1e-5)


@pytest.mark.parametrize("inputs", [5, 16])
def test_in_16_bits_the_last_layer_s_blocks_are_what_it_paints(inputs: int) -> None:
    torch.manual_seed(0)
    plain = nn.ConvTranspose2d(inputs, 3, 4, stride=2, padding=1).bfloat16()
    mine = copy.deepcopy(plain)
    swap(mine, BlockedConv2d)
    x = torch.randn(2, inputs, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    exact = outcome(copy.deepcopy(plain).double(), x.detach().double().requires_grad_())
    for network in (mine, plain):  # as near as torch's own
        close(outcome(network, x), exact, 1e-2)


def test_many_frames_are_encoded_in_16_bits_as_few_are() -> None:
    encoder = evaluated()[0]
    frames = torch.rand(SLICE + 1, 3, 32, 32)
    swap(encoder, SlicingEncoder)
    with torch.no_grad():
        exact = Encoder.forward(encoder, frames)
        with torch.autocast("cpu", torch.bfloat16):
            result = SlicingEncoder.forward(encoder, frames)
            assert result.dtype == torch.bfloat16
            close([result, Encoder.forward(encoder, frames)], [exact, exact], 2e-2)


def as_on_gpus(net: nn.Module) -> Any:
    """The same with what GPUs have in its place."""
    accelerate(net, torch.device("meta"))
    return net


def evaluated() -> tuple[FrameEncoder, Tensor]:
    """An encoder whose averages are not those it starts with, and frames."""
    torch.manual_seed(0)
    encoder, frames = as_on_gpus(Encoder((8, 16, 24))), torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        for norm in (part for part in encoder if isinstance(part, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 2), nn.init.uniform_(norm.bias, -1, 1)
        for _ in range(3):
            encoder(frames)
    return encoder.eval(), frames


def test_layers_at_once_make_no_difference() -> None:
    encoder, frames = evaluated()
    with torch.no_grad():
        close([encoder.at_once(frames)], [Encoder.forward(encoder, frames)], 1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder.at_once(frames)
            assert rounded.dtype == torch.bfloat16
            close([rounded], [Encoder.forward(encoder, frames)], 2e-2)
            traced = torch.compile(encoder.at_once, backend="eager", fullgraph=True)
            assert torch.equal(traced(frames), rounded)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "within"), [(torch.float32, 2e-3), (torch.bfloat16, 2e-2)])
def test_layers_at_once_on_a_gpu(precision: torch.dtype, within: float) -> None:
    encoder, frames = evaluated()
    with torch.no_grad():
        expected = Encoder.forward(encoder, frames)
        encoder, frames = encoder.cuda(), frames.cuda()
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            close([encoder.at_once(frames)], [expected], within)
            close([torch.compile(encoder.at_once)(frames)], [expected], within)


@pytest.mark.parametrize("channels", [(4, 8, 8), (4, 6, 8, 8)])
def test_only_the_convolutions_with_few_channels_are_special(channels: tuple[int, ...]) -> None:
    encoder, decoder, size = as_on_gpus(Encoder(channels)), as_on_gpus(Decoder(5, channels)), 4 * 2 ** len(channels)
    assert [isinstance(layer, HalvingConv2d) for layer in encoder].index(True) == 0
    assert [isinstance(layer, DoublingConv2d) for layer in decoder].index(True) == len(decoder) - 1
    assert sum(isinstance(layer, (HalvingConv2d, DoublingConv2d)) for layer in [*encoder, *decoder]) == 2
    for device in ("cpu", "meta"):
        assert encoder.to(device)(torch.rand(2, 3, size, size, device=device)).shape == (2, encoder.features)
        assert decoder.to(device)(torch.rand(2, 5, device=device)).shape == (2, 3, size, size)


def test_models_have_torch_s_own_convolutions_and_accelerated_ones_the_same_names() -> None:
    config = WorldModelConfig(channels=(4, 6, 8), variables=3, classes=3, width=32, state=8, bins=41)
    fast, own = as_on_gpus(WorldModel(config, 3)), WorldModel(config, 3)
    assert type(fast.encoder[0]) is HalvingConv2d and type(fast.decoder[-1]) is DoublingConv2d
    assert type(own.encoder[0]) is nn.Conv2d and type(own.decoder[-1]) is nn.ConvTranspose2d
    shapes = [{name: x.shape for name, x in model.state_dict().items()} for model in (fast, own)]
    assert shapes[0] == shapes[1]


@pytest.mark.cuda
def test_gpus_see_and_paint_what_cpus_do() -> None:
    """In float64, as rounding alone switches some ReLU, and with it a gradient, on or off."""
    channels = (8, 8, 16)
    for model, size in ((Encoder(channels), (3, 32, 32)), (Decoder(9, channels), (9,))):
        x = torch.rand(16, *size, dtype=torch.float64, requires_grad=True)
        here = outcome(model.double(), x)
        accelerate(model, torch.device("cuda"))
        there = outcome(model.to("cuda", memory_format=torch.channels_last), x.detach().cuda().requires_grad_())
        close(there, here, 1e-8)


@pytest.mark.parametrize("out", [255, 6, 1])
def test_spare_outputs_make_no_difference(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "precision", lambda _: torch.bfloat16)
    linear, x = SpareOutputs(12, out).double(), torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)

    def gradients(y: Tensor) -> list[Tensor]:
        return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, out)).sum(), [x, *linear.parameters()])]

    close(gradients(linear(x)), gradients(nn.functional.linear(x, linear.weight, linear.bias)), 1e-12)


def test_spare_outputs_are_for_gpus_and_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "precision", lambda x: x.dtype)  # nobody asks this device about autocast
    linear, x = SpareOutputs(12, 255).to("meta", torch.bfloat16), torch.empty(4, 12, device="meta")
    assert linear(x.bfloat16()).stride() == (256, 1)
    assert linear.float()(x).stride() == (255, 1)


@pytest.mark.cuda
def test_spare_outputs_on_a_gpu_differ_by_rounding_only() -> None:
    linear, x = SpareOutputs(512, 255).cuda(), torch.randn(64, 512, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = linear(x)
        assert y.shape == (64, 255) and y.stride(0) == 256, "its rows are no multiple of 16 bytes"
    exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    assert (y.double() - exact).norm() < 1e-2 * exact.norm()
