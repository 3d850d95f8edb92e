"""Convolutions from frames and to their errors: torch's own, by operations that never write a picture of floats."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import plain_bodies
import pytest
import torch
import torch.nn.functional as F
from interpreter import interpret
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from glamkit.config import WorldModelConfig
from glamkit.models.networks import Decoder, Encoder
from glamkit.models.world_model import WorldModel
from glamkit.ops import device, image_conv
from glamkit.ops.triton import image_conv as image_kernels
from glamkit.training.accelerate import accelerate
from glamkit.training.accelerate import frames as frames_module
from glamkit.training.accelerate.frames import DoublingConv2d, HalvingConv2d

SIZES = [(3, 5, 4, 4), (5, 7, 12, 16), (2, 20, 1, 2)]  # (N, C, H, W); frames are (N, 3, 2 H, 2 W)
PUBLISHED = (700, 32, 32, 32)  # more pictures than programs that share them
LOOKS = ("test_schema", "test_faketensor")
KINDS = (torch.bfloat16, torch.float16)


def random_frames(count: int, height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(256, (count, 3, 2 * height, 2 * width), dtype=torch.uint8)


def pictures_of(count: int, channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, channels, height, width).contiguous(memory_format=torch.channels_last)


def layer(kind: type[nn.Module], channels: int, out: int) -> nn.Module:
    """With weights that 16 bits have exactly, so that rounding them makes no difference."""
    torch.manual_seed(2)
    made = kind(channels, out, 4, stride=2, padding=1, bias=kind is DoublingConv2d)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(parameter.half().bfloat16())
    return made


def plain_halved(shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of all operations that halve, and in float64 what they say: outputs, rectified, the weights' gradient."""
    count, channels, height, width = shape
    frames, conv, grad = random_frames(count, height, width), layer(HalvingConv2d, 3, channels), pictures_of(*shape)
    grad, bias = grad.bfloat16().float(), torch.linspace(-1, 1, channels)
    weight = conv.weight.detach().double().requires_grad_()
    y = F.conv2d(frames.double() / 255, weight, stride=2, padding=1)
    rectified = F.relu(y + bias.view(-1, 1, 1))
    inputs = [frames, conv.weight.detach(), bias, grad]
    return inputs, [y.detach(), rectified.detach(), *torch.autograd.grad(y, weight, grad.double())]


def plain_errors(shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the operations with errors, and what they say in float64: errors, gradients of x and taps."""
    count, channels, height, width = shape
    frames, conv, x = random_frames(count, height, width), layer(DoublingConv2d, channels, 3), pictures_of(*shape)
    x, weight, exact = x.bfloat16().float(), torch.linspace(-1, 2, count), copy.deepcopy(conv).double()
    inputs, taps = x.double().requires_grad_(), exact.taps().detach().requires_grad_()
    y = F.conv2d(inputs, *plain_bodies.as_convolution(taps), padding=1)
    painted = F.pad(F.pixel_shuffle(y, 2), (-1, -1, -1, -1, 0, -1))
    torch.testing.assert_close(painted, nn.ConvTranspose2d.forward(exact, inputs))
    errors = (painted - frames.double() / 255).square().sum((1, 2, 3))
    gradients = torch.autograd.grad(errors, [inputs, taps], weight.double())
    return [x, taps.detach().float(), frames, weight], [errors.detach(), *gradients]


def near(mine: Tensor, exact: Tensor, within: float) -> None:
    assert mine.shape == exact.shape
    error = (mine.detach().double().cpu() - exact.detach().double().cpu()).norm()
    assert error <= within * exact.norm(), f"{error / exact.norm():.1e}"


def compare(device: str, shapes: list[tuple[int, ...]], by: object, kind: torch.dtype, within: float) -> None:
    """Kernels or operations against the plain formulas."""
    for shape in shapes:
        inputs, (y, rectified, of_weight) = plain_halved(shape)
        frames, weight, bias, grad = (part.to(device) for part in inputs)
        result = by.halved(frames, weight, None, kind)
        near(result, y, within)
        assert result.dtype == kind and result.is_contiguous(memory_format=torch.channels_last)
        near(by.halved(frames, weight, bias, kind), rectified, within)
        near(by.halved_gradient(frames, grad.to(kind)), of_weight, within)
        inputs, (errors, of_x, of_taps) = plain_errors(shape)
        x, taps, frames, grad = (part.to(device) for part in inputs)
        x = x.to(kind)
        sums, differences = by.errors(x, taps, frames)
        near(sums, errors, within)
        assert sums.dtype == torch.float32
        result = by.errors_gradients(grad, x, taps, differences)
        near(result[0], of_x, within)
        near(result[1], of_taps, within)
        assert result[0].dtype == kind and result[0].is_contiguous(memory_format=torch.channels_last)


def test_operations_say_what_plain_layers_do() -> None:
    compare("cpu", SIZES, image_conv, torch.float32, 1e-5)
    compare("cpu", SIZES, image_conv, torch.bfloat16, 1e-2)


def make_few_programs() -> None:
    """Has each take several pictures, and makes more tiles than one."""
    for name in ("HALVED", "HALVED_GRADIENT", "ERRORS", "INPUTS_GRADIENT", "TAPS_GRADIENT"):
        setattr(image_kernels, name, getattr(image_kernels, name)._replace(tile=64, programs=8))


def test_the_interpreter_computes_the_plain_formulas() -> None:
    """In float16, as it cannot multiply matrices of bfloat16."""
    program = "from test_image_conv import *; make_few_programs()\n"
    interpret(program + "compare('cpu', SIZES, image_kernels, torch.float16, 2e-3)")


def look(device: str) -> None:
    """Checks what compilers are told about shapes, dtypes and strides."""
    count, channels, height, width = SIZES[1]
    frames, x = random_frames(count, height, width).to(device), pictures_of(*SIZES[1]).bfloat16().to(device)
    weight, taps, vector = (torch.rand(size).to(device) for size in ((channels, 3, 4, 4), (4 * channels + 1, 16), 7))
    operations, kind = torch.ops.glamkit, torch.bfloat16
    differences = operations.image_conv_errors(x, taps, frames)[1]
    for operation, inputs in (
        (operations.image_conv_halved, (frames, weight, None, kind)),
        (operations.image_conv_halved, (frames, weight, vector, kind)),
        (operations.image_conv_halved_gradient, (frames, x)),
        (operations.image_conv_errors, (x, taps, frames)),
        (operations.image_conv_errors_gradients, (vector[:count], x, taps, differences)),
    ):
        torch.library.opcheck(operation.default, inputs, test_utils=LOOKS)
        with FakeTensorMode() as mode:
            fake = operation(*(mode.from_tensor(part) if isinstance(part, Tensor) else part for part in inputs))
        real = operation(*inputs)
        for one, two in zip(*((part if isinstance(part, tuple) else (part,)) for part in (fake, real)), strict=True):
            assert (one.shape, one.stride(), one.dtype) == (two.shape, two.stride(), two.dtype)


def test_compilers_are_told_the_truth() -> None:
    look("cpu")


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Uses the operations for all frames in uint8, and lists them."""
    calls: list[Tensor] = []
    monkeypatch.setattr(
        image_conv, "supported", lambda frames, _: frames.dtype == torch.uint8 and (calls.append(frames) or True)
    )
    return calls


def gradients(function: Callable[[], Tensor], module: nn.Module, *others: Tensor) -> list[Tensor]:
    y = function()
    weight = torch.linspace(-1, 2, y.numel(), device=y.device).view(y.shape)
    return [y, *torch.autograd.grad((y.float() * weight).sum(), [*module.parameters(), *others])]


@pytest.mark.parametrize("compiler", ["", "aot_eager"])
def test_layers_are_the_same_by_operations(compiler: str, everywhere: list[Tensor]) -> None:
    frames, x = random_frames(3, 4, 6), pictures_of(3, 5, 4, 6).requires_grad_()
    down, up = layer(HalvingConv2d, 3, 5), layer(DoublingConv2d, 5, 3)
    wanted = [
        gradients(lambda: down(frames / 255), down),
        gradients(lambda: (up(x) - frames / 255).square().sum((1, 2, 3)), up, x),
    ]
    assert not everywhere
    compiled = (lambda f: torch.compile(f, backend=compiler, fullgraph=True)) if compiler else lambda f: f
    result = [
        gradients(lambda: compiled(down.forward)(frames), down),
        gradients(lambda: compiled(up.error)(x, frames), up, x),
    ]
    assert len(everywhere) == 2
    for mine, plain in zip(result, wanted, strict=True):
        for one, two in zip(mine, plain, strict=True):
            near(one, two, 1e-5)


def test_the_encoder_sees_frames_as_it_sees_pictures(everywhere: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, frames = Encoder((4, 8)).eval(), random_frames(3, 8, 8)
    plain = encoder(frames / 255)
    accelerate(encoder, torch.device("meta"))
    with torch.no_grad():
        for function in (encoder, encoder.at_once):
            near(function(frames), plain, 1e-5)
            assert everywhere.pop() is frames
        near(encoder.at_once(frames / 255), plain, 1e-5)
    monkeypatch.undo()
    assert torch.equal(Encoder.forward(encoder, frames), Encoder.forward(encoder, frames.float() / 255))
    with torch.no_grad():
        near(encoder.at_once(frames), plain, 1e-5)


def test_operations_are_for_rounded_products_with_frames_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, weight = random_frames(1, 4, 4), torch.rand(8, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert not image_conv.supported(frames, weight)
        monkeypatch.setattr(image_conv, "has_kernels", lambda _: True)
        assert image_conv.supported(frames, weight)
        for other in (frames.float(), frames[:, :1], frames[:, :, 1:], frames[..., 2:]):
            assert not image_conv.supported(other, weight)
        assert not image_conv.supported(frames, weight.repeat(5, 1, 1, 1))
    assert not image_conv.supported(frames, weight)
    assert image_conv.supported(frames, weight.half())


def test_a_compiler_for_a_gpu_sees_the_operations_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that knows shapes alone, as if it had kernels; nothing is compiled in the end."""
    monkeypatch.setattr(image_conv, "has_kernels", lambda device: device.type == "meta")
    for module in (image_conv, frames_module):
        monkeypatch.setattr(module, "precision", lambda weight: weight.dtype)
    seen: list[str] = []

    def look(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes if "glamkit.image_conv" in str(node.target))
        return graph.forward

    with torch.device("meta"):
        frames, latents = torch.empty(2, 3, 16, 16, dtype=torch.uint8), torch.empty(2, 4, dtype=torch.bfloat16)
        encoder, decoder = Encoder((4, 8)).bfloat16(), Decoder(4, (4, 8)).bfloat16()
    for net in (encoder, decoder):
        accelerate(net, frames.device)
    compiled = functools.partial(torch.compile, backend=look, fullgraph=True)
    assert compiled(encoder)(frames).shape == (2, encoder.features)
    assert compiled(decoder.error)(latents, frames).shape == (2,)
    with torch.no_grad():
        assert compiled(encoder.eval().at_once)(frames).shape == (2, encoder.features)
    assert seen == [f"glamkit.image_conv_{name}.default" for name in ("halved", "errors", "halved")]


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_computes_the_plain_formulas(kind: torch.dtype) -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses torch's own"
    for by in (image_kernels, image_conv):
        compare("cuda", [*SIZES, PUBLISHED], by, kind, 1e-2)
    look("cuda")


@pytest.mark.cuda
def test_operations_on_a_gpu_repeat_to_the_bit() -> None:
    frames, weight, _, grad = (part.cuda() for part in plain_halved(PUBLISHED)[0])
    x, taps, _, vector = (part.cuda() for part in plain_errors(PUBLISHED)[0])
    x, grad = x.bfloat16(), grad.bfloat16()
    results = []
    for _ in range(2):
        sums, differences = image_conv.errors(x, taps, frames)
        result = image_conv.halved(frames, weight, None, torch.bfloat16), image_conv.halved_gradient(frames, grad), sums
        results.append([*result, differences, *image_conv.errors_gradients(vector, x, taps, differences)])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_networks_on_a_gpu_learn_from_frames_what_plain_ones_do(compiled: bool) -> None:
    torch.manual_seed(0)
    config = WorldModelConfig(channels=(32, 64, 128, 256))
    net, frames = WorldModel(config, 3).cuda(), random_frames(64, 32, 32).cuda()
    latents = torch.rand(64, net.latent, device="cuda")

    def outcome(kind: torch.dtype, encode: Callable[..., Tensor], error: Callable[..., Tensor]) -> list[Tensor]:
        with torch.autocast("cuda", kind, enabled=kind != torch.float32):
            seen, missed = encode(frames), error(latents, frames)
        total = (seen.float() * torch.linspace(-1, 1, seen.shape[1], device="cuda")).mean() + missed.mean()
        ends = [net.encoder[0].weight, *net.decoder[-1].parameters(), net.decoder[-4].weight]
        return [seen, missed, *torch.autograd.grad(total, ends)]

    def plainly(latents: Tensor, frames: Tensor) -> Tensor:
        return (net.decoder(latents).float() - frames / 255).square().sum((1, 2, 3))

    wrapped = torch.compile if compiled else lambda function: function
    exact = outcome(torch.float32, lambda frames: net.encoder(frames / 255), plainly)
    rounded = outcome(torch.bfloat16, lambda frames: net.encoder(frames / 255), plainly)
    accelerate(net, frames.device)
    mine = outcome(torch.bfloat16, wrapped(net.encoder), wrapped(net.decoder.error))
    for one, two, three in zip(mine, rounded, exact, strict=True):
        assert (one - three).norm() <= 1.2 * (two - three).norm() + 5e-3 * three.norm()


@pytest.mark.cuda
def test_an_encoder_on_a_gpu_looks_at_frames_at_once() -> None:
    torch.manual_seed(0)
    encoder, frames = Encoder((32, 64, 128, 256)).cuda().eval(), random_frames(64, 32, 32).cuda()
    with torch.no_grad():
        exact = encoder(frames)
        accelerate(encoder, frames.device)
        with torch.autocast("cuda", torch.bfloat16):
            for function in (encoder.at_once, torch.compile(encoder.at_once), encoder):
                near(function(frames), exact, 2e-2)


@pytest.mark.cuda
def test_a_decoder_s_errors_can_be_recorded() -> None:
    torch.manual_seed(0)
    decoder, frames = Decoder(16, (8, 8)).cuda(), random_frames(16, 8, 8).cuda()
    accelerate(decoder, frames.device)
    latents = torch.rand(16, 16, device="cuda")

    def work() -> list[Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            missed = decoder.error(latents, frames).mean()
        return [missed.detach(), *torch.autograd.grad(missed, list(decoder[-1].parameters()))]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = work()
    graph.replay()
    for one, two in zip(recorded, work(), strict=True):
        near(one, two, 1e-2)
