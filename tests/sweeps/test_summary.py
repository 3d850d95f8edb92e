"""What several seeds came to: intervals, curves, the table and the figure, on runs made up by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from figures import faults

from glamkit import plotting
from glamkit.sweeps import summary
from glamkit.sweeps.ablation import Ablation


def plan(folder: Path, variants: str, seeds: str = "1") -> Ablation:
    return Ablation("glamkit/Catch-v0", "debug", 1000, variants, seeds, folder)


def test_the_t_interval_is_the_textbook_s() -> None:
    assert plotting.interval([1.0]) is None
    low, high = plotting.interval([1.0, 2.0, 3.0]) or (0, 0)
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-4)
    known = {1: 12.7062, 4: 2.7764, 10: 2.2281, 11: 2.2010, 20: 2.0860, 60: 2.0003, 1000: 1.9623}
    for degrees, value in known.items():
        assert plotting.student(degrees) == pytest.approx(value, abs=2e-4)


def test_curves_are_means_of_recent_episodes() -> None:
    steps, returns = np.array([5.0, 15.0, 18.0, 60.0]), np.array([1.0, 3.0, 5.0, 7.0])
    outcome = summary.VariantSummary(None, steps, returns, returns[:0], 0.0, 100)
    grid = np.arange(10.0, 101.0, 10)
    assert np.allclose(summary.curve(outcome, grid), [1, 4, 4, 4, 4, 7, 7, np.nan, np.nan, np.nan], equal_nan=True)
    late = summary.VariantSummary(None, steps + 10, returns, returns[:0], 0.0, 100)
    assert np.isnan(summary.curve(late, grid)[0])


def by_hand(folder: Path, variants: str = "modules", cut: bool = False) -> Ablation:
    """Runs with known returns; of the ninth, the evaluation is still to come. Of the first, a game may be cut."""
    made = plan(folder, variants, "1-3")
    for number, job in enumerate(made.jobs):
        job.run.folder.mkdir(parents=True)
        job.run.begin(job.config, {})
        level = {"preset": 1.0, "modules-gmamba": 0.5, "modules-lmamba": -1.0}[job.name.rsplit("-", 1)[0]]
        episodes = [
            {"step": step, "kind": "episode", "episode/return": -1.0 if step < 500 else level, "episode/length": 10.0}
            for step in range(10, 1001, 10)
        ]
        speeds = [{"step": step, "kind": "log", "time/steps_per_second": 10.0} for step in (500, 1000)]
        job.run.log_file.write_text("\n".join(json.dumps(line) for line in [*episodes, *speeds]) + "\n")
        if number < 8:
            report = {
                "mean_return": level + 0.1 * (number // 3),
                "step": 1000,
                "episodes": [{"cut": cut and not number}],
            }
            job.run.evaluation_file.write_text(json.dumps(report))
    return made


def test_table(tmp_path: Path) -> None:
    made = by_hand(tmp_path)
    header, both, gmamba, lmamba = made.table().rows
    assert header == ["variant", "runs", "mean return", "95 % interval", "minutes a run"]
    assert both == ["modules: both (preset)", "3 of 3", "1.10", "0.85 to 1.35", "1.7"]
    assert gmamba[:4] == ["modules: gmamba", "3 of 3", "0.60", "0.35 to 0.85"]
    assert lmamba[:4] == ["modules: lmamba", "2 of 3", "-0.95", "-1.59 to -0.31"]
    assert "8 of 9 runs done, 1 cut" in repr(made)
    assert "t over the seeds&#x27; means" in made.table()._repr_html_()


def test_figure(tmp_path: Path) -> None:
    picture = by_hand(tmp_path).figure()
    left, right = picture.axes
    lines = {line.get_label(): line for line in left.lines}
    assert set(lines) == {"both (preset)", "gmamba", "lmamba", "random actions"}
    assert lines["both (preset)"].get_ydata()[-1] == 1.0
    assert lines["gmamba"].get_ydata()[-1] == 0.5
    assert lines["random actions"].get_ydata()[0] == -1.0
    assert [label.get_text() for label in right.get_yticklabels()] == ["both (preset)", "gmamba", "lmamba"]
    assert right.lines[0].get_xdata().tolist() == pytest.approx([1.0, 1.1, 1.2])
    assert right.lines[2].get_xdata().tolist() == pytest.approx([0.8516, 1.3484], abs=1e-3)
    assert len(picture.png()) > 10_000


def test_scores_of_games_that_were_cut_say_so_and_stand_beside_no_whole_ones(tmp_path: Path) -> None:
    made = by_hand(tmp_path, cut=True)
    assert [row[2] for row in made.table().rows[1:]] == ["1.10 of games cut after 40 steps", "0.60", "-0.95"]
    left, right = (picture := made.figure()).axes
    assert "random actions" in [line.get_label() for line in left.lines]
    assert "random actions" not in [line.get_label() for line in right.lines]
    assert right.get_xlabel() == "mean return\nof games cut after 40 steps" and faults(picture) == []


def test_the_last_point_is_whole(tmp_path: Path) -> None:
    picture = by_hand(tmp_path).figure()
    left = picture.axes[0]
    labels = {line.get_label(): line for line in left.lines}
    assert left.get_xlim()[1] > labels["gmamba"].get_xdata()[-1] == 1000
    assert "interval" in picture.get_suptitle() and faults(picture) == []
    assert "one seed" not in picture.get_suptitle().lower()


def test_more_variants_than_colours_are_all_drawn(tmp_path: Path) -> None:
    made = by_hand(tmp_path)
    result = made.groups()["modules"]["both (preset)"]
    groups = {f"variant {n}": [one._replace(returns=one.returns + n) for one in result] for n in range(7)}
    left, right = summary.figure({"one": groups}, "").axes
    curves = {line.get_label(): line for line in left.lines if line.get_label().startswith("variant")}
    assert list(curves) == list(groups) == [label.get_text() for label in right.get_yticklabels()]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves.values()}) == 7
    assert {line.get_ydata()[0] for line in right.lines} == set(range(7))


def test_one_seed_says_that_there_is_no_interval(tmp_path: Path) -> None:
    made = by_hand(tmp_path)
    groups = {label: seeds[:1] for label, seeds in made.groups()["modules"].items()}
    picture = summary.figure({"one": groups}, "")
    assert "One seed each: no band and no interval" in " ".join(picture.get_suptitle().split())
    assert faults(picture) == []


def test_a_preset_alone_is_drawn_too(tmp_path: Path) -> None:
    _, right = by_hand(tmp_path, "modules-both").figure().axes
    assert [label.get_text() for label in right.get_yticklabels()] == ["both (preset)"]


def test_games_of_their_own_have_random_actions_of_their_own(tmp_path: Path) -> None:
    groups = by_hand(tmp_path).groups()["modules"]
    worse = {name: [one._replace(random=one.random - 9) for one in result] for name, result in groups.items()}
    axes = summary.figure({"one": groups, "other": worse}, "").axes
    lines = [{line.get_label(): line for line in part.lines}["random actions"] for part in axes[::2]]
    assert [line.get_ydata()[0] for line in lines] == [-1.0, -10.0]


def test_nothing_there_yet(tmp_path: Path) -> None:
    made = plan(tmp_path, "modules acting")
    assert [row[1:5] for row in made.table().rows[1:]] == [["0 of 1", "-", "-", "-"]] * 5
    words = [[text.get_text() for text in axes.texts] for axes in made.figure().axes]
    assert words[::2] == [["no game has ended yet"]] * 2
    assert words[1::2] == [["no run is finished yet"] * 3, ["no run is finished yet"] * 2]
