"""Opening games: names, what is refused, several at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from square import SQUARE, Square, equal, square

from glamkit.config import EnvConfig
from glamkit.envs.registry import Outcome, VectorEnv, make_env, make_vector, resolve_game
from glamkit.errors import GlamkitError


@pytest.mark.parametrize("name", ["Pong", "RoadRunner", "ALE/Pong-v5"])
def test_atari_games_go_by_their_plain_name(name: str) -> None:
    assert resolve_game(name) == f"ALE/{name.removeprefix('ALE/').removesuffix('-v5')}-v5"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Pongg", "unknown game 'Pongg'; did you mean 'Pong'"),
        ("roadrunner", "did you mean 'RoadRunner'"),
        ("ALE/Pong-v4", "unknown game 'ALE/Pong-v4'"),
        ("Cart-pole-v1", "'CartPole-v1'"),
        ("PongNoFrameskip-v4", "outdated id; use 'Pong'"),
        ("Pong-v0", "outdated id; use 'Pong'"),
        ("PongDeterministic-v4", "unknown game 'PongDeterministic-v4'; use 'Pong'."),
        ("ALE/Pong-v4", "unknown game 'ALE/Pong-v4'; use 'Pong'."),
        ("ALE/Pong-ram-v5", "unknown game 'ALE/Pong-ram-v5'; use 'Pong'."),
        ("Catch", "unknown game 'Catch'; use 'glamkit/Catch-v0'."),
        ("glamkit/Catch", "unknown game 'glamkit/Catch'; use 'glamkit/Catch-v0'."),
        ("Catch-v1", "unknown game 'Catch-v1'; use 'glamkit/Catch-v0'."),
        (
            "CartPole-v1",
            "register it inside gymnasium.wrappers.AddRenderObservation to play from its rendered pictures",
        ),
        ("", "unknown game ''; allowed: Adventure, AirRaid"),
        ("no_such_module:Pong", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        (":Pong", "cannot be imported"),
        ("CartPole-v1", "CartPole-v1 cannot be played: its observations are Box (4,) float32, not images"),
        ("FrozenLake-v1", "its observations are Discrete int64, not images"),
        ("Blackjack-v1", "its observations are Tuple, not images"),
    ],
)
def test_other_names_are_refused_in_one_sentence(name: str, hint: str) -> None:
    for attempt in (
        resolve_game,
        lambda game: make_env(EnvConfig(game=game)),
        lambda game: make_vector(EnvConfig(game=game), 2),
    ):
        if name == "":
            attempt = resolve_game  # the config itself refuses an empty text
        with pytest.raises(GlamkitError) as caught:
            attempt(name)
        assert hint in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_module_can_register_the_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import gymnasium\nfrom square import Square\ngymnasium.register('mine/Late-v0', Square)\n"
    (tmp_path / "late_game.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_game("late_game:mine/Late-v0") == "late_game:mine/Late-v0"
    assert make_env(EnvConfig(game="late_game:mine/Late-v0")).num_actions == 3
    with pytest.raises(GlamkitError, match=r"did you mean 'mine/Late-v0'"):
        resolve_game("late_game:mine/Latte-v0")


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
    with pytest.raises(GlamkitError, match=rf"^the module of 'broken_game:mine/X-v0' cannot be imported: {message}\.$"):
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


@pytest.mark.parametrize(
    "opening",
    [resolve_game, lambda game: make_env(EnvConfig(game=game)), lambda game: make_vector(EnvConfig(game=game), 2)],
)
def test_a_missing_rom_is_one_sentence_with_a_mend(
    opening: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Path:
        raise FileNotFoundError(2, "No such file or directory", f"{name}.bin")

    monkeypatch.setattr("ale_py.roms.get_rom_path", missing)
    sentence = r"^the ROM of Pong cannot be opened \(No such file or directory\); to mend it: "
    with pytest.raises(GlamkitError, match=sentence + "pip install --force-reinstall --no-deps ale-py"):
        opening("Pong")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(GlamkitError, match=sentence + "unset ALE_ROMS_DIR"):
        opening("Pong")


@pytest.mark.parametrize(
    ("space", "value", "complaint"),
    [
        ("observation_space", Box(0, 1, (8, 8, 3), np.float32), "observations are Box (8, 8, 3) float32"),
        ("observation_space", Box(0, 255, (3, 8, 8), np.uint8), "observations are Box (3, 8, 8) uint8"),
        ("observation_space", Box(0, 255, (128,), np.uint8), "observations are Box (128,) uint8"),
        ("observation_space", Box(0, 255, (8, 8, 4), np.uint8), "observations are Box (8, 8, 4) uint8"),
        ("observation_space", Box(0, 255, (0, 8, 3), np.uint8), "observations are Box (0, 8, 3) uint8"),
        ("action_space", Box(-1, 1, (2,)), "actions are Box, not Discrete"),
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


@pytest.mark.parametrize("opening", ["make_env(config).reset(0)", "make_vector(config, 1).reset(np.array([0]))"])
def test_opening_a_game_writes_nothing(opening: str) -> None:
    imports = "import numpy as np\nfrom glamkit.config import EnvConfig\nfrom glamkit.envs import make_env, make_vector"
    program = f"{imports}\nconfig = EnvConfig(game='Pong')\n{opening}\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def compare_with_single(config: EnvConfig, steps: int, count: int = 2) -> tuple[int, int]:
    """Plays a vector and single environments side by side; returns how many ended and how many terminated."""
    vector, singles, random = make_vector(config, count), [make_env(config) for _ in range(count)], 0
    generator = np.random.default_rng(random)
    seeds = np.random.SeedSequence(7).generate_state(count) >> 1
    frames = vector.reset(seeds)
    assert np.array_equal(frames, [env.reset(seed) for env, seed in zip(singles, seeds.tolist(), strict=True)])
    over, terminations = np.zeros(count, bool), 0
    for _ in range(steps):
        actions = generator.integers(vector.num_actions, size=count)
        previous = frames
        frames, rewards, terminated, ended = vector.step(actions)
        assert (rewards.dtype, terminated.dtype, ended.dtype) == (np.float64, bool, bool)
        for row, env in enumerate(singles):
            here = Outcome(frames[row], rewards[row], terminated[row], ended[row])
            if over[row]:
                assert equal(here, Outcome(previous[row], 0.0, False, True)), "an ended game stands still"
            else:
                assert equal(here, env.step(int(actions[row])))
                over[row] = ended[row]
        terminations += terminated.sum()
    vector.close()
    return int(over.sum()), int(terminations)


@pytest.mark.parametrize(
    ("game", "skip", "life_loss", "steps"),
    [("Breakout", 1, True, 1000), ("Breakout", 4, True, 250), ("MsPacman", 4, False, 500)],
)
def test_atari_vectors_play_as_single_environments_do(game: str, skip: int, life_loss: bool, steps: int) -> None:
    config = EnvConfig(game=game, sticky=0, frame_skip=skip, life_loss=life_loss)
    ended, terminated = compare_with_single(config, steps)
    assert ended > 0
    assert terminated > ended if life_loss else terminated == ended


def test_other_vectors_play_as_single_environments_do() -> None:
    assert compare_with_single(square(length=25), 40) == (2, 2)


@pytest.mark.parametrize("game", ["Pong", SQUARE])
def test_seeds_and_actions_fix_what_a_vector_plays(game: str) -> None:
    square(length=100)

    def film(vector: VectorEnv, seed: int) -> np.ndarray:
        frames = [vector.reset(np.array([seed, seed + 1]))]
        return np.stack(frames + [vector.step(np.array([step % 3] * 2))[0] for step in range(40)])

    one, two = (make_vector(EnvConfig(game=game, image_size=32), 2) for _ in range(2))
    first, second = film(one, 1), film(one, 5)
    assert np.array_equal(film(two, 1), first)
    assert np.array_equal(film(two, 5), second)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[:, 0], first[:, 1])
    for actions in ([0, 3 if game == SQUARE else 6], [0], [0, -1]):
        with pytest.raises(GlamkitError, match="actions must be 2 whole numbers"):
            one.step(np.array(actions))
    for vector in (one, two):
        vector.close()
