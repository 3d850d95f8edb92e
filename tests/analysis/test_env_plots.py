"""The tour of a game: its figures, and notebook 01 that follows it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from books import NOTEBOOKS, executed
from figures import faults
from PIL import Image

from glamkit.analysis import env_plots
from glamkit.envs.pixel_env import Outcome
from glamkit.errors import GlamkitError
from glamkit.plotting import Picture
from glamkit.training.replay import Batch

NOTEBOOK = NOTEBOOKS / "01_environment.ipynb"

LONGEST = "DOWNRIGHTFIRE"  # of the names of Atari's actions
LINES = ("life lost: a termination is stored, the game goes on", "game over or cut off: it is reset")


def words(picture: Picture) -> str:
    """All the text of a figure."""
    return "\n".join(text.get_text() for text in picture.findobj(lambda artist: hasattr(artist, "get_text")))


def test_frame_skip_shows_the_step_that_flickers() -> None:
    still = np.zeros((4, 40, 60, 3), np.uint8)
    flicker = still.copy()
    flicker[2, 30:34, 4:8] = 200
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3)]
    picture = env_plots.frame_skip([still, still, flicker], frames)
    assert "Agent step 3:" in words(picture)
    images = [axes.images[0].get_array() for axes in picture.axes]
    assert [image.shape for image in images] == [(40, 60, 3)] * 5 + [(8, 8, 3)]
    assert [int(image.max()) for image in images] == [0, 0, 200, 0, 200, 3]
    single = env_plots.frame_skip([still[:1]], frames)
    assert faults(picture) == faults(single) == []
    assert len(single.axes) == 3
    assert "one picture of the game" in words(single)


def test_timeline_tells_lost_lives_from_ends() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    flags = [(False, False), (True, False), (False, False), (True, True), (False, True), (False, False)]
    outcomes = [Outcome(frame, float(index == 2), *flag) for index, flag in enumerate(flags)]
    picture = env_plots.timeline(outcomes, [3, 2, 2, 0, 0, 3])
    assert "6 steps of a random player: 1 reward, 2 stored terminations, 2 games ended" in words(picture)
    assert faults(picture) == []
    drawn = {line.get_color(): line.get_xdata()[0] for line in picture.axes[0].lines if line.get_label() in LINES}
    assert drawn == {env_plots.ORANGE: 1, env_plots.RED: 3}
    assert faults(env_plots.timeline(outcomes, [0] * 6)) == []  # a game that counts no lives


def test_a_window_shows_every_stored_value() -> None:
    frames = torch.randint(256, (1, 3, 3, 8, 8), dtype=torch.uint8)
    batch = Batch(frames, torch.tensor([[0, 1, 1]]), torch.tensor([[0.0, -2.5, 10.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    picture = env_plots.window(batch, ["NOOP", "FIRE"], first=7)
    captions = [text.get_text() for text in picture.axes[0].get_xticklabels()]
    assert captions == ["7\nNOOP\n0\nno", "8\nFIRE\n-2.5\nno", "9\nFIRE\n10\nYES"]
    assert picture.axes[0].texts[0].get_text().splitlines() == ["step", "action taken", "its reward", "its termination"]
    long = env_plots.window(Batch(*(part.repeat(1, 4, *[1] * (part.ndim - 2)) for part in batch)), ["NOOP", LONGEST], 7)
    assert faults(picture) == faults(long) == []
    steps = [text.get_text().split("\n")[0] for axes in long.axes for text in axes.get_xticklabels()]
    assert steps == [str(step) for step in range(7, 19)] and len(long.axes) == 3
    corner = picture.axes[0].images[0].get_array()[0, 0]
    assert np.array_equal(corner, frames[0, 0, :, 0, 0])


def test_view_says_both_sizes() -> None:
    picture = env_plots.view(np.zeros((210, 160, 3), np.uint8), np.zeros((64, 64, 3), np.uint8))
    assert "The game draws 160 x 210 pixels:\n100,800 numbers" in words(picture)
    assert "The agent gets 64 x 64 pixels:\n12,288 numbers" in words(picture)
    assert faults(picture) == []


@pytest.mark.parametrize("steps", [3, "many"])
def test_too_few_steps_get_a_sentence(steps: object) -> None:
    first, setup = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"][:2]
    space: dict[str, Any] = {}
    exec(first, space)
    with pytest.raises(GlamkitError, match=r"^steps = "):
        exec(setup.replace("notebook.check_parameters()", f"steps = {steps!r}"), space)


@pytest.mark.slow
def test_the_notebook_runs_and_keeps_its_pictures(tmp_path: Path) -> None:
    book = executed(NOTEBOOK.stem, tmp_path / "out.ipynb", game="Breakout", seed=3, steps=120)
    data = {cell.id: output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])}
    for name in ("view", "frame-skip", "timeline", "window"):
        image = Image.open(io.BytesIO(base64.b64decode(data[name]["image/png"])))
        assert image.width > 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 10, f"{name} is empty"
    assert "Breakout passes 5 of 5 checks" in data["conformance"]["text/plain"]
    assert "FAILED" not in data["conformance"]["text/html"]
    assert "FIRE" in data["setup"]["text/plain"]
    assert [output for cell in book.cells for output in cell.get("outputs", []) if output.output_type == "stream"] == []
