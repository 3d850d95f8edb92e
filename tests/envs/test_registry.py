"""Opening games: names, what is refused, several at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from square import SQUARE, Square, square

from glamkit.config import EnvConfig, preset
from glamkit.envs.check import check_env
from glamkit.envs.registry import Games, make_env, resolve_game
from glamkit.errors import GlamkitError


@pytest.mark.parametrize("name", ["Pong", "RoadRunner", "ALE/Pong-v5"])
def test_atari_games_go_by_their_plain_name(name: str) -> None:
    assert resolve_game(name) == f"ALE/{name.removeprefix('ALE/').removesuffix('-v5')}-v5"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Pongg", "unknown game 'Pongg'; did you mean 'Pong'"),
        ("roadrunner", "did you mean 'RoadRunner'"),
        ("Cart-pole-v1", "'CartPole-v1'"),
        ("PongNoFrameskip-v4", "unknown game 'PongNoFrameskip-v4'; did you mean 'Pong'?"),
        ("Pong-v0", "unknown game 'Pong-v0'; did you mean 'Pong'?"),
        ("PongDeterministic-v4", "unknown game 'PongDeterministic-v4'; did you mean 'Pong'?"),
        ("ALE/Pong-v4", "unknown game 'ALE/Pong-v4'; did you mean 'Pong'?"),
        ("ALE/Pong-ram-v5", "unknown game 'ALE/Pong-ram-v5'; did you mean 'Pong'?"),
        ("Catch", "unknown game 'Catch'; did you mean 'glamkit/Catch-v0'?"),
        ("glamkit/Catch", "unknown game 'glamkit/Catch'; did you mean 'glamkit/Catch-v0'?"),
        ("Catch-v1", "unknown game 'Catch-v1'; did you mean 'glamkit/Catch-v0'?"),
        (
            "CartPole-v1",
            "register it inside gymnasium.wrappers.AddRenderObservation to play from its rendered pictures",
        ),
        ("", "unknown game ''; allowed: glamkit"),
        (
            "no_such_module:Pong",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'; is its folder in PYTHONPATH?",
        ),
        ("os:Catch", "unknown game 'os:Catch'; did you mean 'glamkit/Catch-v0'?"),
        (":Pong", "cannot be imported"),
        (
            "CartPole-v1",
            "CartPole-v1 cannot be played: its observations are Box (4,) float32 and its actions Discrete, not",
        ),
        ("FrozenLake-v1", "its observations are Discrete () int64"),
        ("Blackjack-v1", "its observations are Tuple () None"),
    ],
)
def test_other_names_are_refused_in_one_sentence(name: str, hint: str) -> None:
    for attempt in (resolve_game, lambda game: make_env(EnvConfig(game=game))):
        if name == "":
            attempt = resolve_game  # the config itself refuses an empty text
        with pytest.raises(GlamkitError) as caught:
            attempt(name)
        assert hint in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_game_is_opened_by_its_name_or_by_either_config() -> None:
    config = preset("debug", game=SQUARE)
    square()
    assert [make_env(given).config for given in (SQUARE, config, config.env)] == [EnvConfig(SQUARE), *2 * [config.env]]
    for given in (gymnasium.make(SQUARE), None, make_env):  # a wrapper of gymnasium's has an `env`, as a config does
        for opening in (make_env, check_env):
            with pytest.raises(
                GlamkitError, match=r"^\w+ is no game: register yours, and open it by its name or a config"
            ):
                opening(given)  # type: ignore[operator]


def test_a_module_can_register_the_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import gymnasium\nfrom square import Square\ngymnasium.register('mine/Late-v0', Square)\n"
    (tmp_path / "late_game.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_game("late_game:mine/Late-v0") == "late_game:mine/Late-v0"
    assert make_env(EnvConfig(game="late_game:mine/Late-v0")).num_actions == 3
    for wrong in ("mine/Latte-v0", "mine/Late", "late", "Late-v1"):
        with pytest.raises(GlamkitError, match=r"did you mean 'mine/Late-v0'\?"):
            resolve_game(f"late_game:{wrong}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import gymnasium\nx = = 1\n", r"SyntaxError: invalid syntax \(broken_game\.py, line 2\)"),
        ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_does_not_import_is_one_sentence(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_game.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        GlamkitError, match=rf"^the module of 'broken_game:mine/X-v0' cannot be imported: {message}[.;]"
    ):
        resolve_game("broken_game:mine/X-v0")


def test_a_game_that_draws_itself_plays_from_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out that is named for games such as CartPole."""
    text = (
        "import gymnasium\n"
        "from gymnasium.wrappers import AddRenderObservation\n"
        "def make(**options):\n"
        "    return AddRenderObservation(gymnasium.make('glamkit/Catch-v0', render_mode='rgb_array'))\n"
        "gymnasium.register('mine/Drawn-v0', make)\n"
    )
    (tmp_path / "drawn_game.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = make_env(EnvConfig(game="drawn_game:mine/Drawn-v0", image_size=32))
    assert env.reset(0).max() == 255 and env.num_actions == 3


def test_a_missing_rom_is_one_sentence_with_a_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise FileNotFoundError(2, "No such file or directory", f"{name}.bin")

    monkeypatch.setattr("ale_py.roms.get_rom_path", missing)
    sentence = r"^Pong cannot be opened: .*No such file or directory.*; its ROM is missing: pip install"
    for opening in (resolve_game, lambda game: make_env(EnvConfig(game=game))):
        with pytest.raises(GlamkitError, match=sentence):
            opening("Pong")


@pytest.mark.parametrize(
    ("space", "value", "complaint"),
    [
        ("observation_space", Box(0, 1, (8, 8, 3), np.float32), "observations are Box (8, 8, 3) float32"),
        ("observation_space", Box(0, 255, (3, 8, 8), np.uint8), "observations are Box (3, 8, 8) uint8"),
        ("observation_space", Box(0, 255, (128,), np.uint8), "observations are Box (128,) uint8"),
        ("observation_space", Box(0, 255, (8, 8, 4), np.uint8), "observations are Box (8, 8, 4) uint8"),
        ("action_space", Box(-1, 1, (2,)), "and its actions Box, not"),
        ("reset", None, ""),
    ],
)
def test_spaces_that_do_not_suit_are_named(space: str, value: Any, complaint: str) -> None:
    class Odd(Square):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, space, value)

    square(Odd)
    if not complaint:
        assert resolve_game(SQUARE) == SQUARE
        return
    with pytest.raises(GlamkitError, match=f"{SQUARE} cannot be played: its ") as caught:
        resolve_game(SQUARE)
    assert complaint in str(caught.value)


def test_what_a_constructor_raises_becomes_one_sentence() -> None:
    square(nonsense=1)
    with pytest.raises(GlamkitError, match=r"Square-v0 cannot be opened: .*nonsense"):
        resolve_game(SQUARE)


def test_opening_a_game_writes_nothing() -> None:
    imports = "from glamkit.config import EnvConfig\nfrom glamkit.envs import make_env"
    program = f"{imports}\nmake_env(EnvConfig(game='Pong')).reset(0)\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("game", ["Breakout", SQUARE])
def test_several_games_play_as_single_ones_do(game: str) -> None:
    config = replace(square(length=25), game=game, frame_skip=4)
    games, singles = Games(config), [make_env(config) for _ in range(2)]
    seeds, random, over = [7, 8], np.random.default_rng(0), [False, False]
    frames = games.reset(np.array(seeds))
    assert np.array_equal(frames, [env.reset(seed) for env, seed in zip(singles, seeds, strict=True)])
    assert not np.array_equal(games.reset(np.array(seeds)), games.reset(np.array([9, 10]))) or game == "Breakout"
    games.reset(np.array(seeds))
    for _ in range(250):
        actions, before = random.integers(singles[0].num_actions, size=2), frames
        frames, rewards, ended = games.step(actions)
        for row, env in enumerate(singles):
            if over[row]:
                assert np.array_equal(frames[row], before[row]) and rewards[row] == 0, "an ended game stands still"
            else:
                outcome = env.step(int(actions[row]))
                assert np.array_equal(frames[row], outcome.observation) and rewards[row] == outcome.reward
                over[row] = outcome.ended
        assert ended.tolist() == over
    assert all(over)
    assert games.reset(np.array([3])).shape[0] == 1, "the last round of an evaluation may be smaller"
    games.close()
