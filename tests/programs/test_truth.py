"""Dreams of games whose rules are known: right frames count as right, wrong ones as wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import truth
from torch import Tensor

from glamkit.config import RuntimeConfig, preset
from glamkit.envs.tiny_games import SIZE, Catch, Memory
from glamkit.errors import GlamkitError
from glamkit.models.world_model import Observed, WorldModel
from glamkit.runtime import Machine

MACHINE = Machine(RuntimeConfig(device="cpu", precision="float32"))
CONFIG = preset("debug", game="glamkit/Catch-v0")


class Oracle(WorldModel):
    """Dreams what it was told: a latent holds the number of a frame, and a picture is looked up by it."""

    def __init__(self, pictures: np.ndarray) -> None:
        super().__init__(preset("debug").world_model, actions=3)
        self.told = torch.from_numpy(pictures).float() / 255

    def observe(self, frames: Tensor) -> Observed:
        latent = torch.zeros(*frames.shape[:2], self.latent)
        return Observed(latent, latent, latent)

    def decode(self, latent: Tensor) -> Tensor:
        assert latent.shape[:2] == self.told.shape[:2]
        return self.told.permute(0, 1, 4, 2, 3)


def test_all_pictures_are_listed() -> None:
    assert truth.views(Catch()).shape == (12 * 8 * 8, SIZE, SIZE, 3)
    # The walker in eight places, in two of them with one of two lamps, in the last with no door lit or one; four ends.
    assert len(truth.views(Memory())) == 2 * 2 + 6 + 2 + 4


def test_a_dream_is_right_where_it_shows_what_is_true() -> None:
    real = truth.compare(Oracle(np.zeros((6, 10, SIZE, SIZE, 3), np.uint8)), CONFIG, MACHINE, 6, 10).real
    pictures = real.copy()
    pictures[2, 4] = 0  # all black: no picture of the game
    pictures[3, 5:] = pictures[3, 4:5]  # stands still from then on
    pictures[:, 0] = (pictures[:, 0] * 0.7).astype(np.uint8)  # faint, but unmistakable
    result = truth.compare(Oracle(pictures), CONFIG, MACHINE, 6, 10)
    np.testing.assert_array_equal(result.real, real)
    assert result.counted.all()
    wrong = set(zip(*np.nonzero(~result.right), strict=True))
    assert wrong == {(2, 4), *((3, step) for step in range(5, 10))}
    assert result.share[0] == 1 and result.share[5] == pytest.approx(5 / 6)


def test_only_what_actions_decide_counts() -> None:
    result = truth.compare(WorldModel(CONFIG.world_model, 3), CONFIG, MACHINE, 5, 12)
    assert result.counted.sum(1).tolist() == [10] * 5, "two frames were seen, then ten are left of the episode"
    balls = [(result.real[:, step, ..., :2] == 255).all(-1).any((1, 2)) for step in range(10)]
    assert np.all(balls)
    again = truth.compare(WorldModel(CONFIG.world_model, 3), CONFIG, MACHINE, 5, 12)
    np.testing.assert_array_equal(result.real, again.real)


def test_other_games_have_no_such_score() -> None:
    with pytest.raises(GlamkitError, match="rules of Pong are not known"):
        truth.compare(WorldModel(CONFIG.world_model, 3), preset("debug"), MACHINE)
