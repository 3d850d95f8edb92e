"""Pictures for people must show the right step: each dreamt frame beside the real frame it foretells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_runs import looked_into
from torch import Tensor

from glamkit.analysis import rollouts
from glamkit.analysis.variation import Lens, metrics
from glamkit.config import ReplayConfig, preset
from glamkit.errors import GlamkitError
from glamkit.models.sequence_model import ImaginationMemory
from glamkit.models.world_model import Observed, WorldModel
from glamkit.ops.functional import kl_categorical
from glamkit.training.replay import Replay
from glamkit.types import Context

CONFIG = preset("debug")


class Last(ImaginationMemory):
    """Remembers the last token, nothing else."""

    def __init__(self, token: Tensor) -> None:
        self.hidden = token

    def read(self, token: Tensor) -> Tensor:
        self.hidden = token
        return token


class Counting(WorldModel):
    """Knows the rule of a game whose frame number i is uniformly i grey: the next one is i + 1.

    A latent holds its frame's number; a hidden state holds the last frame's number and the last action.
    """

    def __init__(self) -> None:
        super().__init__(preset("debug").world_model, actions=4)
        self.latent = 1

    def observe(self, frames: Tensor) -> Observed:
        number = frames.float().mean((-3, -2, -1)).unsqueeze(-1)
        return Observed(number, number, number)

    def decode(self, latent: Tensor) -> Tensor:
        return (latent / 255)[..., None, None].expand(*latent.shape[:-1], 3, 8, 8)

    def tokens(self, latents: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([latents, actions.unsqueeze(-1).float()], -1)

    def remember(self, context: Context, kind: str = "window") -> ImaginationMemory:
        assert kind == "window" and context.latents.shape[1] == 8
        return Last(self.tokens(*context)[:, -1])

    def predict(self, hidden: Tensor) -> Tensor:
        return hidden[:, :1] + 1

    def outcome(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return hidden[..., 1] * 10 + hidden[..., 0] / 1000, torch.zeros(hidden.shape[:-1])


def ring(steps: int = 60, capacity: int = 100) -> Replay:
    """Step i shows grey i, its action is i % 4 and its reward says so."""
    replay = Replay(ReplayConfig(capacity=capacity), 8, torch.device("cpu"))
    for i in range(steps):
        replay.add(np.full((8, 8, 3), i, np.uint8), i % 4, (i % 4) * 10 + i / 1000, False)
    return replay


def test_every_dreamt_frame_stands_beside_the_frame_it_foretells() -> None:
    dream = rollouts.dream(looked_into(Counting(), ring(), CONFIG), start=20, horizon=6)
    assert dream.real[:, 0, 0, 0].tolist() == [28, 29, 30, 31, 32, 33]
    np.testing.assert_array_equal(dream.imagined, dream.real)
    np.testing.assert_array_equal(dream.reconstructed, dream.real)
    np.testing.assert_allclose(dream.predicted, dream.rewards)  # that of the action at the frame it is shown under


def test_looking_leaves_no_trace() -> None:
    torch.manual_seed(3)
    model, replay = WorldModel(CONFIG.world_model, 4).train(), noise(40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, drawn = torch.get_rng_state(), replay.generator.get_state()
    one, two = (rollouts.dream(looked_into(model, replay, CONFIG), 5, 4) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(drawn, replay.generator.get_state())
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(one.imagined, two.imagined)


def noise(steps: int) -> Replay:
    replay, random = Replay(ReplayConfig(capacity=100), 32, torch.device("cpu")), np.random.default_rng(0)
    for _ in range(steps):
        replay.add(random.integers(0, 256, (32, 32, 3), np.uint8), int(random.integers(4)), 0.0, False)
    return replay


def test_variation_is_what_training_compares() -> None:
    """The lens, where it reads no more steps before than training does."""
    torch.manual_seed(1)
    model, replay, first = WorldModel(CONFIG.world_model, 4).eval(), noise(40), CONFIG.world_model.window
    lens = Lens(looked_into(model, replay, CONFIG))
    lens.before = first
    reading = lens.read(10 + first, 12 - first - 1)
    result = metrics.variation(lens, reading)
    steps = replay.window(torch.tensor([10]), 12)
    with torch.no_grad():
        torch.manual_seed(0)
        observed = model.observe(steps.frames)
        _, change = model.sequence_model(model.tokens(observed.latent, steps.actions))
        kl = kl_categorical(model.varied(observed.embedding[:, first:]), model.variation_prior(change[:, :-1]))
        _, logged = model.loss(steps, observed)
    np.testing.assert_allclose(result.surprise, kl[0].numpy(), rtol=1e-4)
    assert result.surprise.mean() == pytest.approx(float(logged["variation_kl"]), rel=1e-4)
    np.testing.assert_allclose(result.came.sum(-1), 1, rtol=1e-5)
    assert torch.equal(reading.frames[0], steps.frames[0, first])
    assert len(reading.frames) == len(result.came) + 1 == len(result.expected) + 1 == 12 - first


def test_a_lively_window_moves_all_the_time_and_in_the_middle() -> None:
    replay = Replay(ReplayConfig(capacity=100), 8, torch.device("cpu"))
    for i in range(90):
        frame = np.full((8, 8, 3), 250 if i == 20 else 50, np.uint8)  # one flash
        frame[3:5, 3:5] += 5 * (i - 50) * (i % 2) if 50 <= i < 80 else 0  # a while of motion that grows
        frame[:, 0] += 200 * (i % 2) if i < 50 else 0  # more of it, at the edge
        replay.add(frame, 0, 0.0, False)
    assert rollouts.lively(replay, 8) == 65  # of 83 windows 8 are livelier
    replay.terminations[75] = 1
    assert rollouts.lively(replay, 8) == 76  # the end of an episode may be the last step of a window only
    replay.terminations[:60] = replay.terminations[67:] = 1
    assert rollouts.lively(replay, 8) == 60  # where there is one window without, it is taken
    with pytest.raises(GlamkitError, match="holds 90 steps, but 91 are needed"):
        rollouts.lively(replay, 91)


def test_steps_that_the_ring_has_overwritten_are_refused() -> None:
    run = looked_into(Counting(), ring(steps=130, capacity=100), CONFIG)
    assert rollouts.dream(run, 30, 6).real[:, 0, 0, 0].tolist() == list(range(38, 44))
    assert rollouts.lively(run.replay, 20) >= 30
    for start in (29, 117):
        with pytest.raises(GlamkitError, match=f"start = {start} is outside 30 to 116: other steps are not stored"):
            rollouts.dream(run, start, 6)
