"""The benchmark's result: complete, true to what was measured, the same on paper, in pictures and in the notebook."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from figures import faults

from glamkit import cli
from glamkit.bench import benchmark, hardware, plots
from glamkit.bench.benchmark import BenchmarkPlan
from glamkit.bench.timing import PHASES, count_fast
from glamkit.config import Config, preset

NOTEBOOK = ROOT / "notebooks" / "06_speed.ipynb"
CPU = "runtime.device=cpu runtime.kernel=glamkit"
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def reported() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(reported: list[str]) -> dict[str, Any]:
    """A whole measurement."""
    before = torch.get_rng_state()
    kept = list[str]()
    keep = lambda report: kept.append(f"{benchmark.table(report)}")  # noqa: E731
    result = benchmark.measure(preset("debug", CPU), BenchmarkPlan(repeats=2, games=3), reported.append, keep)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(kept) == 1 and kept[0].count(" x") == len(PHASES) + 1  # before memory was measured
    return result


# The result -----------------------------------------------------------------------------------------------------------


def test_the_result_is_complete_and_survives_json(report: dict[str, Any], reported: list[str]) -> None:
    assert json.loads(json.dumps(report)) == report | {"settings": json.loads(json.dumps(report["settings"]))}
    assert set(report) == {"phases", "machine", "environment", "predicted_hours", "settings"}
    assert list(report["phases"]) == [*PHASES, "step_opt_in"]
    for name, row in report["phases"].items():
        assert len(row["ratios"]) == len(row["fast_each_s"]) == 2
        pairs = zip(row["reference_each_s"], row["fast_each_s"], strict=True)
        assert row["ratios"] == [slow / fast for slow, fast in pairs]
        assert row["ratio"] == pytest.approx(np.median(row["ratios"])) and row["fast_s"] > 0, name
        assert 0 < row["share_of_peak"] < 1.5 and row["flops"] > 0
    assert report["phases"]["step_opt_in"]["reference_each_s"] == report["phases"]["step"]["reference_each_s"]
    assert report["machine"]["busy_during"] is None or report["machine"]["busy_during"] >= 0
    assert {"torch", "glamkit", "device", "precision", "threads", "matrix_flops_per_s"} <= set(report["machine"])
    assert set(report["environment"]) == {"game_alone", "acting_and_game", "evaluation", "training"}
    assert min(report["environment"].values()) > 0
    hours = report["predicted_hours"]
    assert hours["all_games"] == pytest.approx(3 * hours["per_game"]) and hours["reference_per_game"] > 0
    assert list(hours["step_s_at_horizon"]) == ["4"] and "without evaluation" in hours["basis"]
    assert Config.from_dict(report["settings"]["config"]) == preset("debug", CPU)
    assert any(line.startswith("round 1 of 2: world_model, glamkit; about ") for line in reported)


def test_operations_are_those_of_the_work_that_is_needed(report: dict[str, Any]) -> None:
    fast = {name: row["flops"] for name, row in report["phases"].items()}
    slow = {name: row.get("reference_flops", 0) for name, row in report["phases"].items()}
    for counts in (fast, slow):
        assert counts["step"] == counts["world_model"] + counts["imagination"] + counts["actor_critic"]
        assert counts["imagination"] > counts["imagination_steps"] > 0
    assert fast["actor_critic"] == slow["actor_critic"]
    assert fast["world_model"] < slow["world_model"]
    assert fast["imagination_steps"] < slow["imagination_steps"]
    # From latents that are there already, and reading each token once.
    assert fast["step_opt_in"] < fast["world_model"] + fast["imagination_steps"] + fast["actor_critic"]


def test_operations_do_not_depend_on_which_frames_are_drawn() -> None:
    """Nor on whether they were drawn before: in training the weights have changed since."""
    phases = ["step", "world_model", "imagination", "actor_critic"]
    configs = [benchmark.as_released(preset("debug", f"{CPU} trainer.seed={seed}")) for seed in (1, 2)]
    one, other = (count_fast(config, phases) for config in configs)
    assert one == other and one["step"] == one["world_model"] + one["imagination"] + one["actor_critic"]


@pytest.mark.skipif(not LINUX, reason="other systems do not say how much memory a phase took")
def test_memory_is_that_of_whole_processes(report: dict[str, Any]) -> None:
    for name in ("world_model", "imagination", "actor_critic", "step", "step_opt_in"):
        row = report["phases"][name]
        assert min(row["fast_peak_bytes"], row["reference_peak_bytes"]) > 100e6  # Python and torch alone
    step = report["phases"]["step"]["fast_peak_bytes"]
    assert step == max(
        report["phases"][name]["fast_peak_bytes"] for name in PHASES if name not in ("imagination_steps",)
    )


def test_memory_that_cannot_be_measured_spoils_nothing(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    row = {"step": dict(report["phases"]["step"])}
    benchmark.add_memory({"phases": row}, preset("debug"), lambda _: None)
    assert row["step"]["fast_peak_bytes"] is row["step"]["reference_peak_bytes"] is None
    assert "memory of the plain way could not be measured (status 1)" in caplog.text
    assert "step" in repr(benchmark.table({"phases": row}))


@pytest.mark.cuda
def test_on_a_gpu() -> None:
    result = benchmark.measure(preset("debug", "runtime.device=cuda"), BenchmarkPlan(("step",), repeats=1))
    assert result["phases"]["step"]["fast_peak_bytes"] > 0 and result["phases"]["step"]["reference_peak_bytes"] > 0
    assert result["machine"]["device"] == "cuda" and result["predicted_hours"]["per_game"] > 0


def test_the_tables_say_it(report: dict[str, Any]) -> None:
    table, facts = repr(benchmark.table(report)), repr(benchmark.facts(report))
    for name, row in report["phases"].items():
        assert f"{name} " in table and f"{row['ratio']:.2f} x" in table
    warning = benchmark.disturbed(report["machine"])
    assert (f"Not to be trusted: {warning}." if warning else "Other programs that run at the same time") in table
    assert "busy before" in facts and "3 whole runs" in facts and "float32 on cpu, scan: glamkit, compiled: no" in facts
    assert [benchmark.span(s) for s in (22.71, 0.0456)] == ["22.7 s", "45.6 ms"]
    assert [benchmark.size(n) for n in (2**30, None)] == ["1.00 GiB", ""]


# Pictures -------------------------------------------------------------------------------------------------------------


def test_where_time_goes(report: dict[str, Any]) -> None:
    phases = report["phases"]
    left, right = plots.where_time_goes(report).axes
    slow = {name: row["reference_s"] for name, row in phases.items()}
    encoding = max(0.0, slow["imagination"] - slow["imagination_steps"])
    own = [slow["world_model"], encoding, slow["imagination"] - encoding, slow["actor_critic"]]
    fit, rest = min(1, slow["step"] / sum(own)), max(0, slow["step"] - sum(own))
    scale, unit = (1, "seconds") if slow["step"] >= 1 else (1000, "milliseconds")
    widths = [bar.get_width() for bar in left.patches[:5]]
    assert widths == pytest.approx([scale * part for part in (*(fit * seconds for seconds in own), rest)])
    assert left.get_xlabel() == f"{unit}: one whole step, as measured (medians)"
    assert [bar.get_width() for bar in right.patches] == [row["ratio"] for row in phases.values()]
    assert [benchmark.beside_plain(row["ratio"]) for row in phases.values()] == [t.get_text() for t in right.texts]
    for some in (["step"], ["imagination"], ["imagination_steps"], ["world_model", "actor_critic"]):
        fewer = {"phases": {name: phases[name] for name in some}}
        assert plots.where_time_goes(fewer).png()[:4] == b"\x89PNG"


SECONDS = {"world_model": 4.0, "imagination": 3.0, "imagination_steps": 2.0, "actor_critic": 1.0}


def made_report(whole: float, **machine: Any) -> dict[str, Any]:
    """A result in which glamkit's phases take `SECONDS`, its whole step `whole`, and the plain ones ten seconds."""
    fast = {**SECONDS, "step": whole, "step_opt_in": 6.0}
    rows = {name: {"fast_s": s, "reference_s": 10.0, "ratio": 10 / s, "ratios": [10 / s]} for name, s in fast.items()}
    return {"phases": rows, "machine": {"cores": 2, "threads": 2, "device": "cpu", **machine}}


@pytest.mark.parametrize(("whole", "rest"), [(10.0, 2.0), (4.0, 0.0)])
def test_the_bars_are_the_measured_steps_and_phases_are_parts_of_them(whole: float, rest: float) -> None:
    made = made_report(whole)
    assert sum(plots.parts(made["phases"], "fast_s").values()) == pytest.approx(whole)
    assert plots.parts(made["phases"], "fast_s")["the rest"] == pytest.approx(rest)
    picture = plots.where_time_goes(made)
    ends = [text.get_text() for text in picture.axes[0].texts if text.get_text().endswith(" s")]
    assert ends == ["10 s", f"{whole:g} s", "6 s"]  # plain, the same work, the opt-in settings: all measured
    assert faults(picture) == []


def test_a_ratio_below_one_is_called_slower() -> None:
    made = made_report(10.0)
    made["phases"]["step"] |= {"ratio": 0.8, "ratios": [0.7, 0.8]}
    lower = plots.where_time_goes(made).axes[1]
    assert "0.8 x, slower" in [text.get_text() for text in lower.texts] and "times faster" not in lower.get_title(
        "left"
    )
    assert benchmark.beside_plain(1.0, 2) == "1.00 x"


BUSY = {
    "quiet": ({"busy_during": 0.1, "busy_before": 9.0}, ""),
    "busy": ({"busy_during": 1.6}, "other programs kept 1.6 of 2 cores busy meanwhile"),
    "busy before": ({"busy_before": 3.5}, "3.5 programs ran on 2 cores just before"),
    "enough cores": ({"busy_during": 4.0, "cores": 16, "device": "cuda"}, ""),
    "nothing known": ({}, ""),
}


@pytest.mark.parametrize("case", BUSY)
def test_a_disturbed_measurement_is_not_drawn_as_a_good_one(case: str) -> None:
    machine, warning = BUSY[case]
    made = made_report(10.0, **machine)
    picture = plots.where_time_goes(made)
    title = " ".join(picture.get_suptitle().split())
    assert title == (f"Not to be trusted: {warning}" if warning else "")
    assert {bar.get_alpha() for bar in picture.axes[0].patches} == ({0.2} if warning else {0.5})
    assert faults(picture) == []
    for row in made["phases"].values():
        row["share_of_peak"] = 0.5
    assert (f"Not to be trusted: {warning}." in repr(benchmark.table(made))) is bool(warning)


@pytest.mark.skipif(not LINUX, reason="other systems do not say how long each core was busy")
def test_other_programs_are_measured_and_own_work_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat, ticks = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(hardware, "CORES", stat)
    now, own = [0.0], [0.0]
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(hardware.os, "times", lambda: (own[0], 0.0, 0.0, 0.0, 0.0))
    stat.write_text(f"cpu 9 9 9 9 9 9 9 9\ncpu{core} 0 0 0 0 0 0 0 0 0 0\ncpu999 0 0 0 0 0 0 0 0 0 0\n")
    others = hardware.OtherPrograms()
    now[0], own[0] = 10.0, 7.0
    idle = 1000 * ticks
    stat.write_text(f"cpu{core} {8 * ticks} {ticks} {ticks} {idle} 0 0 0 0 0 0\ncpu999 {idle} 0 0 0 0 0 0 0 0 0\n")
    assert others.read() == pytest.approx(0.3)  # ten seconds of work in ten seconds, seven of them own
    stat.unlink()
    assert others.read() is None


# The command and the notebook -----------------------------------------------------------------------------------------

MISTAKES = {
    ("--preset", "debgu"): "unknown preset 'debgu'; did you mean 'debug'?",
    ("--phases", "worldmodel,step"): "unknown phase 'worldmodel'; did you mean 'world_model'?",
    ("--phases", ","): "phases names none; allowed: world_model, ",
    ("--repeats", "two"): "repeats = 'two' is not a whole number.",
    ("--repeats", "0"): "repeats = 0 is outside 1 to 1000.",
    ("--games", "0"): "games = 0 is outside",
    ("--device", "cdua"): "runtime.device = 'cdua' is not a device",
    ("--set", "trainer.warmpu=3"): "unknown setting 'trainer.warmpu'",
    ("--set", "env.game=Pnog"): "unknown game 'Pnog'; did you mean 'Pong'?",
    ("--json", "/nowhere/at/all.json"): "'/nowhere/at/all.json' is no file that can be written",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_a_mistake_gets_one_sentence(mistake: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    preset_too = [] if mistake[0] == "--preset" else ["--preset", "debug"]
    assert cli.main(["benchmark", *preset_too, *mistake]) == 2
    shown = capsys.readouterr()
    assert MISTAKES[mistake] in shown.err.splitlines()[-1] and not shown.out


def test_the_command_writes_what_it_measured(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(benchmark, "measure", lambda *given: calls.extend(given) or report)
    file = tmp_path / "speed.json"
    arguments = "--preset quick --device cpu --phases step,world_model --repeats 4 --games 26 --set trainer.seed=7"
    assert cli.main(["benchmark", *arguments.split(), "--json", str(file)]) == 0
    config, plan, _, keep = calls
    assert config == preset("quick", "runtime.device=cpu trainer.seed=7")
    assert plan == BenchmarkPlan(("world_model", "step"), 4, 26)
    assert json.loads(file.read_text())["phases"] == report["phases"]
    keep({"phases": {}})  # what is timed so far
    assert json.loads(file.read_text()) == {"phases": {}}
    shown = capsys.readouterr().out
    assert repr(benchmark.table(report)) in shown and repr(benchmark.facts(report)) in shown


def test_the_notebook_shows_it_all(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(benchmark, "measure", lambda *given: calls.extend(given) or report)
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    namespace: dict[str, Any] = {}
    exec(cells[0], namespace)
    file = tmp_path / "speed.json"
    namespace |= {"preset": "debug", "json_file": str(file)}
    shown = []
    for cell in cells[1:]:
        *before, last = cell.splitlines()
        exec("\n".join(before), namespace)
        shown.append(eval(last, namespace))
    assert calls[0] == preset("debug") and calls[1] == BenchmarkPlan(games=26)
    assert json.loads(file.read_text())["phases"]
    assert [type(item).__name__ for item in shown] == ["Table", "Table", "Table", "Picture"]
