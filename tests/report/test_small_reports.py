"""Reports of few runs: no interval from one seed, no empty table, no protocol where a game has none.

And reports asked for from other places, and written to other streams, than usual.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_run, made_two_games
from test_report import notes_of, report
from test_score_files import RESULTS, finished

from glamkit import cli
from glamkit.config import Config, preset
from glamkit.report import plots, score_files, score_table
from glamkit.report.page import SECTIONS, headline
from glamkit.report.report import Report, read_paths

CHANGES = {  # of folders whose runs differ from the preset in one setting, by the rest of their name
    "gmamba": ("world_model", "modules", "gmamba"),
    "lmamba": ("world_model", "modules", "lmamba"),
    "final-rate": ("world_model_optimizer", "final_rate", 0.05),
}


def test_one_seed_has_no_interval_and_no_table_is_empty(tmp_path: Path) -> None:
    made_run(tmp_path / "a", [10.0], game="Pong", seed=1)
    made = report(tmp_path)
    assert made.new[0].intervals == {}
    assert all(table.rows for part in SECTIONS if (table := part.table(made)))
    assert "Games that are there: 1 of 26 (Pong)." in notes_of(made)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/*.json")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_files_of_the_repository_are_whole(file: Path) -> None:
    data = score_files.read(file)
    assert file.name == score_files.name_of(Config.from_dict(data["config"]))
    assert score_files.name_of(preset("debug", game="mygames:Chase-v0", seed=2)) == "Chase-v0-seed2.json"
    kind, _, change = file.parent.name.partition("-")
    assert kind == data["preset"]
    for name, (section, field, value) in CHANGES.items():
        assert (data["config"][section][field] == value) is (name == change)
    assert len(data["episodes"]) >= 20 and data["env_steps"] >= 100_000
    assert data["hours"] > 0


def cell(kind: str, name: str, setting: str, value: Any) -> str:
    """Mean return and its standard error, as a table of the results page has them, of a run with that setting."""
    run = score_files.read(RESULTS / kind / f"{name}.json")
    section, _, field = setting.partition(".")
    assert run["config"][section][field] == value
    returns = [episode["return"] for episode in run["episodes"]]
    return f"{run['mean_return']:.1f} ± {np.std(returns, ddof=1) / len(returns) ** 0.5:.1f}"


def test_the_small_tables_of_the_page_are_those_of_the_files() -> None:
    page = (RESULTS / "README.md").read_text()
    modules = {"laptop": "both", "laptop-gmamba": "gmamba", "laptop-lmamba": "lmamba"}
    for name in ("Boxing-seed3", "Pong-seed2"):
        cells = [cell(kind, name, "world_model.modules", value) for kind, value in modules.items()]
        assert f"| {name.replace('-seed', ', seed ')} | {' | '.join(cells)} |" in page
    rates = {"laptop": 0.2, "laptop-final-rate": 0.05}
    for name in ("Boxing-seed1", "Boxing-seed2", "Boxing-seed3", "Krull-seed1", "KungFuMaster-seed1"):
        cells = [cell(kind, name, "world_model_optimizer.final_rate", value) for kind, value in rates.items()]
        assert f"| {name.replace('-seed', ', seed ')} | {' | '.join(cells)} |" in page


def test_games_of_another_experiment_are_left_out_and_not_missing(tmp_path: Path) -> None:
    made_two_games(tmp_path / "runs")
    made_run(tmp_path / "changed", [-3, 9], "actor_critic.discount=0.9", game="Pong")
    text = notes_of(report(tmp_path))
    assert "Games that are there: 1 of 26 (Pong)." in text
    assert "Games left out, as not every experiment has them: Boxing." in text


def test_runs_that_do_not_count_are_told_and_a_file_beside_its_run_is_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path / "run", [-10, -14], game="Pong", seed=1)
    for _ in range(2):
        assert cli.main(["report", str(run.folder), "--save", str(run.folder)]) == 0
    finished(tmp_path / "other", [1, 2], game="Boxing", seed=1).evaluation_file.unlink()
    capsys.readouterr()
    assert cli.main(["report", str(run.folder), str(tmp_path / "other"), "--scores"]) == 0
    shown = capsys.readouterr()
    assert "| Pong | -12.0 ± 2.0 | - |" in shown.out and "Boxing" not in shown.out
    assert shown.err == "Runs that do not count: 2; without --scores the reasons are shown.\n"


def test_an_evaluation_of_which_games_were_cut_is_not_drawn(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a", [10.0], game="Pong", seed=1)
    with run.log_file.open("a") as file:
        for step, cut in ((40_000, 0.0), (80_000, 2.0)):
            line = {"step": step, "kind": "evaluation", "evaluation/return": 3.0, "evaluation/cut": cut}
            file.write(json.dumps(line) + "\n")
    picture = plots.curve_figure(report(tmp_path).groups)
    assert picture is not None
    diamonds = [list(line.get_xdata()) for line in picture.axes[0].lines if line.get_marker() == "D"]
    assert [40_000] in diamonds and not any(80_000 in steps for steps in diamonds)


def test_games_that_were_cut_are_beside_no_whole_ones(tmp_path: Path) -> None:
    cut = [{"return": -11.0, "length": 500, "cut": True}] * 2
    made_run(tmp_path / "a", [-11.0, -11.0], name="quick", game="Pong", seed=1, episodes=cut)
    made_run(tmp_path / "b", [12.1, 12.1], name="quick", game="Boxing", seed=1)
    made = report(tmp_path)
    table, picture = score_table(made.small), plots.curve_figure(made.small)
    assert table is not None and picture is not None
    boxing, pong = (dict(zip(table.header, row, strict=True)) for row in table.rows)  # and no row of their mean
    assert pong["mean return of each seed"] == "-11.0 ± 0.0 (2 cut)" and boxing["human-normalised"] == "1.00"
    assert {pong[name] for name in ("random", "human", "human-normalised", "STORM", "strongest")} == {"-"}
    steps = made.results[0].config.trainer.env_steps
    ends = [[list(line.get_xdata()) for line in a.lines if line.get_marker() == "D"] for a in picture.axes]
    assert [[steps] in drawn for drawn in ends] == [True, False]


def test_games_without_a_protocol_of_atari_do_not_differ_from_it(tmp_path: Path) -> None:
    made_run(tmp_path / "a", [10.0], game="Tennis", seed=1)
    made_run(tmp_path / "b", [1.0], game="glamkit/Catch-v0", seed=1)
    made_run(tmp_path / "c", [1.0], game="Pong", seed=1)
    assert "protocols differ" not in notes_of(report(tmp_path))


def test_a_method_of_ones_own_is_none_of_the_published(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"methods": {"Mine": {"runs": {"Pong": [1.0, 2.0]}}}}')
    sets = "No runs; 31 sets of published scores, recomputed game by game."
    assert headline(report()) == sets
    assert headline(report(files=[file])).startswith(f"{sets} Mine: IQM 0.")


def test_a_method_below_random_play_is_in_the_figure(tmp_path: Path) -> None:
    made_run(tmp_path / "a", [-20.0], game="Boxing", seed=1)  # random play has 0.1, a human 12.1
    made = report(tmp_path)
    for axes, key in zip(plots.aggregate_figure(made).axes, made.new[0].values, strict=True):
        value = made.new[0].values[key]
        assert value is not None and axes.get_xlim()[0] <= value <= axes.get_xlim()[1], key


def test_relative_folders_count_from_the_checkout_as_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JupyterLab's terminal opens in the folder of the notebooks."""
    for place in ("glamkit/runs", "notebooks"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "glamkit" / "runs" / "folder.py").touch()
    made_run(tmp_path / "runs" / "a", [1.0], game="Pong", seed=1)
    monkeypatch.chdir(tmp_path / "notebooks")
    assert read_paths("runs") == read_paths(["runs"]) == [tmp_path / "runs"] and read_paths(("pong",)) == ["pong"]


def test_a_shared_run_has_no_hours_as_its_log_is_not_whole() -> None:
    table = score_table(Report(["pong"], repeats=20).small)
    assert table is not None and table.rows[0][-1] == "-"


def test_a_stream_that_does_not_know_a_letter_is_no_end_of_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pipe on Windows: the report has ± and ≥."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", write_through=True))
    assert cli.main(["report", "--published", "--repeats", "20"]) == 0
    assert b"IQM" in written.getvalue()
