"""Figures show the numbers they are given, and leave nothing open behind them."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from figures import contrast, faults
from PIL import Image

from glamkit import plotting
from glamkit.analysis.rollouts import RolloutComparison, dream_beside_truth
from glamkit.config import preset
from glamkit.plotting import curves
from glamkit.plotting.picture import STYLE
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
    picture = plotting.learning_curve(run)
    (axes,) = picture.axes
    assert faults(picture) == []
    assert points(axes, 2) == [(150, 1)] and points(axes, 3) == [(150, 1)]  # the game that was cut is not drawn
    mean, cut = [text.get_text() for text in axes.get_legend().get_texts()[-2:]]
    assert "mean 1.0 of 1 whole game" in mean
    assert cut == "evaluation: 1 game cut after 40 steps: not drawn"
    episodes[1]["cut"] = True
    run.evaluation_file.write_text(json.dumps({"step": 150, "mean_return": -1.0, "episodes": episodes}))
    (axes,) = plotting.learning_curve(run).axes
    assert [line for line in axes.lines if len(line.get_xdata()) and line.get_xdata()[0] == 150] == []
    assert axes.get_legend().get_texts()[-1].get_text().endswith("2 games cut after 40 steps: not drawn")
    run.log_file.write_text("")
    picture = plotting.learning_curve(run)  # there is nothing to draw: no empty axes, but words
    (text,) = picture.axes[0].texts
    assert faults(picture) == [] and not picture.axes[0].axison
    assert " ".join(text.get_text().split()) == (
        "No score to draw: no episode of training has ended yet. Evaluation: 2 games cut after 40 steps: not drawn"
    )


def test_losses_and_live_curves(run: Run) -> None:
    picture = plotting.losses(run)
    assert faults(picture) == []
    panels = {" ".join(axes.get_title(loc="left").split()): axes for axes in picture.axes if axes.get_title(loc="left")}
    assert len(panels) == 9
    sharp = panels["Reconstruction: falls as pictures sharpen"]
    assert points(sharp) == [(50, 900), (150, 100)] and sharp.get_yscale() == "log"  # what was not finite is left out
    surprise = panels["Surprise at the next frame"]
    assert points(surprise) == [(50, 3), (100, 2), (150, 1)]
    assert points(surprise, 1)[0][1] == preset("debug").world_model.free_nats
    live = plotting.live(LINES, 200)
    assert points(live.axes[0]) == [(60, -21), (120, -19)] and live.axes[0].get_xlim() == (0, 204)
    assert image(live).std() > 0
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in live.axes]
    assert titles == ["Episode return, and the mean of 10", "Reconstruction: falls as pictures sharpen"]
    assert len(plotting.live(LINES[:1], 200).axes) == 1 and image(plotting.live([], 200)).std() > 0  # nothing empty
    imagined = {"step": 150, "kind": "log", "imagination/reward": 0.1}
    pictures = [plotting.live(entries, 200) for entries in ([], LINES[:1], LINES, [*LINES, imagined])]
    assert [faults(picture) for picture in pictures] == [[]] * 4
    assert [len(picture.axes) for picture in pictures] == [1, 1, 2, 3]


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    _, ((axes,),) = plotting.figure()
    plotting.decades(axes, 0.03, 900.0)
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((0.01, 1000))
    marks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert np.allclose(np.log10(marks) % 1, 0) and len(marks) > 2 and not len(axes.yaxis.get_minorticklocs())


def test_evaluations_in_training_are_of_whole_games() -> None:
    whole, cut = ({"kind": "evaluation", "evaluation/return": -5.0, "evaluation/cut": games} for games in (0.0, 1.0))
    old = {"step": 30, "kind": "evaluation", "evaluation/return": -6.0}  # of a log that does not say
    assert plotting.evaluations([old, *LINES, whole | {"step": 100}, cut | {"step": 120}]) == ([30, 100], [-6.0, -5.0])


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
    dream = RolloutComparison(frames(20), frames(20), frames(20), zeros + 1, zeros - 0.25)
    picture = dream_beside_truth(dream)
    captions = [label.get_text() for axes in picture.axes for label in axes.get_xticklabels()]
    assert captions[0] == "+1\n+1\n-0.25" and captions[-1] == "+20\n+1\n-0.25" and len(captions) == 20
    assert faults(picture) == [] and image(picture).std() > 0
    dream = RolloutComparison(*[frames(1)] * 3, zeros[:1] + 0.3, zeros[:1] + 0.3)
    (label,) = dream_beside_truth(dream).axes[0].get_xticklabels()
    assert label.get_text() == "+1\n+0.3\n+0.30", "games other than Atari's have such rewards"


def test_strip_is_readable_with_one_column_or_eight() -> None:
    column = {"start": 7, "ahead": 5, "real": frames(), "reconstructed": frames(), "imagined": frames()}
    for count in (1, 8):
        picture = plotting.strip([{"step": 100_000 * i, **column} for i in range(1, count + 1)])
        assert [label.get_text() for label in picture.axes[0].get_xticklabels()][-1] == f"{count}00,000"
        assert faults(picture) == [] and image(picture).std() > 0


# On a page ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [plotting.INK, plotting.GREY, STYLE["xtick.color"], plotting.BLACK])
def test_text_has_contrast(colour: str) -> None:
    assert contrast([int(colour[place : place + 2], 16) for place in (1, 3, 5)], [255] * 3) >= 4.5


def test_a_figure_shows_itself_small_and_with_its_words() -> None:
    picture = plotting.strip(
        [{"step": 1, "start": 7, "ahead": 5, "real": frames(), "reconstructed": frames(), "imagined": frames()}]
    )
    data, about = picture._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == picture.small_png()
    assert f'src="data:image/png;base64,{data["image/png"]}"' in data["text/html"] == picture.html()
    shown = np.asarray(Image.open(io.BytesIO(picture.small_png())).convert("RGB"))
    apart = np.abs(shown.astype(int) - image(picture))  # of 256 colours
    assert (shown[0, 0] >= 254).all() and apart.mean() < 3 and apart.max() < 64
    assert 2 * len(picture.small_png()) < len(picture.png())  # a notebook keeps it twice
    words = "One moment of play as the model learns imagined: 5 steps after the last real frame"
    assert f'alt="{words}"' in data["text/html"] and about == {"image/png": {"alt": words}}
    picture.axes[0].set_title("a < b", loc="left")
    assert 'alt="a &lt; b"' in picture.html()
    assert plotting.in_words("There is nothing to draw.").words() == "There is nothing to draw."


def test_figures_leave_no_trace() -> None:
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); from glamkit import plotting; "
        "plotting.live([], 10).png(); assert dict(matplotlib.rcParams) == before; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_terms_of_the_field_stand_in_brackets_behind_plain_words() -> None:
    units = [unit for _, _, unit, _ in curves.PANELS]
    assert {unit for unit in units if "KL" in unit} == {"surprise (KL, in nats)"}
    assert {unit for unit in units if "cross" in unit} == {"error (cross entropy)"}
    for name in ("02_train", "04_variation"):
        text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert "(KL)" in text and "0.7 nats" in text and text.count("KL") == 1, name
