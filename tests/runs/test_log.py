"""Means of what comes in again and again, kept and taken up again without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runs.log import Means


def added(means: Means, *numbers: float) -> None:
    for number in numbers:
        means.add({"loss": torch.tensor(number), "size": 2 * number}, "model")


def test_means_are_of_all_that_came_in() -> None:
    means = Means()
    added(means, 1, 3)
    means.add({"reward": torch.tensor(5.0, dtype=torch.float64)}, "replay")
    assert means.take() == {"model/loss": 2, "model/size": 4, "replay/reward": 5}
    assert means.take() == {}


def test_a_value_that_is_overwritten_later_counts_as_it_was() -> None:
    means, value = Means(), torch.tensor(1.0)
    means.add({"loss": value}, "model")
    value.fill_(7)
    means.add({"loss": value}, "model")
    assert means.take() == {"model/loss": 4}


@pytest.mark.parametrize("after", [(), (7.0,)])
def test_half_gathered_means_go_on_after_a_pause(after: tuple[float, ...]) -> None:
    whole, parts, resumed = Means(), Means(), Means()
    for means in (whole, parts):
        added(means, 0.1, 0.2)
        means.add({"late": 5.0}, "model")  # fewer of these, under the same prefix
    resumed.load_state_dict(parts.state_dict())
    assert resumed.state_dict() == whole.state_dict() == parts.state_dict()
    for means in (whole, resumed):
        added(means, *after)
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.take() == whole.take()


def test_means_that_come_apart_go_on_to_the_bit() -> None:
    whole, parts, resumed = Means(), Means(), Means()
    for means in (whole, parts):
        means.add({"a": torch.tensor(0.1)}, "model")  # as many as of b, and of the same prefix
        means.add({"b": torch.tensor(0.3)}, "model")
    resumed.load_state_dict(parts.state_dict())
    for means in (whole, resumed):
        for value in (0.7, 1e-7, 16.1):
            means.add({"a": torch.tensor(value)}, "model")
    assert resumed.state_dict() == whole.state_dict() and resumed.take() == whole.take()


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert (log.read(path), log.added(path), log.last_step(path)) == ([], ([], 0), 0)
    path.write_text('{"step": 16, "kind": "log"}\n{"step": 20, "ki')
    entries, end = log.added(path)
    assert ([entry["step"] for entry in entries], end, log.last_step(path)) == ([16], 28, 16)
    with path.open("a") as file:
        file.write('nd": "episode"}\nnothing\n{"step": 32, "kind": "log"}\n')
    assert [entry["step"] for entry in log.added(path, end)[0]] == [20, 32]
    assert [entry["step"] for entry in log.added(path, -50)[0]] == [32]  # begins within a line
    assert log.last_step(path) == 32
    with pytest.raises(GlamkitError, match=r"line 3 of .* is damaged"):
        log.read(path)
