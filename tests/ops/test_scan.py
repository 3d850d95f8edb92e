"""The state space's two sums: the same numbers whatever slices they are computed in, and right gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glamkit.ops import scan

NAMES = ("driven", "dt", "A", "B", "C")


@pytest.fixture(params=[1, 2**19], ids=["a row at a time", "all rows at once"], autouse=True)
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CACHED", request.param)


def random_window(dtype: torch.dtype = torch.float64, places: int = 4) -> list[Tensor]:
    torch.manual_seed(0)
    rows, inner, states = 5, 3, 2
    driven, gates = torch.randn(places, rows, inner, dtype=dtype), torch.randn(places, rows, states, dtype=dtype)
    dt, decay = torch.rand(places, rows, inner, dtype=dtype), -torch.rand(inner, states, dtype=dtype)
    parts = [driven, dt, decay, gates, torch.randn(rows, states, dtype=dtype)]
    return [part.requires_grad_() for part in parts]


def by_the_scan(driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same sum as the last output of a scan."""
    u, dt, B = ((part.transpose(0, 1)) for part in (driven / dt, dt, B))
    return scan.selective_scan(u, dt, A, B, C.unsqueeze(1).expand_as(B))[:, -1]


@pytest.mark.parametrize("places", [1, 2, 7])
def test_a_window_is_the_end_of_a_scan(places: int) -> None:
    inputs = random_window(places=places)
    one, other = scan.window_sum(*inputs), by_the_scan(*inputs)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(one)
    pairs = zip(
        NAMES,
        torch.autograd.grad((one * weight).sum(), inputs, materialize_grads=True),  # of one place no time is left
        torch.autograd.grad((other * weight).sum(), inputs),
        strict=True,
    )
    for name, mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=name)


def test_places_may_come_one_by_one() -> None:
    driven, dt, A, B, C = random_window()
    one_by_one = scan.window_sum(tuple(driven), tuple(dt), A, tuple(B), C)
    assert torch.equal(one_by_one, scan.window_sum(driven, dt, A, B, C))


def test_steps_are_the_scan_with_and_without_gradients() -> None:
    driven, dt, A, B, _ = random_window()
    C = torch.randn_like(B)
    whole = scan.selective_scan(
        *(part.transpose(0, 1) for part in (driven / dt, dt)), A, *(p.transpose(0, 1) for p in (B, C))
    )
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            h, outputs = torch.zeros(5, 3, 2, dtype=torch.float64), []
            for place in range(len(dt)):
                y, h = scan.scan_step(h, driven[place], dt[place], A, B[place], C[place])
                outputs.append(y)
        torch.testing.assert_close(torch.stack(outputs, 1), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("places", [1, 3])
def test_gradients_are_those_of_finite_differences(places: int) -> None:
    assert torch.autograd.gradcheck(scan.window_sum, random_window(places=places))
    u = [torch.rand(2, places, 2, dtype=torch.float64), torch.rand(2, places, 2, dtype=torch.float64)]
    gates = [torch.rand(2, places, 2, dtype=torch.float64) for _ in range(2)]
    inputs = [*u, -torch.rand(2, 2, dtype=torch.float64), *gates]
    assert torch.autograd.gradcheck(scan.selective_scan, [part.requires_grad_() for part in inputs])
