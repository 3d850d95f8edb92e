"""Convolutions to few pixels: on CPUs in bfloat16 their kernel's gradient is a product of patches, and the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from glamkit import convolutions
from glamkit.codes import Codes
from glamkit.convolutions import FirstConvTranspose2d, LastConv2d, likes_patches
from glamkit.networks import Decoder, Encoder

KINDS = {LastConv2d: nn.Conv2d, FirstConvTranspose2d: nn.ConvTranspose2d}
Outcome = list[Tensor]


def pair(kind: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """The convolution, and torch's own with the same weights."""
    torch.manual_seed(0)
    mine, plain = kind(5, 7), KINDS[kind](5, 7, 4, stride=2, padding=1, bias=False)
    plain.load_state_dict(mine.state_dict())
    return mine, plain


def images(count: int = 20, height: int = 8, width: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 5, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()


def outcome(conv: nn.Module, x: Tensor, rounded: bool = True) -> Outcome:
    """What it says, and the gradients of some function of it by the input and by the kernel."""
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        y = conv(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y, *torch.autograd.grad((y.float() * weight).sum(), [x, *conv.parameters()])]


def no_worse(mine: Outcome, plain: Outcome, exact: Outcome) -> None:
    """Rounding takes it no further from what is exact than torch's own."""
    for one, two, three in zip(mine, plain, exact, strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        one, two, three = (part.detach().double() for part in (one, two, three))
        assert (one - three).norm() <= 1.2 * (two - three).norm() + 1e-3 * three.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "height", "width"), [(20, 8, 6), (1, 4, 4), (3, 2, 2)])
def test_patches_round_no_more(kind: type[nn.Module], count: int, height: int, width: int) -> None:
    (mine, plain), x = pair(kind), images(count, height, width)
    no_worse(outcome(mine, x), outcome(plain, x), outcome(plain, x, rounded=False))


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_images_add_up(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, plain), x = pair(kind), images()
    monkeypatch.setattr(convolutions, "PATCHED", 3)
    no_worse(outcome(mine, x), outcome(plain, x), outcome(plain, x, rounded=False))


@pytest.mark.parametrize("kind", KINDS)
def test_compilers_see_the_same(kind: type[nn.Module]) -> None:
    (mine, _), x = pair(kind), images()
    traced = torch.compile(mine, backend="aot_eager", fullgraph=True)
    for one, two in zip(outcome(traced, x), outcome(mine, x), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_are_for_bfloat16_on_cpus(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, plain), x = pair(kind), images()
    monkeypatch.setattr(convolutions, "_by_patches", lambda *_: "by patches")
    assert torch.equal(mine(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert mine(x) == "by patches"
        with torch.no_grad():
            assert torch.equal(mine(x), plain(x))
    assert not likes_patches(mine.to("meta").weight)


def test_compilers_are_told_the_truth() -> None:
    large, small = (
        x.contiguous(memory_format=torch.channels_last) for x in (torch.rand(5, 3, 8, 8), torch.rand(5, 4, 4, 4))
    )
    looks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.glamkit.kernel.default, (large, small), test_utils=looks)
    for x, doubles in ((large, False), (small, True)):
        inputs = (x, torch.rand(4, 3, 4, 4), doubles)
        torch.library.opcheck(torch.ops.glamkit.convolution.default, inputs, test_utils=looks)


@pytest.mark.parametrize("channels", [(4, 8), (4, 8, 8, 8), (4,)])
def test_they_stand_where_there_are_few_pixels(channels: tuple[int, ...]) -> None:
    encoder, decoder = Encoder(channels), Decoder(Codes(2, 2), channels)
    first = [isinstance(layer, FirstConvTranspose2d) for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
    last = [isinstance(layer, LastConv2d) for layer in encoder if isinstance(layer, nn.Conv2d)]
    several = len(channels) > 1
    assert last == [False] * (len(channels) - 1) + [several]
    assert first == [several] + [False] * (len(channels) - 1)
