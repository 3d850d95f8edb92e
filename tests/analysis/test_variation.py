"""What the variation lens says of models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from made_runs import looked_into
from torch import Tensor, nn

from glamkit import plotting
from glamkit.analysis.variation import effective_memory, events, frame_plots, metrics
from glamkit.analysis.variation.lens import QUANTITIES, Lens
from glamkit.analysis.variation.metrics import ScreenForecast
from glamkit.config import ReplayConfig, preset
from glamkit.errors import GlamkitError
from glamkit.models.world_model import Observed, WorldModel
from glamkit.training.replay import Replay

CLASSES, ACTIONS, SPAN = 16, 2, 12


class Call(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Ago(Call):
    """Reads the token of some steps ago, and nothing else; in the place of GMamba (`cut` 1) or LMamba (S - 1)."""

    def __init__(self, steps: int, cut: int, times: float = 1.0) -> None:
        self.window = cut + 1
        super().__init__(lambda x: times * torch.cat([torch.zeros_like(x[:, :steps]), x], 1)[:, cut : x.shape[1]])


class ChangeAgo(nn.Module):
    """Reads the change of some steps ago, and nothing else; in the place of GMamba where its memory is measured."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        changes = x[:, 1:] - x[:, :-1]
        return changes[:, : changes.shape[1] - self.steps]


def model(changes: str = "", **shorthand: object) -> WorldModel:
    torch.manual_seed(1)
    return WorldModel(preset("debug", changes, **shorthand).world_model, ACTIONS)


class Clock(WorldModel):
    """A game whose frame at step i is one of 16 greys in turn, and a model that expects it to go on by `ahead`.

    A token holds the frame's number as a class; GMamba passes it on, LMamba is silent. The variation is the difference
    of two frames' numbers, and one is expected always.
    """

    def __init__(self, ahead: int = 1) -> None:
        super().__init__(preset("debug", f"world_model.variables=1 world_model.classes={CLASSES}").world_model, ACTIONS)
        self.sequence_model.gmamba = Ago(0, 1)
        self.sequence_model.lmamba = Ago(0, 3, 0.0)
        self.prior = Call(lambda h: self.code(h[..., :CLASSES].argmax(-1) + ahead))
        self.variation_prior = Call(lambda g: self.code(torch.ones(g.shape[:-1])))
        self.reward = Call(lambda h: torch.zeros(*h.shape[:-1], self.config.bins))
        self.termination = Call(lambda h: h[..., :1] * 0)

    def code(self, number: Tensor) -> Tensor:
        """Log-probabilities (..., 1, 16) of a class that is nearly certain."""
        one_hot = nn.functional.one_hot(number.long() % CLASSES, CLASSES)
        return (0.99 * one_hot + 0.01 / CLASSES).log().unsqueeze(-2)

    def observe(self, frames: Tensor) -> Observed:
        number = (frames.float().mean((-3, -2, -1)) / 15).round()
        posterior = self.code(number)
        return Observed(number.unsqueeze(-1), posterior, posterior.exp().flatten(-2))

    def decode(self, latent: Tensor) -> Tensor:
        grey = (latent.argmax(-1) * 15 / 255)[..., None, None, None]
        return grey.expand(*latent.shape[:-1], 3, 32, 32)

    def tokens(self, latents: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([latents, nn.functional.one_hot(actions, ACTIONS)], -1)

    def varied(self, embedding: Tensor) -> Tensor:
        return self.code((embedding[:, 1:] - embedding[:, :-1]).squeeze(-1))


def ring(steps: int = 80, still: bool = False) -> Replay:
    """Step i shows grey 15 (i % 16), or noise that differs from step to step; all else is made up."""
    replay, rng = Replay(ReplayConfig(capacity=100), 32, torch.device("cpu")), np.random.default_rng(0)
    for i in range(steps):
        noise = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
        replay.add(np.full((32, 32, 3), 15 * (i % 16), np.uint8) if still else noise, i % ACTIONS, i % 7 == 0, i == 40)
    return replay


def lens(seen: WorldModel) -> Lens:
    config = preset("debug", f"replay.sequence_length={SPAN}")
    return Lens(looked_into(seen.eval(), ring(still=isinstance(seen, Clock)), config))


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modules", ["both", "gmamba", "lmamba"])
def test_every_step_is_read_as_in_a_training_sequence(modules: str) -> None:
    through = lens(model(f"world_model.modules={modules} world_model.latents=probabilities"))
    assert through.before == 6
    reading = through.read(50, 15)  # pieces of six, six and three steps
    assert len(reading.tokens) == 21 and len(reading.frames) == 16
    for first in (0, 6, 12):
        hidden, variation = through.model.sequence_model(reading.tokens[None, first : first + SPAN])
        count = min(6, 15 - first)
        place = slice(SPAN - 6 - through.model.config.window, SPAN - 6 - through.model.config.window + count)
        torch.testing.assert_close(reading.hidden[first : first + count], hidden[0, place])
        torch.testing.assert_close(reading.variation[first : first + count], variation[0, place])
    assert reading.numbers.tolist() == list(range(50, 65))
    assert torch.equal(reading.frames, through.replay.window(torch.tensor([50]), 16).frames[0])


def test_reading_is_repeatable_and_leaves_the_model_as_it_was() -> None:
    through = lens(model())
    through.model.train()
    one, other = through.read(20, 8, seed=3), through.read(20, 8, seed=3)
    assert torch.equal(one.tokens, other.tokens) and through.model.training
    assert not torch.equal(one.tokens, through.read(20, 8, seed=4).tokens)


@pytest.mark.parametrize(("start", "length"), [(5, 4), (78, 2), (79, 1), (20, 90), (20, 0), (-3, 4)])
def test_steps_that_are_not_there_get_a_sentence(start: int, length: int) -> None:
    with pytest.raises(GlamkitError) as error:
        lens(model()).read(start, length)
    assert str(error.value) == (
        f"start = {start} with length = {length} is not within the steps that can be looked at, 6 to 78: "
        "the 6 before are only read."
    )


def test_the_first_and_the_last_stretch_can_be_read() -> None:
    through = lens(model())
    assert through.read(6, 73).numbers[-1] == through.read(78, 1).numbers[0] == 78
    for seed in (-1, 2**31, "one"):
        with pytest.raises(GlamkitError, match="seed = "):
            through.read(20, 4, seed)  # type: ignore[arg-type]


# Forecasts and pictures -----------------------------------------------------------------------------------------------


def test_a_model_that_knows_the_rule_predicts_everything() -> None:
    through = lens(Clock())
    seen = events.view(through, through.read(20, 12))
    assert seen.screen.skill == pytest.approx(np.ones(12), abs=1e-5) and seen.screen.overall() == pytest.approx(1)
    assert seen.variation.agreement.min() == 1 and seen.variation.surprise.max() < 1e-5
    assert seen.variation.size_came.min() > 3 and seen.variation.size_expected.min() > 3


def test_a_model_that_expects_no_change_has_no_skill() -> None:
    through = lens(Clock(ahead=0))
    seen = events.view(through, through.read(20, 12))
    assert seen.screen.skill == pytest.approx(np.zeros(12), abs=1e-6)
    assert seen.screen.overall("seen") == pytest.approx(1)


def test_a_still_screen_has_no_skill_to_speak_of() -> None:
    blank = np.zeros((3, 4, 4))
    screen = ScreenForecast(np.zeros((4, 4, 4, 3), np.uint8), blank, blank, blank + 0.1, np.ones(3, bool))
    assert np.isnan(screen.skill).all() and np.isnan(screen.overall())
    through = lens(Clock())
    seen = events.view(through, through.read(20, 3))._replace(screen=screen)
    axes = plotting.figure(plotting.WIDE, 3)[1][0][0]
    frame_plots.draw_skill(axes, seen)
    assert "Too little changes here to say" in axes.get_title()
    assert "nan" not in axes.get_title() + str(axes.get_legend_handles_labels()[1])


def test_forecasts_by_hand() -> None:
    expected = np.array([[[0.5, 0.5]], [[0.25, 0.75]], [[0.25, 0.75]]])
    came = np.array([[[0.5, 0.5]], [[0.0, 1.0]], [[1.0, 0.0]]])
    result = metrics.forecast(expected, came, np.array([[0.5, 0.5]]))
    assert result.surprise == pytest.approx([0, np.log(4 / 3), np.log(4)])
    assert result.blind == pytest.approx([0, np.log(2), np.log(2)])
    assert result.agreement.tolist() == [1, 1, 0]
    assert result.size_came == pytest.approx([0, np.log(2), np.log(2)])


# The branches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modules", "share"), [("gmamba", 0.0), ("lmamba", 1.0)])
def test_a_branch_that_is_left_out_has_no_share(modules: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SMALLEST", 0.0)  # an untrained model's effects are small
    through = lens(model(f"world_model.modules={modules}"))
    reading = through.read(20, 10)
    result = metrics.effects(through, reading)
    assert result.shape == (10, 2, 4)
    assert metrics.local_share(result) == pytest.approx(np.full((10, 4), share))
    assert metrics.local_share(result.mean(0)) == pytest.approx([share] * 4)
    reach = effective_memory.memory(through, [30, 40])
    assert (reach.globally.sum() > 0) == (modules == "gmamba") and (reach.locally.sum() > 0) == (modules == "lmamba")


def test_shares_are_of_what_each_branch_does() -> None:
    """LMamba's output is three times GMamba's, and of the same token."""
    through = lens(Clock())
    through.model.sequence_model.lmamba = Ago(0, 3, 3.0)
    result = metrics.effects(through, through.read(20, 10))
    assert metrics.local_share(result)[:, 0] == pytest.approx(0.75)
    assert np.isnan(metrics.local_share(result)[:, 2]).all()  # the reward is always the same: nobody's doing
    assert result[:, 1, 0] == pytest.approx(3 * result[:, 0, 0])


def test_shares_of_nothing() -> None:
    assert np.isnan(metrics.local_share(np.zeros((3, 2, 4)))).all()


def test_effects_are_what_the_heads_say() -> None:
    through = lens(model())
    hidden = through.read(20, 3).hidden
    other = torch.zeros_like(hidden)
    effect = through.effect(hidden, other)
    assert effect.shape == (3, len(QUANTITIES))
    before, after = through.predict(hidden), through.predict(other)
    torch.testing.assert_close(effect[..., 0], hidden.norm(dim=-1))
    torch.testing.assert_close(effect[..., 3], (before[2] - after[2]).abs())
    assert (through.effect(hidden, hidden) == 0).all() and (effect[..., 1] > 0).all()


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_lmamba_depends_on_the_token_it_reads(steps: int) -> None:
    through = lens(Clock())
    through.model.sequence_model.lmamba = Ago(steps, 3)
    result = effective_memory.memory(through, [30, 40, 50])
    assert np.flatnonzero(result.locally.max(0)).tolist() == [steps]


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_memory_reaches_back_to_the_tokens_of_the_change_that_is_read(steps: int) -> None:
    through = lens(Clock())
    through.model.sequence_model.gmamba = ChangeAgo(steps)
    result = effective_memory.memory(through, [30, 40, 50])
    assert result.globally.shape == (3, SPAN)
    assert np.flatnonzero(result.globally.max(0)).tolist() == [steps, steps + 1]
    assert effective_memory.reach(result.globally.mean(0)) == steps + 1
    assert (result.locally == 0).all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_hiding_a_token_is_what_the_whole_sequence_makes_of_it(blocks: int) -> None:
    through = lens(model(f"world_model.blocks={blocks}"))
    tokens = torch.stack([through.read(start, SPAN).tokens[-SPAN:] for start in (20, 40)])
    result, gmamba = effective_memory.of_tokens(through, tokens), through.model.sequence_model.gmamba
    with torch.no_grad():
        was = gmamba(tokens)[:, -1]
        for back in range(SPAN):
            hidden = tokens.clone()
            hidden[:, -1 - back] = tokens.mean((0, 1))
            now = gmamba(hidden)[:, -1]
            expected = (now - was).norm(dim=-1) / was.norm(dim=-1)
            assert result.globally[:, back] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-5)


def test_lmamba_s_memory_ends_with_its_window() -> None:
    through = lens(model())
    result = effective_memory.memory(through, [30, 40])
    assert (result.locally[:, :4] > 0).all() and (result.locally[:, 4:] == 0).all()
    assert (result.globally[:, :8] > 0).all()


def test_moments_have_a_training_sequence_behind_them() -> None:
    through = lens(model())
    assert effective_memory.moments(through, 6, 20, 3) == [11, 18, 25]
    assert effective_memory.moments(through, 6, 3) == [11]
    assert effective_memory.memory(through, effective_memory.moments(through, 6, 3)).globally.shape == (1, SPAN)
