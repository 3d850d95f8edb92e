"""Dreams of the built-in games scored against their known rules: is everything where it must be?

A dreamt picture is right when, of all the pictures that the game can show, the true one is the nearest to it (squared
error). The actions are given, so every step up to the end of an episode has one true picture.
"""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch

from glamkit.analysis.rollouts import looking, pictures, replayed
from glamkit.config import Config, ReplayConfig
from glamkit.envs.registry import make_env
from glamkit.envs.tiny_games import State, TinyGame
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.runtime import Machine
from glamkit.training.replay import Replay

SEEN = 2  # real frames of an episode before its dream: the fewest that show motion


class TruthScore(NamedTuple):
    """N dreams of H steps beside what is true; a step after the end of its episode is not `counted`."""

    right: np.ndarray  # (N, H) bool: the true picture is the nearest one
    counted: np.ndarray  # (N, H) bool
    real: np.ndarray  # (N, H, size, size, 3) uint8
    imagined: np.ndarray  # (N, H, size, size, 3) uint8

    @property
    def share(self) -> np.ndarray:
        """(H,): share of right pictures at each step of the dreams."""
        return (self.right & self.counted).sum(0) / np.maximum(self.counted.sum(0), 1)


def views(game: TinyGame) -> np.ndarray:
    """All pictures (n, 32, 32, 3) uint8 that a game can show."""
    result: dict[State, np.ndarray] = {}
    rest = list(game.starts)
    while rest:
        state = rest.pop()
        if state not in result:
            result[state] = game.draw(state)
            steps = (game.advance(state, action) for action in range(len(game.actions)))
            rest += [following for following, _, over in steps if not over]
    return np.unique(np.stack(list(result.values())), axis=0)


def compare(
    model: WorldModel, config: Config, machine: Machine, dreams: int = 100, horizon: int = 10, seed: int = 0
) -> TruthScore:
    """Dreams from the second frame of fresh episodes, played at random, with the actions that were taken.

    Args:
        model: a world model trained on a built-in game.
        config: its run's config.
        machine: where it computes.
        dreams: N.
        horizon: H.
        seed: of games, actions and draws; not the training's.

    Raises:
        GlamkitError: not a built-in game.
    """
    game = gymnasium.make(config.env.game).unwrapped if config.env.game.startswith("glamkit/") else None
    if not isinstance(game, TinyGame):
        raise GlamkitError(f"the rules of {config.env.game} are not known; only built-in games have such a score.")
    known = torch.from_numpy(views(game)).flatten(1).float()
    length = config.imagination.context_length
    replay, starts, ends = play(config, dreams, length, horizon, seed, machine.device)
    steps = replay.window(starts - length, length + horizon)
    with looking(model, machine, seed):
        context = model.context(steps.frames[:, :length], steps.actions[:, :length])
        rollout = replayed(model, context, steps.actions[:, length:], config.imagination.memory)
        decoded = model.decode(rollout.states[:, :-1, : model.latent]).float().cpu()
    imagined = pictures(decoded.flatten(0, 1))
    real = steps.frames[:, length:].permute(0, 1, 3, 4, 2).cpu()
    nearest = torch.cdist(torch.from_numpy(imagined).flatten(1).float(), known).argmin(1)
    right = (known[nearest] == real.flatten(0, 1).flatten(1)).all(1).unflatten(0, (dreams, horizon))
    counted = starts[:, None] + torch.arange(horizon) <= ends[:, None]
    shape = (dreams, horizon, *imagined.shape[1:])
    return TruthScore(right.numpy(), counted.numpy(), real.numpy(), imagined.reshape(shape))


def play(
    config: Config, episodes: int, before: int, after: int, seed: int, device: torch.device
) -> tuple[Replay, torch.Tensor, torch.Tensor]:
    """Random play: the steps, and for each episode the number of the first step to dream and of its last step."""
    env, random = make_env(config.env), np.random.default_rng(seed)
    frame, first, count = env.reset(seed), 0, 0
    stored: list[tuple[np.ndarray, int, float, bool]] = []
    starts: list[int] = []
    ends: list[int] = []
    while len(starts) < episodes or count < ends[-1] + after + 1:
        action = int(random.integers(env.num_actions))
        outcome = env.step(action)
        stored.append((frame, action, outcome.reward, outcome.terminated))
        count += 1
        frame = outcome.observation
        if outcome.ended:
            if first + SEEN >= before and len(starts) < episodes:
                starts.append(first + SEEN)
                ends.append(count - 1)
            frame, first = env.reset(), count
    env.close()
    replay = Replay(ReplayConfig(capacity=max(count, 64)), config.env.image_size, device)
    for step in stored:
        replay.add(*step)
    return replay, torch.tensor(starts), torch.tensor(ends)
