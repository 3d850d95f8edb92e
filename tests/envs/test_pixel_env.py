"""One game: frames, lives, sticky actions, seeds, saving."""

from __future__ import annotations

import io
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from square import equal, play, square

from glamkit.config import EnvConfig
from glamkit.envs.registry import PixelEnv, make_env
from glamkit.errors import GlamkitError


@pytest.mark.parametrize("skip", [1, 2, 4])
def test_a_frame_is_the_maximum_of_the_last_two_resized_by_area(skip: int) -> None:
    config = EnvConfig(game="Breakout", sticky=0, frame_skip=skip)
    env, single = make_env(config), make_env(EnvConfig(game="Breakout", sticky=0, frame_skip=1))
    assert np.array_equal(env.reset(3), single.reset(3))
    pooled, random = 0, np.random.default_rng(0)
    for _ in range(60):
        action = int(random.integers(env.num_actions))
        screens, reward = [], 0.0
        for _ in range(skip):
            reward += single.step(action).reward
            screens.append(single.screens()[-1])
        expected = np.max(screens[-2:], axis=0)
        outcome = env.step(action)
        assert np.array_equal(outcome.observation, cv2.resize(expected, (64, 64), interpolation=cv2.INTER_AREA))
        assert outcome.reward == reward
        assert np.array_equal(env.screens(), screens)
        pooled += not np.array_equal(expected, screens[-1])
    assert pooled > 5 or skip == 1, "the two frames never differed, so this shows nothing"


@pytest.mark.parametrize("shape", [(20, 40, 3), (20, 40, 1), (20, 40), (16, 16, 3), (16, 16)])
def test_images_of_any_kind_become_square_rgb(shape: tuple[int, ...]) -> None:
    env = make_env(square(shape=shape))
    frame = env.reset(0)
    rgb = np.broadcast_to(env._game.frame.reshape(*shape[:2], -1), (*shape[:2], 3))
    expected = rgb if shape[:2] == (16, 16) else cv2.resize(rgb.copy(), (16, 16), interpolation=cv2.INTER_AREA)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, expected)
    assert frame.max() > 50
    assert np.array_equal(env.screens()[0], rgb)


def test_frames_are_the_callers_own() -> None:
    env = make_env(square(shape=(16, 16, 3)))
    frame = env.reset(0)
    before = frame.copy()
    frame[:] = 7
    assert np.array_equal(env.screens()[0], before)
    env._game.frame[:] = 9
    assert np.array_equal(env.screens()[0], before)


def test_actions_and_steps_out_of_turn_are_refused() -> None:
    env = make_env(square(length=2))
    assert env.action_names == ["action 0", "action 1", "action 2"]
    with pytest.raises(GlamkitError, match="reset"):
        env.step(0)
    with pytest.raises(GlamkitError, match="reset"):
        env.clone()
    env.reset()
    for action in (-1, 3, 1.5):
        with pytest.raises(GlamkitError, match="is not one of 0 to 2"):
            env.step(action)  # type: ignore[arg-type]
    assert [env.step(action).reward for action in (0, 2)] == [1.0, 3.0], "the space's start is added"
    with pytest.raises(GlamkitError, match="is over"):
        env.step(0)


def test_a_time_limit_ends_without_termination() -> None:
    env = make_env(square(max_episode_steps=5))
    for _ in range(2):
        env.reset()
        outcomes = [env.step(0) for _ in range(5)]
        assert [(outcome.terminated, outcome.ended) for outcome in outcomes] == [(False, False)] * 4 + [(False, True)]


# --- Atari: lives, sticky actions


@pytest.mark.parametrize("life_loss", [True, False])
def test_a_lost_life_is_a_termination_but_not_an_end(life_loss: bool) -> None:
    env, random = make_env(EnvConfig(game="Breakout", life_loss=life_loss)), np.random.default_rng(0)
    env.reset(0)
    lives, terminations = [env.lives], []
    while lives[-1] > 0:
        outcome = env.step(int(random.integers(env.num_actions)))
        lives.append(env.lives)
        terminations.append(outcome.terminated)
        assert outcome.ended == (env.lives == 0)
    assert (lives[0], env.action_names) == (5, ["NOOP", "FIRE", "RIGHT", "LEFT"])
    dropped = [after < before for before, after in pairwise(lives)]
    assert sum(dropped) == 5
    assert terminations == (dropped if life_loss else [False] * (len(dropped) - 1) + [True])


def test_a_gained_life_is_no_termination(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 3, 4, 4, 2])
    monkeypatch.setattr(PixelEnv, "_count_lives", lambda _: next(counts))
    env = make_env(square())
    env.reset(0)
    assert [env.step(0).terminated for _ in range(4)] == [False, False, False, True]


def test_sticky_actions_repeat_the_last_one() -> None:
    def film(sticky: float, actions: tuple[int, int]) -> list[np.ndarray]:
        env = make_env(EnvConfig(game="Pong", sticky=sticky))
        env.reset(0)
        return [env.step(action).observation for _ in range(20) for action in actions]

    free, quarter, stuck, still = film(0, (2, 3)), film(0.25, (2, 3)), film(1, (2, 3)), film(0, (0, 0))
    assert np.array_equal(stuck, still), "always repeating means that the first no-op never ends"
    assert not np.array_equal(free, still)
    assert not np.array_equal(free, quarter)


# --- seeds and saving


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_a_seed_fixes_the_whole_sequence_of_games(game: str) -> None:
    first, second, third = (make_env(EnvConfig(game=game)) for _ in range(3))
    third_frames = [third.reset(2)]
    assert np.array_equal(first.reset(1), second.reset(1))
    random, seen = np.random.default_rng(0), []
    for _ in range(250):
        action = int(random.integers(first.num_actions))
        one, two = first.step(action), second.step(action)
        assert equal(one, two)
        seen.append(one.observation)
        third_frames.append(third.step(action).observation if third.running else third.reset())
        if one.ended:
            assert np.array_equal(first.reset(), second.reset())
    assert not np.array_equal(seen[:100], third_frames[1:101])


def test_episodes_of_one_run_differ() -> None:
    env, films = make_env(EnvConfig(game="Pong")), []
    for _ in range(2):
        env.reset(None if films else 1)
        films.append(np.stack([env.step(2).observation for _ in range(40)]))
    assert not np.array_equal(*films)


# Q*bert and Yars' Revenge are here because ALE's own saved states do not continue them to the bit.
@pytest.mark.parametrize(
    ("game", "before"), [("Pong", 0), ("Pong", 60), ("Breakout", 230), ("Qbert", 51), ("YarsRevenge", 51)]
)
def test_a_saved_game_goes_on_to_the_bit_in_a_fresh_environment(game: str, before: int) -> None:
    config, random = EnvConfig(game=game), np.random.default_rng(before)
    env = make_env(config)
    env.reset(5)
    if before:
        play(env, before, random)
    file = io.BytesIO()
    torch.save(env.clone(), file)
    file.seek(0)
    fresh = make_env(config)
    fresh.reset(6)
    fresh.restore(torch.load(file, weights_only=True))
    ends = 0
    for _ in range(300):
        action = int(random.integers(env.num_actions))
        one, two = env.step(action), fresh.step(action)
        assert equal(one, two)
        assert env.lives == fresh.lives
        if one.ended:
            ends += 1
            assert np.array_equal(env.reset(), fresh.reset())
    assert ends > 0 or game != "Breakout", "the comparison has to go across an episode's end"


def test_a_saved_end_is_still_an_end() -> None:
    config = square(length=4)
    env, fresh = make_env(config), make_env(config)
    env.reset(1)
    last = play(env, 4, np.random.default_rng(0))
    assert last.ended
    assert np.array_equal(fresh.restore(env.clone()), last.observation)
    with pytest.raises(GlamkitError, match="is over"):
        fresh.step(0)
    assert np.array_equal(fresh.reset(), env.reset())


def test_a_game_that_does_not_replay_is_refused() -> None:
    config = square(flaw="unseeded")
    env, fresh = make_env(config), make_env(config)
    env.reset(1)
    env.step(0)
    with pytest.raises(GlamkitError, match="replaying it from its seed gave another game"):
        fresh.restore(env.clone())
    with pytest.raises(GlamkitError, match=r"a saved game of .* cannot go on in Pong"):
        make_env(EnvConfig(game="Pong")).restore(env.clone())
