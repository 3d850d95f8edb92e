"""Figures show the numbers they are given, and leave nothing open behind them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glamkit import plotting
from glamkit.analysis import rollout_plots
from glamkit.analysis.rollouts import RolloutComparison
from glamkit.config import preset
from glamkit.runs.folder import Run

LINES: list[dict[str, Any]] = [
    {"step": 50, "kind": "log", "world_model/reconstruction": 900.0, "world_model/dynamics_kl": 3.0},
    {"step": 60, "kind": "episode", "episode/return": -21.0, "episode/length": 60.0},
    {"step": 100, "kind": "log", "world_model/reconstruction": None, "world_model/dynamics_kl": 2.0},
    {"step": 120, "kind": "episode", "episode/return": -19.0, "episode/length": 60.0},
    {"step": 150, "kind": "log", "world_model/reconstruction": 100.0, "world_model/dynamics_kl": 1.0},
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.begin(preset("debug"), {})
    run.log_file.write_text("\n".join(json.dumps(line) for line in LINES))
    return run


def points(axes: Any, number: int = 0) -> list[tuple[float, float]]:
    line = axes.lines[number]
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def image(picture: plotting.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB"))


def test_learning_curve(run: Run) -> None:
    (axes,) = plotting.learning_curve(run).axes
    assert points(axes) == [(60, -21), (120, -19)] and points(axes, 1) == [(60, -21), (120, -20)]
    episodes = [{"return": -3.0, "length": 40, "cut": True}, {"return": 1.0, "length": 9, "cut": False}]
    run.evaluation_file.write_text(json.dumps({"step": 150, "mean_return": -1.0, "episodes": episodes}))
    (axes,) = plotting.learning_curve(run).axes
    assert points(axes, 2) == [(150, 1)] and points(axes, 3) == [(150, 1)]  # the game that was cut is not drawn
    mean, cut = [text.get_text() for text in axes.get_legend().get_texts()[-2:]]
    assert "mean 1.0 of 1 whole game" in mean
    assert cut == "evaluation: 1 game cut after 40 steps at -3: not drawn"
    episodes[1]["cut"] = True
    run.evaluation_file.write_text(json.dumps({"step": 150, "mean_return": -1.0, "episodes": episodes}))
    (axes,) = plotting.learning_curve(run).axes
    assert [line for line in axes.lines if len(line.get_xdata()) and line.get_xdata()[0] == 150] == []
    assert axes.get_legend().get_texts()[-1].get_text().endswith("2 games cut after 40 steps at -3, 1: not drawn")
    run.log_file.write_text("")
    assert "no episode of training has ended yet" in [
        text.get_text() for text in plotting.learning_curve(run).axes[0].texts
    ]


def test_losses_and_live_curves(run: Run) -> None:
    panels = {axes.get_title(loc="left"): axes for axes in plotting.losses(run).axes}
    assert len(panels) == 9
    sharp = panels["Reconstruction: falls as pictures sharpen"]
    assert points(sharp) == [(50, 900), (150, 100)] and sharp.get_yscale() == "log"  # what was not finite is left out
    surprise = panels["Surprise at the next frame"]
    assert points(surprise) == [(50, 3), (100, 2), (150, 1)]
    assert points(surprise, 1)[0][1] == preset("debug").world_model.free_nats
    live = plotting.live(LINES, 200)
    assert points(live.axes[0]) == [(60, -21), (120, -19)] and live.axes[0].get_xlim() == (0, 200)
    assert image(live).std() > 0
    assert [axes.get_title(loc="left") for axes in live.axes] == ["Episode return", sharp.get_title(loc="left")]
    assert len(plotting.live(LINES[:1], 200).axes) == 1 and image(plotting.live([], 200)).std() > 0  # nothing empty


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    _, ((axes,),) = plotting.figure()
    plotting.decades(axes, 0.03, 900.0)
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((0.01, 1000))
    marks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert np.allclose(np.log10(marks) % 1, 0) and len(marks) > 2 and not len(axes.yaxis.get_minorticklocs())


def test_evaluations_in_training_are_of_whole_games(run: Run) -> None:
    line = {"step": 100, "kind": "evaluation", "evaluation/return": -5.0, "evaluation/length": 39.0}
    assert plotting.evaluations(run, [*LINES, line]) == [(100, -5.0)]
    assert plotting.evaluations(run, [line | {"evaluation/length": 64.0}]) == []  # as long as any may be: cut
    episodes = [{"return": -9.0, "cut": True}, {"return": 2.0, "cut": False}]
    (run.folder / "evaluations").mkdir()
    (run.folder / "evaluations" / "000000100.json").write_text(json.dumps({"episodes": episodes}))
    assert plotting.evaluations(run, [line]) == [(100, 2.0)]


def test_film_puts_every_picture_in_its_place() -> None:
    rows = {
        name: np.full((3, 64, 64, 3), 0, np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None] for name in "ab"
    }
    rows["b"] = rows["b"] + 100
    _, ((axes,),) = plotting.figure()
    plotting.film(axes, rows, ["x", "y", "z"])
    (shown,) = (drawn.get_array() for drawn in axes.images)
    across, down = axes.get_xticks(), axes.get_yticks()
    middle = [[int(shown[int(y), int(x), 0]) for x in across] for y in down]
    assert middle == [[0, 1, 2], [100, 101, 102]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 64, 64, 3), np.uint8)


def test_dream_says_both_rewards() -> None:
    zeros = np.zeros(20)
    dream = RolloutComparison(frames(), frames(20), frames(20), frames(20), zeros, zeros + 1, zeros - 0.25, zeros)
    picture = rollout_plots.dream_beside_truth(dream)
    captions = [label.get_text() for axes in picture.axes for label in axes.get_xticklabels()]
    assert captions[0] == "+1\n+1\n-0.25" and captions[-1] == "+20\n+1\n-0.25" and len(captions) == 20
    assert image(picture).std() > 0


def test_strip_is_readable_with_one_column_or_eight() -> None:
    column = {"ahead": 5, "real": frames(), "reconstructed": frames(), "imagined": frames()}
    for count in (1, 8):
        picture = plotting.strip([{"step": 1000 * i, **column} for i in range(1, count + 1)])
        assert [label.get_text() for label in picture.axes[0].get_xticklabels()][-1] == f"step {count},000"
        assert image(picture).std() > 0


def test_figures_leave_no_trace() -> None:
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); from glamkit import plotting; "
        "plotting.live([], 10).png(); assert dict(matplotlib.rcParams) == before; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
