"""Does an environment keep the promises the agent relies on? A short examination of any game by random play.

Each promise has cost somebody their results: seeds changed nothing, frames were dark, saved games went on differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from glamkit.config import Config, EnvConfig
from glamkit.envs.pixel_env import Atari, GameFaultError, Outcome, PixelEnv
from glamkit.envs.registry import make_env
from glamkit.errors import reason

EPISODES = 2  # ends of episodes to wait for
REPLAYED = 200  # steps compared between two copies of a game


class Check(NamedTuple):
    """One promise: its name, whether it was kept, and what was seen."""

    name: str
    passed: bool
    detail: str


def check_env(config: str | Config | EnvConfig, seed: int = 0, steps: int = 5000) -> list[Check]:
    """Examines the game of a config, or the one of that name; a few seconds for most games.

    Waiting for the ends of two episodes is given up after so many steps. What did not come up until then passes, and
    its detail says so.

    Raises:
        GlamkitError: the game cannot be played at all, see `envs.make_env`.
    """
    checks = list[Check]()
    with closing(make_env(config)) as one, closing(make_env(config)) as two:
        try:
            for check in _examination(one, two, seed, steps):
                checks.append(check)
        except Exception as error:  # a stranger's environment may raise anything; the table is where it belongs
            checks.append(Check("random play raises no error", False, f"{type(error).__name__}: {reason(error)}"))
    return checks


def _examination(one: PixelEnv, two: PixelEnv, seed: int, steps: int) -> Iterator[Check]:
    """The checks with two copies of a game."""
    same, seen = _compare(_play(one, one.reset(seed), seed), _play(two, two.reset(seed), seed))
    yield Check("the same seed gives the same game", same, seen)

    same, seen = _compare(_play(one, one.reset(seed), seed), _play(two, two.reset(seed + 1), seed))
    if isinstance(one, Atari) and one.config.sticky == 0:
        same, seen = False, "not asked: without sticky actions nothing in Atari games is random"
    yield Check("another seed gives another game", not same, seen)

    now = _play(one, one.reset(seed), seed)[-1]
    frame = one.reset() if now.ended else now.observation
    try:
        restored = two.restore(one.clone())
        same, seen = _compare(_play(one, frame, seed + 1), _play(two, restored, seed + 1))
    except GameFaultError as error:
        same, seen = False, str(error)
    yield Check("a saved game goes on to the bit", same, seen)

    random, frame = np.random.default_rng(seed), one.reset(seed)
    low, high, made, ended, stale = int(frame.min()), int(frame.max()), 0, 0, 0
    while ended < EPISODES and made < steps:
        outcome = one.step(int(random.integers(one.num_actions)))
        low, high = min(low, int(outcome.observation.min())), max(high, int(outcome.observation.max()))
        made += 1
        if outcome.ended:
            ended += 1
            stale += np.array_equal(one.reset(), outcome.observation)
    yield Check("frames have contrast", high > 1 and high > low, f"values {low} to {high}")
    ends = f"{ended} episodes ended in {made} steps; {stale} resets brought the old frame"
    yield Check("a new game does not begin with the old one's last frame", not stale, ends)


def _play(env: PixelEnv, frame: np.ndarray, action_seed: int) -> list[Outcome]:
    """Random play from `frame` on; a reset counts as a step without reward."""
    random = np.random.default_rng(action_seed)
    seen = [Outcome(frame, 0.0, False, False)]
    for _ in range(REPLAYED):
        if seen[-1].ended:
            seen.append(Outcome(env.reset(), 0.0, False, False))
        else:
            seen.append(env.step(int(random.integers(env.num_actions))))
    return seen


def _compare(one: list[Outcome], other: list[Outcome]) -> tuple[bool, str]:
    """Whether two games are equal, and where they are not."""
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        if a[1:] != b[1:] or not np.array_equal(a.observation, b.observation):
            return False, f"differs from step {step} on"
    return True, f"equal for {REPLAYED} steps"
