"""GMamba and LMamba as a batch of two: the same numbers as each alone, by kernels and without."""

from __future__ import annotations

from typing import Any

import plain_bodies
import pytest
import torch
from interpreter import interpret
from test_sequence_model import config, lively
from torch import Tensor
from torch._subclasses import FakeTensorMode

from glamkit.config import WorldModelConfig
from glamkit.models import sequence_model
from glamkit.models.sequence_model import ImaginationMemory, SequenceModel
from glamkit.ops import device
from glamkit.ops.triton import paired_windows as kernels
from glamkit.training.accelerate import accelerate, imagination, rules
from glamkit.training.accelerate.imagination import Paired
from glamkit.training.accelerate.windows import WindowShared as Window

CASES: list[dict[str, Any]] = [  # rows, inner channels, states, rank, taps, sizes of the windows, entries
    {"rows": 5, "inner": 20, "states": 4, "rank": 2, "conv": 4, "sizes": [7, 4], "total": 8},
    {"rows": 9, "inner": 140, "states": 5, "rank": 3, "conv": 4, "sizes": [2, 2], "total": 3},
    {"rows": 3, "inner": 33, "states": 16, "rank": 1, "conv": 3, "sizes": [3, 5], "total": 5},
    # As published, the channels fill the programs.
    {"rows": 2, "inner": 512, "states": 3, "rank": 2, "conv": 4, "sizes": [4, 4], "total": 4},
]
PUBLISHED = {"rows": 1024, "inner": 512, "states": 16, "rank": 16, "conv": 4, "sizes": [7, 4], "total": 8}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are used here too, as on a GPU, but without its kernels."""
    monkeypatch.setattr(imagination, "by_kernels", lambda _: True)


def made(**changes: Any) -> SequenceModel:
    net = lively(SequenceModel(config(**changes)))
    rule = next(rule for rule in rules.RULES if rule.name == "paired_windows")
    accelerate(net, torch.device("cpu"))
    for part, faster in list(rule.swaps(net)):
        rules.swap(part, faster)
    return net  # type: ignore[return-value]


def pair(net: SequenceModel, tokens: Tensor) -> Paired:
    return Paired(net, tokens, [tokens.shape[1] - 1, net.lmamba.window])


def follow(memory: ImaginationMemory, tokens: Tensor) -> Tensor:
    """h and g after each token."""
    result = [torch.stack([memory.hidden, memory.variation])]
    for token in tokens.unbind(1):
        memory.read(token)
        result.append(torch.stack([memory.hidden, memory.variation]))
    return torch.stack(result)


@pytest.mark.parametrize(("window", "length"), [(4, 8), (4, 5), (6, 9)])
@torch.no_grad()
@pytest.mark.usefixtures("paired")
def test_pairs_compute_what_windows_do(window: int, length: int) -> None:
    net, tokens = made(window=window), torch.randn(5, length + 9, 16)
    memory = net.memory(tokens[:, :length])
    assert isinstance(memory, Paired)
    alone = follow(Window(net, tokens[:, :length]), tokens[:, length:])
    torch.testing.assert_close(follow(memory, tokens[:, length:]), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modules", ["gmamba", "lmamba"])
@torch.no_grad()
@pytest.mark.usefixtures("paired")
def test_pairs_leave_a_module_out_as_windows_do(modules: str) -> None:
    net, tokens = made(modules=modules), torch.randn(5, 12, 16)
    alone = follow(Window(net, tokens[:, :8]), tokens[:, 8:])
    torch.testing.assert_close(follow(net.memory(tokens[:, :8]), tokens[:, 8:]), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.usefixtures("paired")
def test_in_bfloat16_pairs_are_as_near_to_the_numbers_as_windows() -> None:
    net, tokens = made(), torch.randn(64, 20, 16)
    exact = follow(Window(net, tokens[:, :8]), tokens[:, 8:])
    with torch.autocast("cpu", torch.bfloat16):
        near, both = (follow(kind(net, tokens[:, :8]), tokens[:, 8:]) for kind in (Window, pair))
        # In a pair they are no product's weights, but rounded as if they were: a rounded twin computes the same.
        steps = pair(net, tokens[:, :8]).steps
    assert torch.equal(steps, steps.bfloat16().float()) and both.dtype == torch.float32
    assert (both - exact).norm() <= 1.1 * (near - exact).norm() <= 0.02 * exact.norm()


@torch.no_grad()
@pytest.mark.usefixtures("paired")
def test_what_cannot_be_a_pair_is_read_as_before() -> None:
    tokens = torch.randn(2, 9, 16)
    assert type(made(blocks=2).memory(tokens)) is sequence_model.Window
    for window, length in ((4, 4), (4, 1), (2, 3), (1, 2)):  # not each has as many places as the convolution has taps
        assert type(made(window=window).memory(tokens[:, :length])) is Window
    with torch.enable_grad():
        assert type(made().memory(tokens)) is Window
    assert type(made().memory(tokens, "recurrent")) is sequence_model.Recurrent


def test_without_kernels_there_are_no_pairs() -> None:
    with torch.no_grad():
        assert type(made().memory(torch.randn(2, 9, 16))) is Window


@torch.no_grad()
@pytest.mark.usefixtures("paired")
def test_compiled_pairs_are_one_graph_for_all_steps() -> None:
    net, tokens, graphs = made(), torch.randn(5, 14, 16), []

    def look(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    memory = torch.compile(net.memory, backend=look, fullgraph=True)(tokens[:, :8])
    read = torch.compile(lambda memory, token: memory.read(token), backend=look, fullgraph=True)
    hidden = torch.stack([read(memory, token) for token in tokens[:, 8:].transpose(0, 1).contiguous()])
    assert len(graphs) == 2
    alone = follow(Window(net, tokens[:, :8]), tokens[:, 8:])[1:, 0]
    torch.testing.assert_close(hidden, alone, rtol=1e-5, atol=1e-5)


# Kernels --------------------------------------------------------------------------------------------------------------


def inputs(
    rows: int, inner: int, states: int, rank: int, conv: int, sizes: list[int], total: int,
    dtype: torch.dtype, device: str,
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """Arguments of both operations."""

    def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape).to(device, dtype)

    entries = [drawn(2, rows, 2 * inner, dtype=dtype) for _ in range(total)]
    us = [drawn(rows, inner, dtype=dtype) for _ in range(sum(sizes))]
    selected = [drawn(rows, rank + 2 * states, dtype=dtype) for _ in range(sum(sizes))]
    steps, decays = 0.5 * drawn(2, rank + 1, inner), -3 * torch.rand(2, states + 1, inner).to(device)
    steps[:, -1] = torch.linspace(-12, 25, inner)  # biases: from next to no time to more than exponentials can hold
    return [entries, sizes, drawn(2, conv + 1, inner)], [us, selected, sizes, entries[-1], steps, decays]


def compare(device: str, cases: list[dict[str, Any]]) -> None:
    """The kernels against the plain operations in float64."""
    for case in cases:
        for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 6e-3)):  # the interpreter cuts digits off
            first, second = inputs(**case, dtype=dtype, device=device)
            u, y = kernels.convolved(*first), kernels.summed(*second)
            assert u.dtype == y.dtype == dtype
            near(u, plain_bodies.convolved(*exactly(first)), tolerance if dtype == torch.bfloat16 else 1e-6)
            near(y, plain_bodies.summed(*exactly(second)), tolerance)
    # Next to no time: of it nothing but digits that a sum with 1 would swallow, and no skip beside it.
    (us, selected, sizes, last, steps, decays) = inputs(**CASES[0], dtype=torch.float32, device=device)[1]
    steps[:, :-1] *= 0.01
    steps[:, -1], decays[:, -1] = -12, 0
    second = [us, selected, sizes, last, steps, decays]
    near(kernels.summed(*second), plain_bodies.summed(*exactly(second)), 2e-5)


def exactly(arguments: list[Any]) -> list[Any]:
    return [
        argument.double().cpu()
        if isinstance(argument, Tensor)
        else [x.double().cpu() if isinstance(x, Tensor) else x for x in argument]
        for argument in arguments
    ]


def near(got: Tensor, exact: Tensor, tolerance: float) -> None:
    assert got.shape == exact.shape
    error = (got.double().cpu() - exact).norm() / exact.norm()
    assert error <= tolerance, f"{error:.1e}"


def test_the_interpreter_computes_the_plain_operations() -> None:
    interpret("from test_paired_windows import *; compare('cpu', CASES)")


def check_what_compilers_are_told(device: str) -> None:
    for operation, arguments in zip(
        (torch.ops.glamkit.paired_windows_convolved, torch.ops.glamkit.paired_windows_summed),
        inputs(**CASES[0], dtype=torch.bfloat16, device=device),
        strict=True,
    ):
        torch.library.opcheck(operation.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_compilers_are_told_the_truth() -> None:
    check_what_compilers_are_told("cpu")


def test_a_gpu_is_given_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is only imagined: shapes alone."""
    monkeypatch.setattr(device, "TRITON", True)
    with FakeTensorMode():
        entries, us, selected = (
            [torch.empty(shape, device="cuda") for _ in range(count)]
            for count, shape in ((8, (2, 5, 40)), (11, (5, 20)), (11, (5, 10)))
        )
        taps, steps, decays = (torch.empty(2, count, 20, device="cuda") for count in (5, 3, 5))
        assert torch.ops.glamkit.paired_windows_convolved(entries, [7, 4], taps).shape == (2, 4, 5, 20)
        assert torch.ops.glamkit.paired_windows_summed(us, selected, [7, 4], entries[0], steps, decays).shape == (
            2,
            5,
            20,
        )
        assert imagination.by_kernels(steps)


@pytest.mark.cuda
def test_the_gpu_computes_the_plain_operations() -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses the plain code"
    compare("cuda", [*CASES, PUBLISHED])
    check_what_compilers_are_told("cuda")


@pytest.mark.cuda
@torch.no_grad()
def test_dreams_on_a_gpu_are_pairs_and_as_near_as_windows() -> None:
    net, tokens = lively(SequenceModel(WorldModelConfig())).cuda(), torch.randn(256, 24, 256, device="cuda")
    accelerate(net, torch.device("cuda"))
    exact = follow(Window(net, tokens[:, :8]), tokens[:, 8:])
    assert isinstance(net.memory(tokens[:, :8]), Paired)
    with torch.autocast("cuda", torch.bfloat16):
        near, both = (follow(kind(net, tokens[:, :8]), tokens[:, 8:]) for kind in (Window, pair))
    assert (both - exact).norm() <= 1.1 * (near - exact).norm() <= 0.02 * exact.norm()
