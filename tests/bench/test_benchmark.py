"""The benchmark's result: complete, true to what was measured, the same on paper, in pictures and in the notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from figures import faults

from glamkit import cli
from glamkit.bench import benchmark
from glamkit.bench.timing import PHASES
from glamkit.config import Config, preset
from glamkit.errors import GlamkitError

NOTEBOOK = ROOT / "notebooks" / "06_speed.ipynb"
CPU = "runtime.device=cpu runtime.kernel=glamkit"


@pytest.fixture(scope="module")
def reported() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(reported: list[str]) -> dict[str, Any]:
    """A whole measurement."""
    before = torch.get_rng_state()
    result = benchmark.measure(preset("debug", CPU), 2, reported.append)
    assert torch.equal(torch.get_rng_state(), before)
    return result


# The result -----------------------------------------------------------------------------------------------------------


def test_the_result_is_complete_and_survives_json(report: dict[str, Any], reported: list[str]) -> None:
    assert json.loads(json.dumps(report)) == report | {"settings": json.loads(json.dumps(report["settings"]))}
    assert set(report) == {"phases", "machine", "predicted_hours", "settings"}
    assert list(report["phases"]) == [*PHASES, "step_opt_in"]
    for name, row in report["phases"].items():
        assert len(row["ratios"]) == 2
        assert row["ratio"] == pytest.approx(np.median(row["ratios"])) and row["fast_s"] > 0, name
    assert report["phases"]["step_opt_in"]["reference_s"] == report["phases"]["step"]["reference_s"]
    assert {"torch", "glamkit", "device", "precision", "threads", "cores"} <= set(report["machine"])
    hours = report["predicted_hours"]
    assert hours["per_game"] > 0 and "without evaluation" in hours["basis"]
    assert report["settings"]["repeats"] == 2
    assert Config.from_dict(report["settings"]["config"]) == preset("debug", CPU)
    assert any(line.startswith("round 1 of 2: world_model, glamkit; about ") for line in reported)


@pytest.mark.cuda
def test_on_a_gpu() -> None:
    config = preset("debug", "runtime.device=cuda")
    result = benchmark.measure(config, 1)
    assert result["machine"]["device"] == "cuda" and result["predicted_hours"]["per_game"] > 0


def test_the_tables_say_it(report: dict[str, Any]) -> None:
    table, facts = repr(benchmark.table(report)), repr(benchmark.facts(report))
    for name, row in report["phases"].items():
        assert f"{name} " in table and f"{row['ratio']:.2f} x" in table
        assert f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}" in table
    assert "Other programs that run at the same time" in table
    assert "whole run" in facts and "float32 on cpu, scan: glamkit, compiled: no" in facts
    assert [benchmark.span(s) for s in (22.71, 0.0456)] == ["22.7 s", "45.6 ms"]


# Pictures -------------------------------------------------------------------------------------------------------------


def test_where_time_goes(report: dict[str, Any]) -> None:
    picture = benchmark.where_time_goes(report)
    (axes,), phases = picture.axes, report["phases"]
    times = [row[key] for key in ("reference_s", "fast_s") for row in phases.values()]
    assert [bar.get_width() for bar in axes.patches] == times
    assert [text.get_text() for text in axes.texts] == [benchmark.span(seconds) for seconds in times]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(phases)
    assert faults(picture) == []


@pytest.mark.parametrize("name", ["2-cores", "2-cores-amx", "h100"])
def test_results_of_before_are_still_drawn(name: str) -> None:
    report = json.loads((ROOT / "notebooks" / "results" / f"speed-atari100k-{name}.json").read_text())
    assert faults(benchmark.where_time_goes(report)) == []
    assert f"{report['phases']['step']['ratio']:.2f} x" in repr(benchmark.table(report))


# The command and the notebook -----------------------------------------------------------------------------------------

MISTAKES = {
    ("--preset", "debgu"): "unknown preset 'debgu'; did you mean 'debug'?",
    ("--repeats", "two"): "Invalid value for '--repeats': 'two' is not a valid integer",
    ("--repeats", "0"): "Invalid value for '--repeats': 0 is not in the range x>=1.",
    ("--device", "cdua"): "runtime.device = 'cdua' is not a device",
    ("--set", "trainer.warmpu=3"): "unknown setting 'trainer.warmpu'",
    ("--set", "env.game=Pnog"): "unknown game 'Pnog'; did you mean 'Pong'?",
    ("--json", "/"): "Invalid value for '--json': File '/' is a directory.",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_a_mistake_gets_one_sentence(mistake: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    preset_too = [] if mistake[0] == "--preset" else ["--preset", "debug"]
    assert cli.main(["benchmark", *preset_too, *mistake]) in (1, 2)
    shown = capsys.readouterr()
    assert MISTAKES[mistake] in shown.err.splitlines()[-1] and not shown.out


def test_the_command_writes_what_it_measured(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, file = list[Any](), tmp_path / "speed.json"
    monkeypatch.setattr(benchmark, "timed", lambda *given: calls.extend(given) or dict(report))
    arguments = "--preset quick --device cpu --repeats 4 --set trainer.seed=7"
    assert cli.main(["benchmark", *arguments.split(), "--json", str(file)]) == 0
    assert calls[:2] == [preset("quick", "runtime.device=cpu trainer.seed=7"), 4]
    written = json.loads(file.read_text())
    assert written["phases"] == report["phases"] and written["settings"]["repeats"] == 4
    shown = capsys.readouterr().out
    assert repr(benchmark.table(report)) in shown


def test_no_round_is_refused() -> None:
    with pytest.raises(GlamkitError, match="repeats = 0 is outside its range: at least 1"):
        benchmark.measure(preset("debug"), 0)


def cells(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The namespace of notebook 06 after its parameters, for the tiny preset, and the cells that follow."""
    sources = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    namespace: dict[str, Any] = {}
    exec(sources[0], namespace)
    return namespace | {"preset": "debug", "json_file": str(file)}, sources[1:]


def test_the_notebook_shows_it_all(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(benchmark, "measure", lambda *given: calls.extend(given) or report)
    (namespace, sources), shown = cells(tmp_path / "speed.json"), list[Any]()
    for cell in sources:
        *before, last = cell.splitlines()
        exec("\n".join(before), namespace)
        shown.append(eval(last, namespace))
    assert calls[:2] == [preset("debug"), 3] and calls[3] == tmp_path / "speed.json"
    assert [type(item).__name__ for item in shown] == ["Table", "Table", "Table", "Picture"]
