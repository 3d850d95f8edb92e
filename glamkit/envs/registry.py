"""Opening games: by name, singly for training or several at once for evaluation.

Atari games go by their plain name ("Pong"), the built-in ones by theirs ("glamkit/Catch-v0"); any other gymnasium id
serves if its observations are images and its actions Discrete. ``module:EnvId`` first imports the module of a game.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import warnings

import ale_py
import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Box, Discrete

from glamkit.config import EnvConfig, game_name
from glamkit.envs import tiny_games
from glamkit.envs.pixel_env import Atari, Outcome, PixelEnv, missing_rom
from glamkit.errors import GlamkitError, nearest, reason

__all__ = ["Outcome", "PixelEnv", "VectorEnv", "make_env", "make_vector", "resolve_game"]

gymnasium.register_envs(ale_py)
gymnasium.register_envs(tiny_games)

ATARI = "ale_py.env:AtariEnv"
RENDER = "register it inside gymnasium.wrappers.AddRenderObservation to play from its rendered pictures"


def resolve_game(name: str) -> str:
    """The gymnasium id behind a game's name, after checking that it can be played.

    Raises:
        GlamkitError: there is no such game (with the nearest names), it cannot be opened here, its ROM is missing,
            its observations are not images or its actions not Discrete.
    """
    game_id = _look_up(name)
    if game_id.startswith("ALE/"):
        try:
            ale_py.roms.get_rom_path(gymnasium.spec(game_id).kwargs["game"])
        except OSError as error:
            raise missing_rom(name, error) from error
    else:
        _open(name, game_id).close()
    return game_id


def make_env(config: EnvConfig) -> PixelEnv:
    """Opens the game of a config; errors as in `resolve_game`."""
    game_id = _look_up(config.game)
    if game_id.startswith("ALE/"):
        return Atari(config, game_id)
    return PixelEnv(config, _open(config.game, game_id))


def make_vector(config: EnvConfig, count: int, no_ops: int = 0) -> VectorEnv:
    """Opens `count` copies of the game of a config.

    Args:
        config: the game and how it is seen.
        count: copies.
        no_ops: each episode of an Atari game starts with up to so many frames in which nothing is done.

    Raises:
        GlamkitError: as in `resolve_game`.
    """
    if is_atari(config.game):
        return AtariVector(config, count, no_ops)
    return ListVector(config, count)


def is_atari(name: str) -> bool:
    """Whether frame skip, sticky actions, lives and no-op starts mean anything to a game; errors as in `make_env`."""
    return _look_up(name).startswith("ALE/")


def _look_up(name: str) -> str:
    module, colon, registered = name.rpartition(":")
    if colon:
        _import(module, name)
    if f"ALE/{registered}-v5" in gymnasium.registry:
        if game_name(name) == registered:
            return f"ALE/{registered}-v5"
        raise GlamkitError(f"{name!r} is the Atari game {registered!r} under a second name; use {registered!r}.")
    spec = gymnasium.registry.get(registered)
    if spec is None:
        raise GlamkitError(f"unknown game {name!r}; {_hint(registered)}")
    if spec.entry_point == ATARI and spec.namespace != "ALE":
        # The ids of 2016-2021 hide their own frame skips and sticky actions; here the config decides those.
        plain = re.sub("NoFrameskip|Deterministic|-ram", "", spec.name)
        raise GlamkitError(
            f"{name!r} is an outdated id; use {plain!r}, with env.frame_skip and env.sticky as you like."
        )
    return name if colon and spec.namespace != "ALE" else registered


def _import(module: str, name: str) -> None:
    """Imports the module that registers a game; whatever goes wrong in it becomes one sentence."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        kind = type(error).__name__
        raise GlamkitError(f"the module of {name!r} cannot be imported: {kind}: {reason(error)}.") from error


def _hint(registered: str) -> str:
    """The name to use instead: the same game under its right name, or else the nearest ones."""
    wanted = _bare(registered)
    same = [known for known in _names() if wanted and _bare(known) == wanted]
    return f"use {same[-1]!r}." if same else nearest(registered, _names())  # the newest version


def _bare(name: str) -> str:
    """A game's name without namespace, version and variant."""
    return re.sub("NoFrameskip|Deterministic|-ram", "", re.sub(r"-v\d+$", "", name.rpartition("/")[2]))


def _names() -> list[str]:
    """What people can ask for: Atari games by plain name, then all other gymnasium ids."""
    atari = [spec.name for spec in gymnasium.registry.values() if spec.namespace == "ALE"]
    return sorted(atari) + [key for key, spec in gymnasium.registry.items() if spec.entry_point != ATARI]


def _open(name: str, game_id: str) -> gymnasium.Env:
    """Makes an environment that is not Atari's and checks that its spaces suit the agent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on versions and spaces that the checks below make definite
            env = gymnasium.make(game_id, disable_env_checker=True)
    except Exception as error:  # whatever a stranger's constructor raises, the user needs the reason in one line
        raise GlamkitError(f"{name} cannot be opened: {reason(error)}.") from error
    frames, actions = env.observation_space, env.action_space
    shape = getattr(frames, "shape", None) or ()
    image = isinstance(frames, Box) and frames.dtype == np.uint8 and min(shape, default=0) > 0
    if not (image and (len(shape) == 2 or shape[2:] in [(1,), (3,)])):
        kind = f"{type(frames).__name__} {shape} {frames.dtype}".replace(" None", "").replace(" ()", "")
        problem = f"its observations are {kind}, not images: Box (height, width, 3) or (height, width) uint8; {RENDER}"
    elif not isinstance(actions, Discrete):
        problem = f"its actions are {type(actions).__name__}, not Discrete"
    else:
        return env
    env.close()
    raise GlamkitError(f"{name} cannot be played: {problem}.")


class VectorEnv:
    """Several copies of a game in step, for evaluation: one episode each until `reset`.

    A copy that has ended stands still: it keeps its last frame, brings no reward and no termination, and stays
    `ended`. Whatever the machinery below does with it then (ALE starts a new game) cannot reach the caller.
    A copy whose game crashes ends there, and its episode does not count; the next `reset` opens its game anew.

    Attributes:
        num_actions: actions are 0 .. num_actions - 1.
        crashed: why, for each copy whose game crashed since the last `reset`, or returned what it must not.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        self._config, self._count = config, count
        self._frames = np.zeros((count, config.image_size, config.image_size, 3), np.uint8)
        self._ended = np.ones(count, bool)
        self.crashed: dict[int, str] = {}
        self.num_actions = 0

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Starts a game in every copy; returns (count, H, W, 3) uint8.

        Args:
            seeds: (count,) whole numbers below 2**31, ALE takes no larger ones.
        """
        self._frames = self._start(seeds)
        self._ended = np.zeros(self._count, bool)
        self._ended[list(self.crashed)] = True
        return self._frames.copy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One agent step in every copy that has not ended.

        Args:
            actions: (count,) whole numbers; those of ended copies are ignored.

        Returns:
            observations (count, H, W, 3) uint8, rewards (count,) float64, terminated and ended (count,) bool,
            with the meaning of `Outcome`.
        """
        actions = np.asarray(actions)
        if actions.shape != (self._count,) or not np.all((actions >= 0) & (actions < self.num_actions)):
            raise GlamkitError(f"actions must be {self._count} whole numbers in 0 to {self.num_actions - 1}.")
        live = ~self._ended
        frames, rewards, terminated, ended = self._advance(actions.astype(np.int64), live)
        self._frames = np.where(live[:, None, None, None], frames, self._frames)
        self._ended = self._ended | ended
        return self._frames.copy(), np.where(live, rewards, 0.0), live & terminated, self._ended.copy()

    def close(self) -> None:
        """Frees the games."""

    def _start(self, seeds: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _advance(self, actions: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, ...]:
        raise NotImplementedError


class AtariVector(VectorEnv):
    """ALE's own vector environment: C++ threads; frame skip, pooling and resizing as in the single one."""

    def __init__(self, config: EnvConfig, count: int, no_ops: int) -> None:
        super().__init__(config, count)
        spec = gymnasium.spec(_look_up(config.game))
        options = {
            "img_height": config.image_size,
            "img_width": config.image_size,
            "grayscale": False,
            "stack_num": 1,
            "frameskip": config.frame_skip,
            "maxpool": True,
            "noop_max": no_ops,
            "use_fire_reset": False,
            "reward_clipping": False,
            "episodic_life": False,
            "repeat_action_probability": config.sticky,
            "max_num_frames_per_episode": spec.kwargs["max_num_frames_per_episode"],
            # A copy that has ended starts its next game at its next step. The base class never shows that.
            "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
        }
        try:
            self._env = AtariVectorEnv(spec.kwargs["game"], count, **options)
        except OSError as error:
            raise missing_rom(config.game, error) from error
        self.num_actions = len(self._env.ale.get_action_set())
        self._lives = np.zeros(count, np.int64)

    def close(self) -> None:
        """Frees the games and their threads."""
        self._env.close()

    def _start(self, seeds: np.ndarray) -> np.ndarray:
        frames, info = self._env.reset(seed=seeds)
        self._lives = info["lives"].copy()
        return frames[:, 0].copy()

    def _advance(self, actions: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, ...]:  # noqa: ARG002
        frames, rewards, terminated, truncated, info = self._env.step(actions)
        lost = info["lives"] < self._lives
        self._lives = info["lives"].copy()
        stored = terminated | (lost & self._config.life_loss)
        return frames[:, 0], rewards.astype(np.float64), stored, terminated | truncated


class ListVector(VectorEnv):
    """Any other game: copies stepped one after the other; those that have ended are left alone."""

    def __init__(self, config: EnvConfig, count: int) -> None:
        super().__init__(config, count)
        self._envs: list[PixelEnv] = []
        try:
            self._envs += (make_env(config) for _ in range(count))
            self.num_actions = self._envs[0].num_actions
        except GlamkitError:
            self.close()
            raise

    def close(self) -> None:
        """Frees the games."""
        for env in self._envs:
            with contextlib.suppress(Exception):  # a game that crashed may be beyond closing
                env.close()

    def _start(self, seeds: np.ndarray) -> np.ndarray:
        frames = np.zeros_like(self._frames)
        for row in self.crashed:
            with contextlib.suppress(Exception):  # as above
                self._envs[row].close()
            self._envs[row] = make_env(self._config)
        self.crashed = {}
        for row, seed in enumerate(seeds.tolist()):
            try:
                frames[row] = self._envs[row].reset(seed)
            except Exception as error:  # a stranger's game may raise whatever it likes
                self.crashed[row] = reason(error)
        return frames

    def _advance(self, actions: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, ...]:
        frames, rewards = self._frames.copy(), np.zeros(self._count)
        terminated, ended = np.zeros(self._count, bool), np.zeros(self._count, bool)
        for row in np.flatnonzero(live):
            try:
                outcome = self._envs[row].step(int(actions[row]))
            except Exception as error:  # as above
                self.crashed[int(row)], ended[row] = reason(error), True
                continue
            frames[row], rewards[row], terminated[row], ended[row] = outcome
        return frames, rewards, terminated, ended
