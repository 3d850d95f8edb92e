"""The built-in games: gymnasium's rules, pictures, and the returns that their documentation promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from square import equal

from glamkit.config import EnvConfig
from glamkit.envs.check import check_env
from glamkit.envs.registry import Games, make_env, resolve_game
from glamkit.envs.tiny_games import CYAN, SIZE, WHITE, YELLOW, Catch, Memory, State, TinyGame
from glamkit.errors import GlamkitError

IDS = ["glamkit/Catch-v0", "glamkit/Memory-v0", "glamkit/LongMemory-v0"]
CATCH, DOORS = Catch.starts, Memory.starts

Player = Callable[[Sequence[State]], int]


def random_value(game: TinyGame, starts: Sequence[State], limit: int) -> float:
    """Mean return of random play, exactly: all actions are followed, weighted by their probability."""
    total, share = 0.0, 1 / len(game.actions)
    for start in starts:
        states = {start: 1 / len(starts)}
        for _ in range(limit):
            after: dict[State, float] = defaultdict(float)
            for state, weight in states.items():
                for action in range(len(game.actions)):
                    following, reward, over = game.advance(state, action)
                    total += weight * share * reward
                    if not over:
                        after[following] += weight * share
            states = after
    return total


def value(game: TinyGame, starts: Sequence[State], player: Player, limit: int = 100) -> list[float]:
    """Returns of a player from each start; it is given all states so far."""
    returns = []
    for start in starts:
        seen, total, over = [start], 0.0, False
        while not over and len(seen) <= limit:
            state, reward, over = game.advance(seen[-1], player(seen))
            seen.append(state)
            total += reward
        returns.append(total)
    return returns


def toward(target: int, here: int) -> int:
    return int(np.sign(target - here)) + 1


def landing(state: State) -> int:
    """The column in which the ball will arrive."""
    over = False
    while not over:
        state, _, over = Catch().advance(state, 1)
    return state[1]


def beginnings(game: TinyGame, count: int) -> set[State]:
    """The states that so many games begin with."""
    found = set()
    for seed in range(count):
        game.reset(seed=None if seed else 0)
        found.add(game.state)
    return found


# --- what the documentation says


def test_catch_is_worth_what_it_says() -> None:
    game = Catch()
    assert beginnings(game, 4000) == set(CATCH)
    assert len(CATCH) == 176
    assert random_value(game, CATCH, 12) == pytest.approx(-0.75)
    assert np.mean(value(game, CATCH, lambda seen: toward(seen[-1][1], seen[-1][3]))) == pytest.approx(-1 / 11)
    for late in range(5):  # steps before the player begins to move
        returns = value(game, CATCH, lambda s, n=late: 1 if len(s) <= n else toward(landing(s[-1]), s[-1][3]))
        assert returns == [1.0] * len(CATCH), "1 is also the most there is"
    for number in ("-0.75", "-1/11", "optimal 1"):
        assert number in str(Catch.__doc__)


def test_one_picture_of_catch_is_not_enough() -> None:
    pictures = {sideways: Catch().draw((3, 4, sideways, 2)).tobytes() for sideways in (-1, 0, 1)}
    assert len(set(pictures.values())) == 1
    assert len({landing((8, 4, sideways, 2)) for sideways in (-1, 0, 1)}) == 3
    places: dict[tuple[int, int], set[int]] = defaultdict(set)
    for start in CATCH:
        places[start[1], Catch().advance(start, 1)[0][1]].add(landing(start))
    assert all(len(landings) == 1 for landings in places.values()), "but two are"


def test_the_last_picture_of_catch_shows_its_reward() -> None:
    game = Catch()
    for column in range(8):
        for paddle in range(8):
            state = (11, column, 0, paddle)
            picture = game.draw(state)
            caught = bool((picture[27, :, 0] == picture[28, :, 1]).all())  # white has red, cyan green
            assert {game.advance(state, action)[1:] for action in range(3)} == {(1.0 if caught else -1.0, True)}


@pytest.mark.parametrize("delay", [6, 12])
def test_memory_needs_memory(delay: int) -> None:
    game = Memory(delay=delay)
    assert beginnings(game, 200) == set(DOORS)
    assert random_value(game, DOORS, delay + 3) == pytest.approx(0)
    assert value(game, DOORS, lambda seen: seen[0][1]) == [1.0] * len(DOORS)

    def pictures(door: int, action: int, shown: int = 0) -> list[bytes]:
        state, over, seen = (0, door, -1, shown), False, []
        while not over:
            seen.append(game.draw(state).tobytes())
            state, _, over = game.advance(state, action)
        return seen

    # The best that can be done by the deciding picture alone: for each picture the action that is right more often.
    answers: dict[bytes, list[int]] = defaultdict(list)
    for start in DOORS:
        answers[pictures(start[1], 0, start[3])[delay + 1]].append(start[1])
    assert sum(abs(len(doors) - 2 * sum(doors)) for doors in answers.values()) / len(DOORS) == 0.25

    up, down = pictures(0, 0), pictures(1, 0)
    same = [one == other for one, other in zip(up, down, strict=True)]
    assert same == [False, False] + [True] * delay + [False]
    assert up[:-1] == pictures(0, 1)[:-1], "actions leave no trace in the pictures before the last"
    ends = {(door, action): pictures(door, action)[-1] for door in (0, 1) for action in (0, 1)}
    assert len(set(ends.values())) == 4, "the last one shows its reward"
    assert len(set(up)) == len(up), "the walker shows how far it is"
    assert [one == other for one, other in zip(up, pictures(0, 0, shown=1), strict=True)].count(False) == 1


def test_memory_spans_what_the_documentation_says() -> None:
    """The deciding picture is number t; LMamba sees t-3 .. t, a dream's window t-7 .. t, acting t-16 .. t-1."""
    spans = {id_: gymnasium.make(id_).unwrapped.delay for id_ in IDS[1:3]}
    assert spans == {"glamkit/Memory-v0": 6, "glamkit/LongMemory-v0": 12}


# --- gymnasium's side


@pytest.mark.parametrize("game", IDS)
def test_gymnasium_accepts_the_games(game: str) -> None:
    env = gymnasium.make(game, render_mode="rgb_array")
    gymnasium_check(env.unwrapped)
    first, _ = env.reset(seed=3)
    assert np.array_equal(env.render(), first)
    assert (first.shape, first.dtype) == ((SIZE, SIZE, 3), np.uint8)
    states = [env.reset(seed=3 if n == 0 else None)[1] == {} and env.unwrapped.state for n in range(20)]
    assert len(set(states)) > 1
    assert states[0] == (env.reset(seed=3) and env.unwrapped.state)


@pytest.mark.parametrize("game", IDS)
def test_the_games_keep_their_promises(game: str) -> None:
    assert [check for check in check_env(EnvConfig(game=game, image_size=32), seed=1) if not check.passed] == []


@pytest.mark.parametrize("game", IDS)
def test_the_agent_sees_them_unresized_and_saves_them(game: str) -> None:
    config = EnvConfig(game=game, image_size=32)
    env, fresh, random = make_env(config), make_env(config), np.random.default_rng(0)
    assert np.array_equal(env.reset(4), env._game.draw(env._game.state))
    for _ in range(5):
        env.step(1)
    fresh.restore(env.clone())
    for _ in range(60):
        action = int(random.integers(env.num_actions))
        one, two = env.step(action), fresh.step(action)
        assert equal(one, two)
        assert env._game.state == fresh._game.state
        if one.ended:
            assert np.array_equal(env.reset(), fresh.reset())
    assert env.action_names == list(env._game.actions)


def test_the_games_open_by_name_alone() -> None:
    program = (
        "from glamkit.config import EnvConfig\nfrom glamkit.envs.registry import make_env\n"
        f"for game in {IDS}: print(make_env(EnvConfig(game=game)).num_actions)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "2", "2"]
    with pytest.raises(GlamkitError, match=r"did you mean 'glamkit/Catch-v0'"):
        resolve_game("glamkit/Cach-v0")


def test_a_game_of_catch_ends_after_twelve_steps() -> None:
    games = Games(EnvConfig(game="glamkit/Catch-v0", image_size=32))
    games.reset(np.arange(3))
    steps = [games.step(np.ones(3, int)) for _ in range(13)]
    assert [bool(ended.all()) for *_, ended in steps] == [False] * 11 + [True, True]
    assert set(steps[11][1]) <= {-1.0, 1.0}


# --- pictures


def size_of(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of what has a colour, which must be a filled rectangle."""
    rows, columns = np.nonzero((picture == color).all(-1))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert len(rows) == height * width
    return int(height), int(width)


def test_things_are_big_bright_and_where_the_state_says() -> None:
    picture = Catch().draw((2, 5, 1, 3))
    assert (size_of(picture, WHITE), size_of(picture, CYAN)) == ((4, 4), (4, 4))
    assert tuple(picture[4, 5 * 4]) == WHITE
    assert tuple(picture[31, 3 * 4]) == CYAN
    tops = [np.flatnonzero((Catch().draw((row, 5, 1, 3)) == WHITE).all(-1).any(1))[0] for row in range(12)]
    assert tops[0] == 0 and tops[-1] == 24 and set(np.diff(tops)) == {2, 3}
    for door in (0, 1):
        picture = Memory().draw((1, door, -1, 1))
        assert (size_of(picture, YELLOW), size_of(picture, WHITE)) == ((8, 8), (4, 4))
        assert tuple(picture[31 * door, 0]) == YELLOW
    assert tuple(Memory().draw((7, 0, -1, 0))[16, 27]) == WHITE, "at the end the walker stands before the doors"


def test_every_documented_number_is_tested_here() -> None:
    numbers = {
        game.__name__: re.findall(r"-?\d[\d./]*", str(game.__doc__).split("Mean return")[1].split("State")[0])
        for game in (Catch, Memory)
    }
    assert {name: [number.rstrip(".") for number in result] for name, result in numbers.items()} == {
        "Catch": ["-0.75", "-1/11", "1"],
        "Memory": ["0", "0.25", "1"],
    }
