"""Recordings on a GPU: the same numbers as without, from the first call to the last. On CPUs nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glamkit.config import RuntimeConfig, preset
from glamkit.errors import GlamkitError
from glamkit.runs.log import read
from glamkit.runtime import Machine, seed_everything
from glamkit.runtime.cuda_graphs import Recorded, Recorder
from glamkit.training.trainer import Trainer


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(torch.device("cuda"))


def test_a_cpu_records_nothing() -> None:
    machine = Machine(RuntimeConfig(device="cpu"))
    assert machine.record(read) is read
    assert machine.describe()["recorded"] == "no"


class Nearby:
    """A recorder without a GPU: what it does aside is done at once."""

    lasting, pool, stream = set[int](), None, None

    def aside(self, work: Callable[[], Any]) -> Any:
        return work()


def test_a_first_call_that_fails_does_not_count() -> None:
    calls = []

    def work(x: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("full")
        return x + 1

    recorded = Recorded(work, Nearby())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="full"):
        recorded(torch.ones(2))
    assert recorded(torch.ones(2)).tolist() == [2, 2] and calls == [0, 1]


@pytest.mark.parametrize(
    ("cause", "error", "message"),
    [
        ("CUDA out of memory. Tried to allocate", RuntimeError, "CUDA out of memory"),
        ("not permitted\nmore", GlamkitError, r"recorded \(not permitted\); go on with runtime.record=false"),
    ],
)
def test_what_kept_a_recording_from_being_made_is_named(
    cause: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error") from None  # as ending it does

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    answers = iter([torch.ones(1)])

    def work(_: Tensor) -> Tensor:
        for answer in answers:
            return answer
        raise RuntimeError(cause)

    recorded = Recorded(work, Nearby())  # type: ignore[arg-type]
    recorded(torch.ones(2))
    with pytest.raises(error, match=message):
        recorded(torch.ones(2))


@pytest.mark.cuda
def test_calls_are_replayed_and_shapes_recorded_anew(recorder: Recorder) -> None:
    calls = []

    def double(x: Tensor, by: int) -> tuple[Tensor, dict[str, Tensor]]:
        calls.append(by)
        return x * by, {"sum": x.sum()}

    recorded = Recorded(double, recorder)
    for size, by in [(3, 2), (3, 2), (3, 2), (3, 5), (3, 5), (3, 5), (4, 5), (4, 5)]:
        x = torch.rand(size, device="cuda")
        product, metrics = recorded(x, by)
        assert torch.equal(product, x * by) and torch.equal(metrics["sum"], x.sum())
    assert calls == [2, 2, 5, 5, 5, 5]


@pytest.mark.cuda
def test_random_numbers_are_those_without_a_recording(recorder: Recorder) -> None:
    def draw(x: Tensor) -> Tensor:
        return x + torch.rand_like(x) + torch.rand_like(x)

    x, recorded = torch.zeros(1000, device="cuda"), Recorded(draw, recorder)
    seed_everything(3)
    plain = [draw(x).clone() for _ in range(4)]
    seed_everything(3)
    assert all(torch.equal(recorded(x), expected) for expected in plain)
    seed_everything(3)
    assert torch.equal(recorded(x), plain[0])


@pytest.mark.cuda
def test_one_recording_reads_where_another_writes(recorder: Recorder) -> None:
    made, used = Recorded(lambda x: x + 1, recorder), Recorded(lambda x: x * 2, recorder)
    for number in range(4):
        x = torch.full((5,), float(number), device="cuda")
        assert torch.equal(used(made(x)), 2 * (x + 1))
    assert used.inputs[0] is made.outputs
    x = torch.ones(5, device="cuda")
    assert torch.equal(used(x), 2 * x)  # anything else is copied to that place


@pytest.mark.cuda
def test_a_recorded_run_is_the_run_without(tmp_path: Path) -> None:
    logs = []
    for number, recorded in enumerate(["false", "true"]):
        config = preset("debug", f"env.game=glamkit/Catch-v0 runtime.device=cuda runtime.record={recorded}")
        # Dreams get longer on the way, so that recordings are made anew.
        config = config.override({"imagination.horizon_growth": 70, "runtime.deterministic": True})
        trainer = Trainer(config, tmp_path / str(number))
        assert trainer.machine.describe()["recorded"] == ("yes" if number else "no")
        list(trainer)
        logs.append([line for line in read(trainer.run.log_file) if line["kind"] == "log"])
    for plain, recorded in zip(*logs, strict=True):
        same = plain.keys() - {"kind", "time/steps_per_second"}
        assert {key: recorded[key] for key in same} == pytest.approx(
            {key: plain[key] for key in same}, rel=1e-4, abs=1e-5
        )
