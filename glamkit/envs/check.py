"""Does an environment keep the promises the agent relies on? A short examination of any game by random play.

Each promise has cost somebody their results: seeds changed nothing, frames were dark, saved games went on differently.
What `PixelEnv` sees to by itself needs no examination: actions out of range, steps after an end, stored terminations.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glamkit.config import EnvConfig
from glamkit.envs.pixel_env import Atari, Outcome, PixelEnv
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError

EPISODES = 2  # ends of episodes to wait for
REPLAYED = 200  # steps compared between two copies of a game


class Check(NamedTuple):
    """One promise: its name, whether it was kept, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass
class RandomPlay:
    """What random play has shown, gathered step by step so that no frames pile up."""

    steps: int = 0
    low: int = 255
    high: int = 0
    ended: int = 0
    stale: int = 0  # resets whose frame is that of the step before

    def see(self, frame: np.ndarray) -> None:
        """Notes a frame."""
        self.low, self.high = min(self.low, int(frame.min())), max(self.high, int(frame.max()))


def check_env(config: EnvConfig, seed: int = 0, steps: int = 5000) -> list[Check]:
    """Examines the game of a config; a few seconds for most games.

    Args:
        config: the game and how it is seen.
        seed: of the games and of the random actions.
        steps: agent steps after which waiting for the ends of two episodes is given up.

    Returns:
        One `Check` per promise. What did not come up in that time passes, and its detail says so.

    Raises:
        GlamkitError: the game cannot be played at all, see `envs.resolve_game`.
    """
    with closing(make_env(config)) as one, closing(make_env(config)) as two:
        checks = [
            _guarded("the same seed gives the same game", _same_seed, one, two, seed),
            _guarded("another seed gives another game", _other_seed, one, two, seed),
            _guarded("a saved game goes on to the bit", _saving, one, two, seed),
        ]
        try:
            checks += _report(_walk(one, seed, steps), one.pictures.scaled)
        except Exception as error:  # a stranger's environment may raise anything; the table is where it belongs
            checks.append(Check("random play raises no error", False, _reason(error)))
    return checks


def _guarded(
    name: str, check: Callable[[PixelEnv, PixelEnv, int], tuple[bool, str]], one: PixelEnv, two: PixelEnv, seed: int
) -> Check:
    try:
        return Check(name, *check(one, two, seed))
    except Exception as error:  # as above
        return Check(name, False, _reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, GlamkitError) else f"{type(error).__name__}: {error}".splitlines()[0]


def _play(env: PixelEnv, frame: np.ndarray, steps: int, action_seed: int) -> list[Outcome]:
    """Random play from `frame` on; a reset counts as a step without reward."""
    random = np.random.default_rng(action_seed)
    seen = [Outcome(frame, 0.0, False, False)]
    for _ in range(steps):
        if seen[-1].ended:
            seen.append(Outcome(env.reset(), 0.0, False, False))
        else:
            seen.append(env.step(int(random.integers(env.num_actions))))
    return seen


def _difference(one: list[Outcome], other: list[Outcome]) -> int | None:
    """The first step at which two games differ."""
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        if not (np.array_equal(a[1:], b[1:], equal_nan=True) and np.array_equal(a.observation, b.observation)):
            return step
    return None


def _same_seed(one: PixelEnv, two: PixelEnv, seed: int) -> tuple[bool, str]:
    step = _difference(_play(one, one.reset(seed), REPLAYED, seed), _play(two, two.reset(seed), REPLAYED, seed))
    return step is None, f"equal for {REPLAYED} steps" if step is None else f"differs from step {step} on"


def _other_seed(one: PixelEnv, two: PixelEnv, seed: int) -> tuple[bool, str]:
    step = _difference(_play(one, one.reset(seed), REPLAYED, seed), _play(two, two.reset(seed + 1), REPLAYED, seed))
    if step is not None:
        return True, f"differs from step {step} on"
    if isinstance(one, Atari) and one.config.sticky == 0:
        return True, "equal, as Atari games are without sticky actions: nothing in them is random"
    return False, f"equal for {REPLAYED} steps: nothing in the game is random, or it ignores its seed"


def _saving(one: PixelEnv, two: PixelEnv, seed: int) -> tuple[bool, str]:
    now = _play(one, one.reset(seed), REPLAYED, seed)[-1]
    if now.ended:
        now = Outcome(one.reset(), 0.0, False, False)
    restored = two.restore(one.clone())
    step = _difference(_play(one, now.observation, REPLAYED, seed + 1), _play(two, restored, REPLAYED, seed + 1))
    return step is None, f"equal for {REPLAYED} steps" if step is None else f"differs {step} steps later"


def _walk(env: PixelEnv, seed: int, steps: int) -> RandomPlay:
    """Random play until `EPISODES` have ended, or `steps` are over."""
    walk, random = RandomPlay(), np.random.default_rng(seed)
    walk.see(env.reset(seed))
    while walk.ended < EPISODES and walk.steps < steps:
        outcome = env.step(int(random.integers(env.num_actions)))
        walk.see(outcome.observation)
        walk.steps += 1
        if outcome.ended:
            walk.ended += 1
            first = env.reset()
            walk.stale += np.array_equal(first, outcome.observation)
            walk.see(first)
    return walk


def _report(walk: RandomPlay, scaled: str) -> list[Check]:
    """The promises that one long walk can show; `scaled` says how pictures were changed on their way in."""
    played = f"in {walk.steps} steps"
    ends = f"{walk.ended} episodes ended {played}; {walk.stale} resets brought the old frame"
    return [
        Check(
            "frames have contrast",
            walk.high > 1 and walk.high > walk.low,
            f"values {walk.low} to {walk.high}{', ' * bool(scaled)}{scaled}",
        ),
        Check(
            "a new game does not begin with the old one's last frame",
            not walk.stale,
            ends if walk.ended else f"no episode ended {played}",
        ),
    ]
