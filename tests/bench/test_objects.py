"""An object looked for: found where the game's memory says, in perfect pictures always and in blank ones never."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glamkit.bench import objects
from glamkit.bench.objects import RecordedPlay, calibrate, measure, object_seen
from glamkit.config import EnvConfig, preset
from glamkit.errors import GlamkitError
from glamkit.models.world_model import Observed, WorldModel
from glamkit.runtime import Machine
from glamkit.types import Context, Rollout

SIZE, X, Y = 16, 7, 9
CONFIG = preset("debug", "imagination.context_length=2 world_model.window=2 runtime.device=cpu")
MACHINE = Machine(CONFIG.runtime)


def pong(steps: int = 300) -> RecordedPlay:
    """A white dot that goes right, pixel by pixel, and a row down at each turn; a grey bar stands and flickers."""
    frames = np.full((steps, SIZE, SIZE, 3), (90, 40, 20), np.uint8)
    memory = np.random.default_rng(0).integers(0, 256, (steps, 128), dtype=np.uint8)
    column, row = np.arange(steps) % SIZE, np.arange(steps) // SIZE % SIZE
    frames[np.arange(steps) % 3 == 0, 2:6, 1] = 130
    frames[np.arange(steps), row, column] = 240
    memory[:, X], memory[:, Y] = 10 * column, np.round(row * 210 / SIZE)
    return RecordedPlay(frames, np.zeros(steps, np.int64), np.zeros(steps, bool), memory)


class Known(nn.Module):
    """A model that knows the rules: a latent is the frame itself."""

    latent = 3 * SIZE * SIZE

    def __init__(self, shade: float = 1.0, late: int = 0) -> None:
        super().__init__()
        self.shade, self.late = shade, late

    def observe(self, frames: Tensor) -> Observed:
        latents = frames.flatten(2).float() / 255
        return Observed(latents, latents, latents)

    def decode(self, latents: Tensor) -> Tensor:
        pictures = latents.unflatten(-1, (3, SIZE, SIZE))
        usual = torch.tensor([90, 40, 20]).view(3, 1, 1) / 255
        return usual + self.shade * (pictures - usual)

    def imagine(self, policy: object, context: Context, horizon: int, memory: str) -> Rollout:  # noqa: ARG002
        last = context.latents[:, -1].unflatten(-1, (3, SIZE, SIZE))
        dreamt = [torch.roll(last, step + 1 - self.late, -1) for step in range(horizon + 1)]
        states = torch.stack(dreamt, 1).flatten(2)
        return Rollout(states, states, states, states)


def seen(model: nn.Module) -> objects.VisibleShares:
    played = pong()
    return measure(model, CONFIG, MACHINE, played, calibrate(played, (X, Y)), 3)  # type: ignore[arg-type]


def test_bytes_become_pixels() -> None:
    played = pong()
    known = calibrate(played, (X, Y))
    places = known.places(played.memory)
    true = np.stack([np.arange(300) % SIZE, np.arange(300) // SIZE % SIZE], 1)
    assert np.abs(places - true).max() < 0.7
    assert known.ram == (X, Y)
    np.testing.assert_allclose(known.colour, np.array([150, 200, 220]) / np.linalg.norm([150, 200, 220]), atol=1e-3)


def test_a_perfect_decoder_shows_it_always_and_a_blank_one_never() -> None:
    perfect, blank = seen(Known()), seen(Known(shade=0.0))
    assert perfect.real == perfect.reconstructed == 1
    assert perfect.imagined.min() > 0.8  # the dot that wraps round goes a row down, which the model leaves out
    assert (blank.reconstructed, blank.imagined.tolist()) == (0.0, [0.0] * 3)
    assert perfect.counts.tolist()[0] == blank.counts.tolist()[0] > 200


def test_faint_is_not_seen() -> None:
    assert seen(Known(shade=0.6)).reconstructed == 1
    assert seen(Known(shade=0.4)).reconstructed < 0.05  # where the bar is near


@pytest.mark.parametrize(("late", "share"), [(0, 1.0), (1, 1.0), (3, 0.0)])
def test_two_pixels_off_is_seen_and_three_are_not(late: int, share: float) -> None:
    assert abs(seen(Known(late=late)).imagined[1] - share) < 0.25


def test_bytes_that_nothing_follows_are_refused() -> None:
    with pytest.raises(GlamkitError, match=r"nothing on the frames follows the bytes 3 and 4"):
        calibrate(pong(), (3, 4))


@pytest.mark.parametrize("ram", [(1,), (1, 128), (-1, 3), (1, 2, 3)])
def test_addresses_out_of_range_are_refused(ram: tuple[int, ...]) -> None:
    with pytest.raises(GlamkitError, match="two addresses from 0 to 127"):
        calibrate(pong(), ram)


def test_pong_s_ball() -> None:
    played = objects.play(EnvConfig(game="Pong"), 500, 3)
    known = calibrate(played, (49, 54))
    assert known.scale == pytest.approx([64 / 160, 64 / 210], rel=0.03)
    again = objects.play(EnvConfig(game="Pong"), 500, 3)
    assert all((one == other).all() for one, other in zip(played, again, strict=True))


def test_an_untrained_model_of_pong() -> None:
    config = preset("debug", "env.image_size=64 world_model.channels=4,4,8,8 runtime.device=cpu", game="Pong")
    torch.manual_seed(0)
    result = object_seen(WorldModel(config.world_model, 6), config, MACHINE, steps=300, horizon=2)
    assert result.real > 0.95
    assert result.reconstructed < 0.2
    assert result.imagined.shape == (2,)


def test_what_has_no_memory_is_refused() -> None:
    with pytest.raises(GlamkitError, match="only Atari games"):
        objects.play(EnvConfig(game="glamkit/Catch-v0", image_size=32), 10, 0)


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"steps": 3}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(GlamkitError, match="outside its range"):
        object_seen(WorldModel(CONFIG.world_model, 6), CONFIG, MACHINE, **wrong)
