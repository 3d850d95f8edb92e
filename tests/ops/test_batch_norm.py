"""BatchNorm and ReLU in one: in few passes on GPUs, and the same as torch's own."""

from __future__ import annotations

import copy

import plain_bodies
import pytest
import torch
import torch.nn.functional as F
from interpreter import interpret
from torch import Tensor, nn

from glamkit.models.networks import Decoder, Encoder
from glamkit.ops import device, norms
from glamkit.ops.triton import norms as kernels
from glamkit.training.accelerate.layers import BatchNormReLU

SIZES = [(20, 8, 12), (1, 4, 4), (7, 1, 2)]
LOOKS = ("test_schema", "test_faketensor")

# The compiler of torch 2.11 makes an instance of a `torch.autograd.Function`, of which torch itself warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes them wherever layers train, without their kernels where there are none."""
    monkeypatch.setattr(norms, "large", lambda _: True)


def pair() -> tuple[BatchNormReLU, nn.Sequential]:
    """The layer, and torch's own two with the same weights."""
    torch.manual_seed(0)
    mine, plain = BatchNormReLU(5), nn.BatchNorm2d(5)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.normal_()
        mine.running_mean.normal_()
    plain.load_state_dict(mine.state_dict())
    return mine, nn.Sequential(plain, nn.ReLU())


def images(count: int = 20, height: int = 8, width: int = 12, last: bool = True) -> Tensor:
    torch.manual_seed(1)
    kind = torch.channels_last if last else torch.contiguous_format
    return (3 * torch.randn(count, 5, height, width) + 1).contiguous(memory_format=kind).requires_grad_()


def outcome(layer: nn.Module, x: Tensor, compiler: str = "") -> list[Tensor]:
    """What it says for the first time, the gradients of some function of it, and what it remembers then."""
    layer = copy.deepcopy(layer)
    y = (torch.compile(layer, backend=compiler, fullgraph=True) if compiler else layer)(x)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y.float() * weight).sum(), [x, *layer.parameters()]), *layer.buffers()]


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("count", "height", "width"), SIZES)
def test_few_passes_say_the_same(count: int, height: int, width: int, last: bool) -> None:
    (mine, plain), x = pair(), images(count, height, width, last)
    for one, two in zip(outcome(mine, x), outcome(plain, x), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4 * float(two.abs().max()), rtol=0)


@pytest.mark.usefixtures("few_passes")
def test_rounded_pictures_give_what_torch_gives() -> None:
    (mine, plain), x = pair(), images()
    exact, rounded = outcome(plain, x), x.detach().bfloat16().requires_grad_()
    for one, two, three in zip(outcome(mine, rounded), outcome(plain, rounded), exact, strict=True):
        assert one.dtype == two.dtype
        one, two, three = (part.detach().double() for part in (one, two, three))
        assert (one - three).norm() <= 1.5 * (two - three).norm() + 1e-4 * three.norm()


@pytest.mark.usefixtures("few_passes")
def test_small_differences_far_from_zero_are_not_lost() -> None:
    mine, _ = pair()
    x = images().detach() + 3000
    exact = x.double().var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(norms.normalized(x, mine.weight, mine.bias, x.mean((0, 2, 3)), 0.0)[2].double(), exact)
    # From zero it is off by far: squares of thousands leave no room for it.
    lost = norms.normalized(x, mine.weight, mine.bias, torch.zeros(5), 0.0)[2].double()
    assert ((lost / exact - 1).abs() > 0.01).any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_compiled_functions_pass_over_the_same(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "large", lambda _: True)
    (mine, plain), x = pair(), images().detach().to(kind).requires_grad_()
    within = 1e-4 if kind == torch.float32 else 0.02
    for one, two in zip(outcome(mine, x, "aot_eager"), outcome(plain, x), strict=True):
        torch.testing.assert_close(one, two, atol=within * float(two.abs().max()), rtol=0)


def test_few_passes_are_for_training_on_large_pictures_where_things_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = images().detach()
    compiled = torch.compile(lambda x: torch.zeros(()) + norms.large(x), backend="eager", fullgraph=True)
    assert compiled(x) == 0
    assert compiled(x.to("meta")) == 0
    monkeypatch.setattr(norms, "has_kernels", lambda device: device.type == "meta")  # as GPUs have
    for large, used in ((x.numel(), 1), (x.numel() + 1, 0)):
        torch.compiler.reset()
        monkeypatch.setattr(norms, "LARGE", large)
        assert compiled(x.to("meta")) == used
    monkeypatch.setattr(norms, "LARGE", x.numel())
    torch.compiler.reset()
    with torch.no_grad():
        assert compiled(x.to("meta")) == 0
    assert not norms.large(x.to("meta")), "nothing is compiled"


@pytest.mark.usefixtures("few_passes")
def test_evaluation_reads_what_training_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, plain), x, taken = pair(), images(), list[Tensor]()
    normalized = norms.normalized
    monkeypatch.setattr(norms, "normalized", lambda *inputs: taken.append(inputs[0]) or normalized(*inputs))
    mine(x)
    plain(x)
    assert taken == [x]
    torch.testing.assert_close(mine.eval()(x), plain.eval()(x), atol=1e-4, rtol=0)
    assert len(taken) == 1
    assert not torch.equal(mine(x), mine.train()(x))


def test_compilers_are_told_the_truth() -> None:
    x, grad = (torch.rand(3, 5, 2, 4).contiguous(memory_format=torch.channels_last) for _ in range(2))
    vectors = [torch.rand(5) for _ in range(4)]
    x, grad = (part.permute(0, 2, 3, 1).flatten(1, 2) for part in (x, grad))
    torch.library.opcheck(torch.ops.glamkit.norms_moments.default, (x, vectors[0], 3), test_utils=LOOKS)
    torch.library.opcheck(torch.ops.glamkit.norms_pulls.default, (grad, x, *vectors[:3], 3), test_utils=LOOKS)
    torch.library.opcheck(torch.ops.glamkit.norms_gradient.default, (grad, x, *vectors), test_utils=LOOKS)


def test_names_of_parameters_count_relu_as_a_layer() -> None:
    encoder, decoder = Encoder((4, 8)), Decoder(4, (4, 8))
    assert [name for name, _ in encoder.named_parameters()] == [
        "0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias",
    ]  # fmt: skip
    assert [name for name, _ in decoder.named_parameters()] == [
        "0.weight", "2.weight", "2.bias", "4.weight", "5.weight", "5.bias", "7.weight", "7.bias",
    ]  # fmt: skip
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(encoder[2](encoder[1](encoder[0](x))), F.relu(nn.BatchNorm2d(4)(encoder[0](x))))


def compare(device: str, shapes: list[tuple[int, ...]]) -> None:
    """The kernels' passes over pixels (N, P, C) against the plain ones in float64."""
    for shape in shapes:
        for kind in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            x, grad = (torch.randn(shape).to(kind) + 1 for _ in range(2))
            vectors = [torch.randn(shape[-1]) for _ in range(4)]
            passes = {
                "moments": [x, vectors[0]],
                "pulls": [grad, x, *vectors[:3]],
                "gradient": [grad, x, *vectors],
            }
            for name, inputs in passes.items():
                exact = getattr(plain_bodies, name)(*(part.double() for part in inputs)).double()
                parts = [] if name == "gradient" else [7]
                result = getattr(kernels, name)(*(part.to(device) for part in inputs), *parts)
                result = result.sum(0) if parts else result
                within = (1e-2 if result.dtype == torch.bfloat16 else 1e-5) * float(exact.abs().max())
                torch.testing.assert_close(result.double().cpu(), exact, atol=within, rtol=0)


def test_the_interpreter_computes_the_plain_passes() -> None:
    interpret("from test_batch_norm import *; compare('cpu', [(5, 7, 32), (2, 3, 5), (3, 4000, 8)])")


@pytest.mark.cuda
def test_a_gpu_normalises_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses torch's own layers"
    compare("cuda", [(5, 7, 32), (2, 3, 5), (272, 1024, 32), (272, 64, 128)])
    monkeypatch.setattr(norms, "LARGE", 0)
    (mine, plain), x = pair(), images().detach().cuda().requires_grad_()
    for one, two in zip(outcome(mine.cuda(), x, "inductor"), outcome(plain.cuda(), x), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4 * float(two.abs().max()), rtol=0)
