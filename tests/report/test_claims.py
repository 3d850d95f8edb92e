"""What numbers can bear: protocols, small presets kept out; and the page itself."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from figures import faults
from made_runs import made_run, made_two_games

from glamkit.config import preset
from glamkit.report import notes, page, plots, score_table, tables
from glamkit.report.report import Report

FEW = 40  # bootstrap repeats
SMALL = ("laptop", "quick", "debug")


@pytest.fixture(scope="module")
def published() -> Report:
    return Report(repeats=FEW)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two games of the published setting, and superhuman runs of small presets and of a short training."""
    folder = tmp_path_factory.mktemp("mixed")
    made_two_games(folder / "runs")
    for name in SMALL:
        made_run(folder / "runs" / name, [1000.0, 1000.0], name=name, game="Pong", seed=1)
    made_run(folder / "runs" / "short", [1000.0], "trainer.env_steps=5000", game="Pong", seed=1)
    made_run(folder / "runs" / "long", [1000.0], "trainer.env_steps=200000", game="Pong", seed=1)
    return Report([folder / "runs"], repeats=FEW)


def test_small_presets_stand_under_their_own_heading_alone(mixed: Report) -> None:
    assert [entry.name for entry in mixed.new] == ["glamkit atari100k"]
    assert {result.config.preset for group in mixed.small.values() for result in group} == {*SMALL, "atari100k"}
    names = set(mixed.small)
    assert len(names) == 5 and "glamkit atari100k, trainer.env_steps=5000" in names
    for part in page.SECTIONS:
        grid = part.table(mixed)
        cells = {cell for row in grid.rows for cell in row} if grid else set()
        assert bool(cells & names) == part.title.startswith("Small presets"), part.title
    assert mixed.entries["glamkit atari100k"].normal["Pong"].max() == pytest.approx(1)  # none of the 1000 is in it
    text = page.markdown(mixed)
    own = text.index("Small presets, and shorter or longer training")
    for name in ("glamkit laptop", "glamkit quick"):
        first = text.index("## ")
        places = [match.start() for match in re.finditer(re.escape(name), text[first:])]
        assert places and min(places) + first > own
    message = "\n".join(notes.notes(mixed))
    assert "glamkit laptop is no Atari 100k result: it has the preset laptop and 100,000 agent steps" in message
    long = "glamkit atari100k, trainer.env_steps=200000"
    assert f"{long} is no Atari 100k result: it has the preset atari100k and 200,000 agent steps" in message


def test_small_presets_are_shown_beside_published_scores(mixed: Report) -> None:
    grid = score_table(mixed.small)
    assert grid is not None
    rows = {row[0]: list(row) for row in grid.rows}
    assert rows["glamkit laptop"][1:8] == [
        "Pong", "1000.0 ± 0.0", "-", "-20.7", "14.6", f"{(1000 + 20.7) / 35.3:.2f}", "0.95",
    ]  # fmt: skip
    figure = plots.curve_figure(mixed.small)
    drawn = plots.curve_figure(mixed.groups)
    assert figure is not None and drawn is not None
    names = [{text.get_text() for text in picture.legends[0].get_texts()} for picture in (figure, drawn)]
    assert "glamkit laptop" in names[0] and "glamkit laptop" not in names[1]


def test_score_files_of_small_presets_stand_there_too(tmp_path: Path) -> None:
    config = preset("laptop", game="Boxing", seed=3)
    data = {
        "game": "Boxing", "seed": 3, "preset": "laptop", "config": asdict(config), "env_steps": 100_000,
        "curve": [[1000, 0.0], [50_000, 8.0], [100_000, 15.0]],
        "episodes": [{"return": value, "length": 400} for value in (10.0, 20.0)],
        "mean_return": 15.0, "human_normalised": 14.9 / 12, "protocol": {"sticky": 0.25, "episodes": 2},
        "hours": 3.5, "machine": {"device_name": "2 cores"},
    }  # fmt: skip
    file = tmp_path / "Boxing-seed3.json"
    file.write_text(json.dumps(data))
    made = Report([tmp_path], repeats=FEW)
    assert made.new == [] and list(made.small) == ["glamkit laptop"] and not made.left_out
    grid = score_table(made.small)
    assert grid is not None and grid.rows[0][-1] == "3.5"
    figure = plots.curve_figure(made.small)
    assert figure is not None
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines])
    assert 8.0 in heights  # the curve of the file
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["glamkit laptop", "random play", "human"]
    assert {0.1, 12.1} <= set(heights.tolist())  # of Boxing


def test_a_folder_may_be_given_alone_or_in_text(tmp_path: Path) -> None:
    one, two = tmp_path / "Krull", tmp_path / "Pong"
    for folder in (one, two):
        folder.mkdir()
        shutil.copy(ROOT / "notebooks" / "results" / "laptop" / f"{folder.name}-seed1.json", folder)
    counts = [len(Report(given, repeats=FEW).results) for given in (one, str(one), [one], f"{one}, {two}")]
    assert counts == [1, 1, 1, 2]


def test_a_game_that_never_scored_has_no_scale_of_hundredths() -> None:
    made = Report(ROOT / "notebooks" / "results" / "laptop" / "Freeway-seed1.json", repeats=FEW)
    figure = plots.curve_figure(made.small)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert low <= -1 and high >= 1


def test_protocols_that_nobody_states_are_unknown(published: Report) -> None:
    grid = tables.protocol_table(published)
    rows = {row[0]: dict(zip(grid.header, row, strict=True)) for row in grid.rows}
    assert set(rows) == set(published.entries)
    assert rows["TWISTER"]["sticky actions"] == rows["TWISTER"]["actions"] == "unknown"
    assert rows["OC-STORM"]["sticky actions"] == "on" and rows["OC-STORM"]["actions"].startswith("greedy")
    assert rows["BBF"]["known"] == "per game, third-party transcription"
    assert rows["STORM (OC-STORM re-run)"]["re-run by"] == "OC-STORM" and rows["STORM"]["re-run by"] == "-"


@pytest.mark.slow
def test_every_figure_is_readable_and_says_what_it_shows(mixed: Report) -> None:
    drawn = [part.figure(mixed) for part in page.SECTIONS if part.figure]
    assert len(drawn) == 4
    for picture in drawn:
        assert picture is not None
        assert len(picture.words()) > 60 and faults(picture) == []


def test_a_table_of_games_has_every_method_once() -> None:
    header = tables.game_table(Report(against="all", repeats=FEW)).header
    assert len(header) == len(set(header)) == 3 + 31


def test_the_file_on_the_notebooks_page_works_as_printed(tmp_path: Path) -> None:
    page_text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    block = next(match for match in re.findall(r"```json\n(.*?)```", page_text, re.S) if '"My method"' in match)
    file = tmp_path / "mine.json"
    file.write_text(block)
    made = Report(files=[file], repeats=FEW)
    (mine,) = made.new
    assert (mine.name, mine.counts, made.games) == ("My method", (3, 3), ["Boxing", "Pong"])
    assert mine.intervals
    row = next(row for row in tables.protocol_table(made).rows if row[0] == "My method")
    assert row[1:5] == ["on", "ignored", "100", "greedy"]
    entries = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*`) \|", page_text, re.M)))
    assert {"runs", "protocol", "published", "family", "rerun_by", "paper", "source", "notes"} <= set(entries)
