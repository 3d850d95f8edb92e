"""Convolutions of many channels: training on CPUs in bfloat16, by Winograd's sums, and the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from glamkit.models.networks import Decoder, Encoder
from glamkit.ops import winograd
from glamkit.ops.conv import LargeConv2d, LargeConvTranspose2d
from glamkit.ops.onehot_linear import Codes

Outcome = list[Tensor]
KINDS = {
    LargeConv2d: (nn.Conv2d, winograd.halved),
    LargeConvTranspose2d: (nn.ConvTranspose2d, winograd.doubled),
}
SIZES = [(20, 8, 12), (1, 4, 4), (7, 16, 4)]


@pytest.fixture(autouse=True)
def plain_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes seconds; one test does it."""
    monkeypatch.setattr(winograd, "_compiled", lambda function: function)


def pair(kind: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """The convolution, and torch's own with the same weights."""
    torch.manual_seed(0)
    mine, plain = kind(5, 7), KINDS[kind][0](5, 7, 4, stride=2, padding=1, bias=False)
    plain.load_state_dict(mine.state_dict())
    return mine, plain


def images(count: int = 20, height: int = 8, width: int = 12) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 5, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()


def by_sums(conv: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: KINDS[type(conv)][1](x, conv.weight)


def outcome(function: Callable[[Tensor], Tensor], x: Tensor, conv: nn.Module, rounded: bool = False) -> Outcome:
    """What it says, and the gradients of some function of it by the input and by the kernel."""
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        y = function(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y, *torch.autograd.grad((y.float() * weight).sum(), [x, conv.weight])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "height", "width"), SIZES)
def test_sums_are_exact(kind: type[nn.Module], count: int, height: int, width: int) -> None:
    (mine, plain), x = pair(kind), images(count, height, width)
    for one, two in zip(outcome(by_sums(mine), x, mine), outcome(plain, x, plain), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_round_a_few_times_as_much(kind: type[nn.Module]) -> None:
    (mine, plain), x = pair(kind), images()
    exact, usual = outcome(plain, x, plain), outcome(plain, x, plain, rounded=True)
    for one, two, three in zip(outcome(by_sums(mine), x, mine, rounded=True), usual, exact, strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        assert one.is_contiguous(memory_format=torch.channels_last) or one.shape == mine.weight.shape
        one, two, three = (part.detach().double() for part in (one, two, three))
        assert (one - three).norm() <= 4 * (two - three).norm()
        assert (one - three).norm() <= 0.015 * three.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_pictures_add_up(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, _), x = pair(kind), images(12)
    whole, sizes = outcome(by_sums(mine), x, mine), set()
    monkeypatch.setattr(winograd, "CACHED", 5 * (5 * 8 * 12 if kind is LargeConv2d else 7 * 16 * 24))
    spread = winograd._spread_small
    monkeypatch.setattr(winograd, "_spread_small", lambda part: sizes.add(len(part)) or spread(part))
    for one, two in zip(outcome(by_sums(mine), x, mine), whole, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert sizes == {4}  # not 5: all alike


@pytest.mark.parametrize("kind", KINDS)
def test_compilers_see_the_same(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LARGE", 1)
    (mine, _), x = pair(kind), images()
    traced = torch.compile(mine, backend="aot_eager", fullgraph=True)
    for one, two in zip(outcome(traced, x, mine, True), outcome(by_sums(mine), x, mine, True), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_functions_make_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, x = pair(LargeConvTranspose2d)[0], images()
    plain = outcome(by_sums(mine), x, mine)
    monkeypatch.undo()
    for one, two in zip(outcome(by_sums(mine), x, mine), plain, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_for_training_in_bfloat16_where_things_are_compiled(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine, plain), x = pair(kind), images()
    for name in ("halved", "doubled"):
        monkeypatch.setattr(winograd, name, lambda *_: "by sums")
    monkeypatch.setattr(winograd, "LARGE", mine.weight.numel())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mine(x), plain(x))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert mine(x) == "by sums"
        assert not winograd.pays(mine.weight[1:])
        assert not winograd.pays(mine.weight.to("meta"))
        with torch.no_grad():
            assert torch.equal(mine(x), plain(x))
    assert torch.equal(mine(x), plain(x))


def test_compilers_are_told_the_truth() -> None:
    large, small = (
        x.contiguous(memory_format=torch.channels_last) for x in (torch.rand(5, 3, 8, 8), torch.rand(5, 4, 4, 4))
    )
    weight, looks = torch.rand(4, 3, 4, 4), ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.glamkit.halved.default, (large, weight), test_utils=looks)
    torch.library.opcheck(torch.ops.glamkit.doubled.default, (small, weight), test_utils=looks)
    for grad, x, doubles in ((small, large, False), (large, small, True)):
        torch.library.opcheck(torch.ops.glamkit.gradients.default, (grad, x, weight, doubles), test_utils=looks)


@pytest.mark.parametrize("channels", [(4, 8), (4, 8, 8, 8), (4,)])
def test_they_stand_between_few_channels(channels: tuple[int, ...]) -> None:
    encoder, decoder = Encoder(channels), Decoder(Codes(2, 2), channels)
    down = [isinstance(layer, LargeConv2d) for layer in encoder if isinstance(layer, nn.Conv2d)]
    up = [isinstance(layer, LargeConvTranspose2d) for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert down == [False] + [True] * (len(channels) - 1)
    assert up == [True] * (len(channels) - 1) + [False]
