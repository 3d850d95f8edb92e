"""What a game returns is held against what it declares: nothing is cast, scaled or counted without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from square import Square, square

from glamkit.envs.pixel_env import GameFaultError
from glamkit.envs.registry import Games, make_env
from glamkit.errors import GlamkitError


class Told(Square):
    """A square that returns what it is told to: a picture, a reward, or an end."""

    def __init__(self, picture: Any = None, **flags: Any) -> None:
        super().__init__(shape=(20, 40, 3))
        self.picture, self.flags = picture, flags
        self.observation_space = Box(0, flags.get("high", 255), (20, 40, 3), np.uint8)

    def draw(self) -> np.ndarray:
        frame = super().draw()
        return self.picture(frame) if callable(self.picture) else frame

    def step(self, action: int) -> tuple[Any, Any, Any, Any, dict]:
        values = dict(zip(("picture", "reward", "terminated", "truncated", "info"), super().step(action), strict=True))
        given = {name: value for name, value in self.flags.items() if name in values}
        return tuple({**values, **given}.values())  # type: ignore[return-value]


PICTURES = {
    "float32 of 0 to 1": (lambda frame: (frame / 255).astype(np.float32), "float32 (20, 40, 3)"),
    "int64 beyond 255": (lambda frame: np.full(frame.shape, 300), "int64 (20, 40, 3)"),
    "int16 below 0": (lambda frame: np.full(frame.shape, -1, np.int16), "int16 (20, 40, 3)"),
    "another shape": (lambda frame: frame.transpose(1, 0, 2), "uint8 (40, 20, 3)"),
    "another size": (lambda frame: frame[:10], "uint8 (10, 40, 3)"),
    "channels first": (lambda frame: frame.transpose(2, 0, 1), "uint8 (3, 20, 40)"),
    "RGBA": (lambda frame: np.dstack([frame, frame[..., :1]]), "uint8 (20, 40, 4)"),
    "grey": (lambda frame: frame[..., 0], "uint8 (20, 40)"),
    "None": (lambda _: None, "is NoneType"),
    "a list": (lambda frame: frame.tolist(), "is list"),
    "yes and no": (lambda frame: frame > 0, "bool (20, 40, 3)"),
    "not a number": (lambda frame: np.full(frame.shape, np.nan), "float64 (20, 40, 3)"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_is_not_what_the_space_declares_is_refused(name: str) -> None:
    picture, seen = PICTURES[name]
    env = make_env(square(Told, picture=picture))
    with pytest.raises(GameFaultError) as caught:
        env.reset(0)
    assert seen in str(caught.value) and "declares uint8 (20, 40, 3)." in str(caught.value)


def test_a_space_of_another_range_is_refused() -> None:
    for high in (0, 1, 254):
        with pytest.raises(GlamkitError, match=r"not pictures, Box .* uint8 of 0 to 255"):
            make_env(square(Told, high=high))


@pytest.mark.parametrize("reward", [np.array([2.0]), np.float32(2), np.array(2), [2.0], 2])
def test_a_reward_may_be_an_array_of_one(reward: Any) -> None:
    env = make_env(square(Told, reward=reward))
    env.reset(0)
    assert env.step(0).reward == 2.0


@pytest.mark.parametrize(
    "reward", [None, "1", np.array([1.0, 2.0]), np.zeros(0), 1j, {"reward": 1}, float("nan"), 1e39]
)
def test_what_is_no_reward_is_refused(reward: Any) -> None:
    env = make_env(square(Told, reward=reward))
    env.reset(0)
    with pytest.raises(GameFaultError, match=r"Square-v0 returned the reward .*, which is not one finite number"):
        env.step(0)


@pytest.mark.parametrize("name", ["terminated", "truncated"])
@pytest.mark.parametrize("flag", [None, "False", float("nan"), 2, np.array([True, False])])
def test_an_end_is_yes_or_no(name: str, flag: Any) -> None:
    """A text such as "False" would end every episode, and None would never end one."""
    env = make_env(square(Told, **{name: flag}))
    env.reset(0)
    with pytest.raises(GameFaultError, match=f"returned {name} = .* neither True nor False"):
        env.step(0)


def test_an_end_may_be_an_array_of_one() -> None:
    env = make_env(square(Told, terminated=np.array([True])))
    env.reset(0)
    assert env.step(0).terminated is True


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["A", "B", "C"], ["A", "B", "C"]),
        (["A"], ["action 0", "action 1", "action 2"]),
    ],
)
def test_names_of_actions_come_from_the_game(names: list[str], expected: list[str]) -> None:
    class Named(Square):
        def __init__(self) -> None:
            super().__init__()
            self.get_action_meanings = lambda: names

    assert make_env(square(Named)).action_names == expected


def test_copies_that_crashed_are_named_and_opened_anew() -> None:
    Square.seeds = iter(range(10))  # type: ignore[assignment]
    games = Games(square(flaw="crash"))
    games.reset(np.arange(2))
    for _ in range(21):
        _, rewards, ended = games.step(np.zeros(2, np.int64))
    assert games.crashed == {0: "the emulator is gone", 1: "the emulator is gone"}
    assert ended.all() and not rewards.any()
    games.reset(np.array([1, 2]))
    assert not games.crashed and games.step(np.zeros(2, np.int64))[1].tolist() == [1.0, 1.0]
    games.close()
