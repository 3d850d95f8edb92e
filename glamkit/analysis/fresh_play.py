"""Fresh play: an agent's newly played steps in the place of its stored ones, which a model may know by heart."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from glamkit.analysis.rollouts import looking
from glamkit.config import TrainerConfig, at_least
from glamkit.envs.registry import make_env
from glamkit.models.agent import RecentSteps
from glamkit.training.load import LoadedRun
from glamkit.training.replay import Replay


class FreshReplay(Replay):
    """Steps that nobody has trained on; `ends` are the last steps of games, also of those cut by a time limit."""

    ends: list[int]


def play(loaded: LoadedRun, steps: int | None = None, seed: int = 0) -> LoadedRun:
    """The same run with newly played steps; the run's folder is left as it is.

    The agent plays as in training, one game after the other: the same game, actions drawn from the policy.

    Args:
        loaded: the run.
        steps: agent steps to play; at least 64, and those that memories are measured over. None is 400, or that least.
        seed: of games and actions. Games are others than those of training and evaluation.

    Raises:
        GlamkitError: the game cannot be opened here, or a number is out of range.
    """
    config, device, agent = loaded.config, loaded.machine.device, loaded.agent
    least = max(64, config.replay.sequence_length + 2)
    count = max(400, least) if steps is None else at_least("steps", steps, least)
    seed, game = TrainerConfig(seed=seed).seed, make_env(config.env)
    played = FreshReplay(replace(config.replay, capacity=count), config.env.image_size, device)
    played.ends, past = [], RecentSteps(config.agent, 1, config.env.image_size, device)
    with contextlib.closing(game), looking(agent.world_model, loaded.machine, seed):
        frame = game.reset(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1))
        for step in range(count):
            action = agent.act(frame[None], past)
            outcome = game.step(int(action))
            played.add(frame, int(action), outcome.reward, outcome.terminated)
            past.add(frame[None], action, np.array([outcome.ended]))
            if outcome.ended:
                played.ends.append(step)
            frame = game.reset() if outcome.ended else outcome.observation
    return loaded._replace(replay=played)
