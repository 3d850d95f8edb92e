"""Acting: what the agent looks at, and that games played side by side do not touch each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glamkit.config import preset
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent, RecentSteps
from glamkit.models.world_model import WorldModel

ACTIONS, LENGTH, CPU = 5, 8, torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def make(**choices: str) -> Agent:
    config = preset("debug", {f"agent.{name}": choice for name, choice in choices.items()})
    world_model = WorldModel(config.world_model, ACTIONS)
    with torch.no_grad():  # a fresh network hardly tells frames and actions apart
        for parameter in world_model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
    agent = Agent(config.agent, world_model, ActorCritic(config.actor_critic, world_model.features, ACTIONS))
    return agent.eval()


def surely(agent: Agent) -> Agent:
    """The same agent with probabilities for samples, so that nothing is left to chance."""
    agent.world_model.sample = torch.exp  # type: ignore[assignment]
    return agent


def frames(count: int) -> np.ndarray:
    return np.random.randint(0, 256, (count, 32, 32, 3), np.uint8)


def past(agent: Agent, games: int, ends: list[list[int]] | None = None, steps: int = 11) -> RecentSteps:
    """A past of random frames and actions; `ends[step]` lists the games that ended by that step."""
    result = RecentSteps(agent.config, games, 32, CPU)
    for step in range(steps):
        ended = np.isin(np.arange(games), (ends or {})[step] if ends and step < len(ends) else [])
        result.add(frames(games), torch.randint(ACTIONS, (games,)), ended)
    return result


def alone(whole: RecentSteps, game: int) -> RecentSteps:
    result = RecentSteps(preset("debug").agent, 1, 32, CPU)
    result.frames, result.actions = whole.frames[[game]].clone(), whole.actions[[game]].clone()
    result.lengths = whole.lengths[[game]].copy()
    return result


def states(agent: Agent, now: np.ndarray, whole: RecentSteps) -> Tensor:
    length = int(whole.lengths[0])
    with torch.no_grad():
        return agent.states(torch.from_numpy(now), whole.frames[:, -length:], whole.actions[:, -length:])


@pytest.mark.parametrize("acting", ["prior", "posterior"])
def test_a_batch_of_games_is_each_game_alone(acting: str) -> None:
    agent = surely(make(acting=acting))
    whole, now = past(agent, 40), frames(40)
    together = agent.act(now, whole, sampled=False)
    apart = torch.cat([agent.act(now[[game]], alone(whole, game), sampled=False) for game in range(40)])
    assert torch.equal(together, apart)
    assert len(set(together.tolist())) > 1
    each = torch.cat([states(agent, now[[game]], alone(whole, game)) for game in range(40)])
    assert torch.allclose(states(agent, now, whole), each, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("acting", ["prior", "posterior"])
def test_games_of_different_lengths_are_each_game_alone(acting: str) -> None:
    agent = surely(make(acting=acting, context="reset"))
    ends = [[]] * 3 + [[0, 1]] + [[]] * 4 + [[2, 3, 4, 5]] + [[]] + [[6]]  # of 11 steps
    whole, now = past(agent, 9, ends), frames(9)
    assert whole.lengths.tolist() == [7, 7, 2, 2, 2, 2, 0, 8, 8]
    compute, seen = agent.states, torch.zeros(9, agent.world_model.features)

    def noted(current: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        games = torch.from_numpy(whole.lengths == actions.shape[1])
        seen[games] = compute(current, frames, actions)
        return seen[games]

    agent.states = noted  # type: ignore[method-assign]
    together = agent.act(now, whole, sampled=False)
    agent.states = compute  # type: ignore[method-assign]
    for game in (0, 1, 2, 3, 4, 5, 7, 8):
        assert torch.allclose(seen[[game]], states(agent, now[[game]], alone(whole, game)), rtol=1e-3, atol=1e-3), game
        assert together[game] == agent.act(now[[game]], alone(whole, game), sampled=False)[0], game


def test_a_game_without_a_past_acts_at_random() -> None:
    agent = surely(make(context="reset"))
    empty = RecentSteps(agent.config, 400, 32, CPU)
    assert set(agent.act(frames(400), empty, sampled=False).tolist()) == set(range(ACTIONS))


def test_carried_contexts_outlive_an_episode_and_reset_ones_do_not() -> None:
    for context, lengths in (("carried", [8, 8]), ("reset", [8, 1])):
        assert past(make(context=context), 2, [[]] * 9 + [[1]]).lengths.tolist() == lengths


@pytest.mark.parametrize("game", [0, 1])
def test_what_lies_before_a_reset_is_not_looked_at(game: int) -> None:
    agent = surely(make(context="reset"))
    whole, now = past(agent, 2, [[]] * 7 + [[0, 1]]), frames(2)  # three steps since
    before = states(agent, now, whole)
    whole.frames[game, :-3] = 255 - whole.frames[game, :-3]
    whole.actions[game, :-3] = (whole.actions[game, :-3] + 1) % ACTIONS
    assert torch.equal(states(agent, now, whole), before)
    whole.actions[game, -3] = (whole.actions[game, -3] + 1) % ACTIONS
    moved = (states(agent, now, whole) != before).any(-1)
    assert moved.tolist() == [game == 0, game == 1]


def test_the_current_frame_is_looked_at_only_by_posterior() -> None:
    for acting in ("prior", "posterior"):
        agent = surely(make(acting=acting))
        whole = past(agent, 3)
        one, other = states(agent, frames(3), whole), states(agent, frames(3), whole)
        z, h = agent.world_model.latent, agent.world_model.config.width
        assert torch.equal(one[:, -h:], other[:, -h:])  # h is of the past alone
        assert torch.equal(one[:, :z], other[:, :z]) == (acting == "prior")


def test_prior_and_posterior_are_those_of_the_world_model() -> None:
    now = frames(2)
    for acting in ("prior", "posterior"):
        agent = surely(make(acting=acting))
        whole, model = past(agent, 2), agent.world_model
        with torch.no_grad():
            seen = whole.frames.permute(0, 1, 4, 2, 3)
            hidden = model.remember(model.context(seen, whole.actions)).hidden
            current = torch.from_numpy(now).permute(0, 3, 1, 2).float() / 255
            latent = model.prior(hidden) if acting == "prior" else model.posterior(model.encoder(current))
        expected = torch.cat([latent.exp().flatten(1), hidden], -1)
        assert torch.allclose(states(agent, now, whole), expected, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 13])
def test_a_past_holds_the_last_steps_in_order(steps: int) -> None:
    config = preset("debug").agent
    whole = RecentSteps(config, 1, 32, CPU)
    for step in range(steps):
        whole.add(np.full((1, 32, 32, 3), step, np.uint8), torch.tensor([step % ACTIONS]), np.array([False]))
    kept = list(range(max(0, steps - LENGTH), steps))
    assert whole.lengths.tolist() == [len(kept)]
    assert whole.frames[0, -len(kept) :, 0, 0, 0].tolist() == kept
    assert whole.actions[0, -len(kept) :].tolist() == [step % ACTIONS for step in kept]


def test_actions_follow_the_policy_and_sampled_can_be_switched_off() -> None:
    agent = surely(make())
    with torch.no_grad():
        agent.actor_critic.actor[-1].weight.zero_()
        agent.actor_critic.actor[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1]).log())
    whole, now = past(agent, 1000, steps=2), frames(1000)
    assert set(agent.act(now, whole, sampled=False).tolist()) == {2}
    shares = torch.bincount(agent.act(now, whole), minlength=ACTIONS) / 1000
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.4, 0.2, 0.1], abs=0.05)


def test_acting_needs_no_gradient() -> None:
    agent = make()
    assert agent.actor_critic.policy(torch.zeros(1, agent.world_model.features)).requires_grad
    assert not agent.act(frames(2), past(agent, 2)).requires_grad


def test_a_past_is_saved_and_restored() -> None:
    agent = make(context="reset")
    whole: RecentSteps = past(agent, 3, [[]] * 8 + [[1]])
    copy = RecentSteps(agent.config, 3, 32, CPU)
    state: dict[str, Any] = whole.state_dict()
    copy.load_state_dict(state)
    assert torch.equal(copy.frames, whole.frames)
    assert torch.equal(copy.actions, whole.actions)
    assert copy.lengths.tolist() == whole.lengths.tolist() == [8, 2, 8]
