"""Triton's kernels of the two sums of `scan`: checked by Triton's interpreter where it is installed, and on a GPU.

The interpreter has to be chosen before triton is first imported, so it runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from interpreter import interpret
from torch import Tensor
from torch._subclasses import FakeTensorMode

from glamkit.ops import device, scan
from glamkit.ops.triton import scan as kernels

SCANS = [(2, 1, 3, 4), (2, 9, 20, 16), (3, 7, 33, 5), (1, 5, 40, 1)]  # (N, T, I, S)
WINDOWS = [(1, 3, 5, 4), (2, 5, 33, 5), (8, 35, 20, 16)]  # (P, N, I, S)
NAMES = ("u", "dt", "A", "B", "C")


def random_inputs(shape: tuple[int, ...], gates: tuple[int, ...], device: str = "cpu") -> list[Tensor]:
    """Inputs of `selective_scan` for shape (N, T, I, S), of `window_sum` for (P, N, I, S); C is (*gates, S)."""
    torch.manual_seed(0)
    first, second, inner, states = shape
    u, dt = torch.randn(first, second, inner), torch.rand(first, second, inner) + 0.05
    A, B = -3 * torch.rand(inner, states) - 0.1, torch.randn(first, second, states)
    return [part.to(device) for part in (u, dt, A, B, torch.randn(*gates, states))]


def scan_by_kernels(grad: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    y, kept = kernels.scan(*inputs)
    return [y, *kernels.scan_backward(grad, *inputs, kept)]


def window_by_kernels(grad: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [kernels.window(*inputs), *kernels.window_backward(grad, *inputs)]


def by_autograd(function: str, grad: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The plain code in float64, on the CPU."""
    exact = [part.double().cpu().requires_grad_() for part in inputs]
    y = getattr(scan, function)(*exact)
    return [y.detach(), *torch.autograd.grad(y, exact, grad.double().cpu(), materialize_grads=True)]


def compare(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for name, mine, exact in zip(("output", *NAMES), got, wanted, strict=True):
        assert mine.shape == exact.shape, name
        error = (mine.double().cpu() - exact).norm()
        assert error <= tolerance * exact.norm(), f"{name}: {error / exact.norm():.1e}"


def compare_all(device: str, scans: list[tuple[int, ...]], windows: list[tuple[int, ...]], tolerance: float) -> None:
    for shape in scans:
        inputs = random_inputs(shape, shape[:2], device)
        grad = torch.randn_like(inputs[0])
        compare(scan_by_kernels(grad, inputs), by_autograd("selective_scan", grad, inputs), tolerance)
    for shape in windows:
        inputs = random_inputs(shape, shape[1:2], device)
        grad = torch.randn_like(inputs[0][0])
        compare(window_by_kernels(grad, inputs), by_autograd("window_sum", grad, inputs), tolerance)


def test_the_interpreter_computes_the_plain_sums() -> None:
    interpret("from test_triton_scan import *; compare_all('cpu', SCANS, WINDOWS, 1e-6)")


def test_nothing_here_needs_the_kernels() -> None:
    program = (
        "import sys, torch\nfrom glamkit.ops import device, scan\ndevice.TRITON = True\n"
        "x = torch.ones(2, 3, 4, requires_grad=True)\ngates = torch.ones(2, 3, 5)\n"
        "scan.selective_scan(x, x, torch.ones(4, 5), gates, gates).sum().backward()\n"
        "scan.window_sum(x, x, torch.ones(4, 5), gates, gates[0]).sum().backward()\n"
        "assert 'glamkit.ops.triton.scan' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_kept_is_a_state_for_each_chunk() -> None:
    u, A = torch.empty(2, 2 * kernels.CHUNK + 1, 5), torch.empty(5, 4)
    assert kernels.kept_shape(u, A) == (2, 3, 5, 4)
    assert kernels.kept_shape(u[:, : kernels.CHUNK], A) == (2, 1, 5, 4)


def test_a_compiler_for_a_gpu_sees_the_operations_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is only imagined: shapes alone, and nothing is compiled in the end."""
    monkeypatch.setattr(device, "TRITON", True)
    seen = []

    def look(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes if "glamkit" in str(node.target))
        return graph.forward

    with FakeTensorMode():
        u, A = torch.empty(2, 9, 20, device="cuda"), torch.empty(20, 16, device="cuda")
        B, C = torch.empty(2, 9, 16, device="cuda"), torch.empty(9, 16, device="cuda")
        y, kept = torch.ops.glamkit.scan(u, u, A, B, B)
        assert kept.shape == kernels.kept_shape(u, A)
        gradients = torch.ops.glamkit.scan_backward(y, u, u, A, B, B, kept)
        assert [part.shape for part in gradients] == [part.shape for part in (u, u, A, B, B)]
        assert torch.compile(scan.selective_scan, backend=look, fullgraph=True)(u, u, A, B, B).shape == u.shape
        window = torch.compile(scan.window_sum, backend=look, fullgraph=True)
        assert window(u, u, A, B, C).shape == u.shape[1:]
        with torch.no_grad():
            assert window(tuple(u), tuple(u), A, tuple(B), C).shape == u.shape[1:]
    assert seen == ["glamkit.scan.default", *2 * ["glamkit.scan_window.default"]]


@pytest.mark.cuda
def test_the_gpu_computes_the_plain_sums() -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses the plain code"
    compare_all("cuda", [*SCANS, (32, 67, 1024, 16), (4, 512, 96, 8)], [*WINDOWS, (4, 2080, 1024, 16)], 1e-4)


@pytest.mark.cuda
def test_the_operations_on_a_gpu_are_the_kernels_and_repeat_to_the_bit() -> None:
    for function, shape in (("selective_scan", (32, 67, 1024, 16)), ("window_sum", (4, 2080, 1024, 16))):
        scanned = function == "selective_scan"
        inputs = random_inputs(shape, shape[:2] if scanned else shape[1:2], "cuda")
        leaves = [part.requires_grad_() for part in inputs]
        results = []
        for run in (getattr(scan, function), getattr(scan, function), torch.compile(getattr(scan, function))):
            y = run(*leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
        for name, one, again, compiled in zip(("output", *NAMES), *results, strict=True):
            assert torch.equal(one, again), name
            assert torch.allclose(one, compiled, rtol=1e-4, atol=1e-4 * float(one.detach().abs().max())), name
        direct = kernels.scan(*inputs)[0] if scanned else kernels.window(*inputs)
        assert torch.equal(results[0][0], direct)
        if not scanned:
            driven, dt, A, B, C = (part.detach() for part in inputs)
            with torch.no_grad():
                assert torch.equal(scan.window_sum(tuple(driven.clone()), tuple(dt), A, tuple(B), C), direct)


@pytest.mark.cuda
def test_compilers_are_told_the_truth_about_the_kernels() -> None:
    checks = ("test_schema", "test_faketensor")
    inputs = random_inputs((2, 9, 20, 16), (2, 9), "cuda")
    torch.library.opcheck(torch.ops.glamkit.scan.default, inputs, test_utils=checks)
    y, kept = torch.ops.glamkit.scan(*inputs)
    torch.library.opcheck(torch.ops.glamkit.scan_backward.default, (y, *inputs, kept), test_utils=checks)
    inputs = random_inputs((4, 9, 20, 16), (9,), "cuda")
    torch.library.opcheck(torch.ops.glamkit.scan_window.default, inputs, test_utils=checks)
    grad = torch.ops.glamkit.scan_window(*inputs)
    torch.library.opcheck(torch.ops.glamkit.scan_window_backward.default, (grad, *inputs), test_utils=checks)
