"""A made-up game for tests, and how to play and compare any."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from glamkit.config import EnvConfig
from glamkit.envs.pixel_env import Outcome, PixelEnv

SQUARE = "glamkit-test/Square-v0"


class Square(gymnasium.Env):
    """A square that walks at random on a wide frame; `flaw` breaks one promise."""

    seeds = itertools.count()  # of what is hidden: another for each game, the same in every test run

    def __init__(self, flaw: str = "", shape: tuple[int, ...] = (20, 40, 3), length: int = 30) -> None:
        self.flaw, self.shape, self.length = flaw, shape, length
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = Discrete(3, start=1)
        self.frame, self.steps, self.games = np.zeros(shape, np.uint8), 0, 0
        self.hidden = np.random.default_rng(next(Square.seeds))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed, options=options)
        self.steps, self.games = 0, self.games + 1
        return (self.frame if self.flaw == "stale" and self.games > 1 else self.draw()), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), "actions begin at the space's start"
        if self.flaw == "crash" and self.steps == 20:
            raise OSError("the emulator is gone")
        self.steps += 1
        reward = float("nan") if self.flaw == "reward" and self.steps == 9 else float(action)
        return self.draw(), reward, self.steps >= self.length, False, {}

    def draw(self) -> np.ndarray:
        random = {"unseeded": self.hidden, "constant": np.random.default_rng(self.steps)}.get(self.flaw, self.np_random)
        frame = np.zeros(self.shape, np.float64 if self.flaw == "float" else np.uint8)
        row, column = random.integers(17), random.integers(37)
        frame[row : row + 3, column : column + 3] = 1 if self.flaw == "dark" else 255
        if self.flaw == "carried":
            frame[0, 0] = min(255, 9 * self.games)
        self.frame = frame
        return frame


def square(made: Any = Square, max_episode_steps: int | None = None, **kwargs: Any) -> EnvConfig:
    """Registers the square, or another game under its name, and returns the config that plays it."""
    gymnasium.registry.pop(SQUARE, None)
    Square.seeds = itertools.count()
    gymnasium.register(SQUARE, made, max_episode_steps=max_episode_steps, kwargs=kwargs)
    return EnvConfig(game=SQUARE, image_size=16)


def equal(one: Outcome, other: Outcome) -> bool:
    return one[1:] == other[1:] and np.array_equal(one.observation, other.observation)


def play(env: PixelEnv, steps: int, random: np.random.Generator) -> Outcome:
    outcome = env.step(int(random.integers(env.num_actions)))
    for _ in range(steps - 1):
        if outcome.ended:
            env.reset()
        outcome = env.step(int(random.integers(env.num_actions)))
    return outcome
