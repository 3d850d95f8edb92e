"""LayerNorm and ReLU in one: the same as torch's own, by the kernel and without."""

from __future__ import annotations

import copy

import plain_bodies
import pytest
import torch
from interpreter import interpret
from torch import Tensor, nn

from glamkit.models.networks import MLP
from glamkit.ops import device, norms
from glamkit.ops.norms import rectified
from glamkit.ops.triton import norms as kernels
from glamkit.training.accelerate.layers import RectifiedMLP
from glamkit.training.accelerate.rules import swap

SIZES = [(5, 20), (37, 64), (9, 33)]

# The compiler of torch 2.11 makes an instance of a `torch.autograd.Function`, of which torch itself warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def lively(net: nn.Module) -> nn.Module:
    """With norms that do something."""
    for norm in net.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return net


def gradients(net: nn.Module, x: Tensor, backend: str = "") -> list[Tensor]:
    y = torch.compile(net, backend=backend, fullgraph=True)(x) if backend else net(x)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape)
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *net.parameters()])]


def test_compiled_networks_have_the_gradients_of_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = lively(MLP(7, 12, 2, 3)), torch.randn(4, 5, 7, requires_grad=True)
    expected, calls = gradients(net, x), []
    swap(net, RectifiedMLP)
    monkeypatch.setattr(norms, "short", lambda _: calls.append(1) or True)
    torch.testing.assert_close(gradients(net, x, "aot_eager"), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == 2


def test_elsewhere_nothing_is_changed() -> None:
    norm, x = nn.LayerNorm(6), torch.randn(3, 6, dtype=torch.bfloat16).float()
    assert torch.equal(rectified(norm, x), torch.relu(norm(x)))
    assert not norms.short(x)


def test_it_is_for_what_is_compiled_and_trained_in_16_bits_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "has_kernels", lambda device: device.type == "meta")  # as GPUs have
    there, here = torch.empty(1, device="meta", dtype=torch.bfloat16), torch.empty(1, dtype=torch.bfloat16)
    assert not norms.short(there)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert norms.short(there) and not norms.short(here) and not norms.short(there.float())
    with torch.no_grad():
        assert not norms.short(there)


def test_compilers_are_told_the_truth() -> None:
    grad, x = torch.randn(2, 7, 5), torch.randn(7, 5)
    for given in (grad[0], torch.randn(5, 7).T):
        inputs = given, x, torch.randn(5), torch.randn(5), 1e-5, 3
        looks = ("test_schema", "test_faketensor")
        torch.library.opcheck(torch.ops.glamkit.norms_rectified_gradient.default, inputs, test_utils=looks)


def compare(device: str, sizes: list[tuple[int, int]]) -> None:
    """The kernel against the plain gradient in float64."""
    for size in sizes:
        for kind in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            grad, x = (torch.randn(size).to(kind) + 1 for _ in range(2))
            weight, bias = torch.randn(size[1]), torch.randn(size[1])
            exact = plain_bodies.rectified_gradient(*(part.double() for part in (grad, x, weight, bias)), 1e-5, 1)
            inputs = [part.to(device) for part in (grad, x, weight, bias)]
            result = kernels.rectified_gradient(*inputs, 1e-5, 3)
            for one, two in zip((result[0], result[1].sum(0)), (exact[0], exact[1][0]), strict=True):
                # By their size: of millions of numbers some lie so near to ReLU's edge that float32 has them beyond it.
                error = (one.double().cpu() - two).norm() / two.norm()
                assert error < (1e-2 if one.dtype == torch.bfloat16 else 1e-3), f"{error:.1e}"


def test_the_interpreter_computes_the_plain_gradient() -> None:
    interpret("from test_layer_norm import *; compare('cpu', SIZES)")


@pytest.mark.cuda
def test_a_gpu_has_the_gradients_of_plain_networks() -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses torch's own layers"
    compare("cuda", [*SIZES, (17408, 512)])
    net = lively(MLP(64, 512, 2, 8)).cuda()
    x = torch.randn(50, 64, device="cuda", requires_grad=True)
    plain_net = copy.deepcopy(net)
    swap(net, RectifiedMLP)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        mine, plain = gradients(net, x, "inductor"), gradients(plain_net, x)
        again = gradients(net, x, "inductor")
    for one, two in zip(mine, plain, strict=True):
        assert (one.float() - two.float()).norm() < 2e-2 * two.float().norm()
    assert all(torch.equal(one, two) for one, two in zip(mine, again, strict=True))
