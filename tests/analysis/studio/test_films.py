"""Films: every picture where it belongs, and a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glamkit.analysis.rollouts import dream
from glamkit.analysis.studio import films
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.runtime import Machine
from glamkit.training.replay import Replay

CONFIG = preset("debug", "imagination.context_length=6 world_model.latents=probabilities runtime.device=cpu")
MACHINE = Machine(CONFIG.runtime)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(CONFIG.world_model, 3).eval()


@pytest.fixture(scope="module")
def replay() -> Replay:
    kept, random = Replay(CONFIG.replay, 32, MACHINE.device), np.random.default_rng(0)
    for step in range(60):
        kept.add(random.integers(0, 256, (32, 32, 3), dtype=np.uint8), step % 3, 0.0, False)
    return kept


def test_pictures_are_those_of_their_steps(model: WorldModel, replay: Replay) -> None:
    shown = films.film(model, replay, MACHINE, CONFIG.imagination, 20, 4, ahead=3)
    assert (shown.real == replay.frames[20:24].numpy()).all()
    for number in range(4):
        alone = dream(model, replay, MACHINE, CONFIG.imagination, 20 + number - 8, 3)
        assert np.abs(alone.imagined[2].astype(int) - shown.imagined[number]).max() <= 1
        assert np.abs(alone.reconstructed[2].astype(int) - shown.reconstructed[number]).max() <= 1


def test_a_film_is_a_gif(model: WorldModel, replay: Replay, tmp_path: Path) -> None:
    shown = films.film(model, replay, MACHINE, CONFIG.imagination, 20, 4)
    with Image.open(films.write(tmp_path / "new" / "film.gif", shown)) as image:
        assert (image.n_frames, image.size) == (4, (3 * 128 + 16, 128 + 16))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["film.gif"]


@pytest.mark.parametrize("wrong", [{"length": 0}, {"ahead": 0}, {"length": 41}, {"ahead": 16}])
def test_what_cannot_be_shown_is_refused(model: WorldModel, replay: Replay, wrong: dict[str, int]) -> None:
    with pytest.raises(GlamkitError):
        films.film(model, replay, MACHINE, CONFIG.imagination, **{"start": 20, "length": 4, **wrong})
