"""Opening games: by name, singly for training or several at once for evaluation.

Atari games go by their plain name ("Pong"), the built-in ones by theirs ("glamkit/Catch-v0"); any other gymnasium id
serves if its observations are images and its actions Discrete. ``module:EnvId`` first imports the module of a game.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import warnings
from typing import Any

import ale_py
import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete

from glamkit.config import Config, EnvConfig
from glamkit.envs import tiny_games
from glamkit.envs.pixel_env import Atari, PixelEnv
from glamkit.errors import GlamkitError, nearest, plain, reason

gymnasium.register_envs(ale_py)
gymnasium.register_envs(tiny_games)
BUILT_IN = frozenset(gymnasium.registry)  # ids for which nothing has to be imported
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)

ATARI = "ale_py.env:AtariEnv"


def resolve_game(name: str) -> str:
    """The gymnasium id behind a game's name, after checking that it can be played.

    Raises:
        GlamkitError: there is no such game (with the nearest names), it cannot be opened here, its observations are
            not images or its actions not Discrete.
    """
    game_id = _look_up(name)
    _open(name, game_id).close()
    return game_id


def make_env(config: str | Config | EnvConfig, no_ops: int = 0) -> PixelEnv:
    """Opens the game of a config, or the one of that name; errors as in `resolve_game`.

    Each episode of an Atari game starts with up to `no_ops` frames in which nothing is done.
    """
    if isinstance(config, str):
        config = EnvConfig(game=config)
    elif isinstance(config, Config):
        config = config.env
    elif not isinstance(config, EnvConfig):  # such as an environment itself
        raise GlamkitError(
            f"{type(config).__name__} is no game: a game is opened by its name, or by a config such as "
            "preset('quick', game='Pong'); register an environment of yours and give its name."
        )
    game_id = _look_up(config.game)
    if game_id.startswith("ALE/"):
        game = _open(config.game, game_id, frameskip=1, repeat_action_probability=config.sticky)
        return Atari(config, game, no_ops)
    return PixelEnv(config, _open(config.game, game_id))


def is_atari(name: str) -> bool:
    """Whether frame skip, sticky actions, lives and no-op starts mean anything to a game; errors as in `make_env`."""
    return _look_up(name).startswith("ALE/")


def _look_up(name: str) -> str:
    module, colon, registered = name.rpartition(":")
    if colon:
        _import(module, name)
    elif f"ALE/{name}-v5" in gymnasium.registry:
        return f"ALE/{name}-v5"
    spec = gymnasium.registry.get(registered)
    if spec is None or _outdated(spec):
        known = [one for one in gymnasium.registry.values() if not _outdated(one)]
        own = {one.id: "" if one.id in BUILT_IN else module + colon for one in known}  # what must be imported before
        names = [one.name if one.namespace == "ALE" else own[one.id] + one.id for one in known]
        names.sort(key=lambda one: ("/" not in one, one))  # of equally near ones the last is named
        raise GlamkitError(f"unknown game {name!r}; {nearest(registered, names, _bare)}")
    return name if colon and spec.namespace != "ALE" else registered


def _outdated(spec: EnvSpec) -> bool:
    """Whether an id is one of 2016-2021, which hide their own frame skips and sticky actions: the config has these."""
    return spec.entry_point == ATARI and spec.namespace != "ALE"


def _bare(name: str) -> str:
    """A game's name without module, namespace, version and variant."""
    return plain(re.sub(r"NoFrameskip|Deterministic|-ram|-v\d+$", "", re.split("[:/]", name)[-1]))


def _import(module: str, name: str) -> None:
    """Imports the module that registers a game; whatever goes wrong in it becomes one sentence."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        why, missing = f"{type(error).__name__}: {reason(error)}", getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing and f"{module}.".startswith(f"{missing}."):
            why += "; name its folder in PYTHONPATH, or type python -m glamkit there instead of glamkit"
        raise GlamkitError(f"the module of {name!r} cannot be imported: {why}.") from error


def _open(name: str, game_id: str, **options: Any) -> gymnasium.Env:
    """Makes an environment and checks that its spaces suit the agent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on versions and spaces that the checks below make definite
            env = gymnasium.make(game_id, disable_env_checker=True, **options)
    except Exception as error:  # whatever a stranger's constructor raises, the user needs the reason in one line
        why = reason(error)
        if game_id.startswith("ALE/") and isinstance(error, OSError):  # as with conda-forge's ale-py, which has no ROMs
            folder = os.environ.get("ALE_ROMS_DIR")
            mend = f"unset ALE_ROMS_DIR, which is {folder!r}" if folder else "pip install --force-reinstall ale-py"
            why = f"its ROM is missing ({why}); to mend it: {mend}"
        raise GlamkitError(f"{name} cannot be opened: {why}.") from error
    frames, actions = env.observation_space, env.action_space
    shape = frames.shape or ()
    if not isinstance(frames, Box) or frames.dtype != np.uint8 or shape[2:] not in ((), (1,), (3,)) or len(shape) < 2:
        kind = f"Box {shape} {frames.dtype}" if isinstance(frames, Box) else type(frames).__name__
        problem = (
            f"its observations are {kind}, not images: Box (height, width, 3) or (height, width) uint8; register it "
            f"inside gymnasium.wrappers.AddRenderObservation to play from its rendered pictures"
        )
    elif np.any(frames.low > 0) or np.any(frames.high < 255):
        problem = "its space declares pictures of another range than 0 to 255; declare that, and return pictures in it"
    elif not isinstance(actions, Discrete):
        problem = f"its actions are {type(actions).__name__}, not Discrete"
    else:
        return env
    env.close()
    raise GlamkitError(f"{name} cannot be played: {problem}.")


class Games:
    """Copies of a game in step, for evaluation: one episode each until `reset`.

    A copy that has ended stands still: it keeps its last frame, brings no reward and stays ended. One whose game
    crashes ends there, and its episode does not count; the next `reset` opens its game anew.

    Args:
        config: the game and how it is seen.
        no_ops: see `make_env`.

    Attributes:
        crashed: why, for each copy whose game crashed since the last `reset`, or returned what it must not.
    """

    def __init__(self, config: EnvConfig, no_ops: int = 0) -> None:
        self._config, self._no_ops = config, no_ops
        self._envs: list[PixelEnv] = []
        self._frames, self._ended = np.zeros(0, np.uint8), np.zeros(0, bool)
        self.crashed: dict[int, str] = {}

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Starts a game from each seed (N,), in as many copies; returns the frames (N, H, W, 3) uint8.

        Raises:
            GlamkitError: as in `make_env`.
        """
        for row in self.crashed:
            _close(self._envs[row])
            self._envs[row] = make_env(self._config, self._no_ops)
        while len(self._envs) < len(seeds):
            self._envs.append(make_env(self._config, self._no_ops))
        size = self._config.image_size
        self._frames, self._ended = np.zeros((len(seeds), size, size, 3), np.uint8), np.zeros(len(seeds), bool)
        self.crashed = {}
        for row, seed in enumerate(seeds.tolist()):
            try:
                self._frames[row] = self._envs[row].reset(seed)
            except Exception as error:  # a stranger's game may raise whatever it likes
                self.crashed[row], self._ended[row] = reason(error), True
        return self._frames.copy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One agent step in every copy that has not ended; actions (N,) of the others are ignored.

        Returns:
            The frames (N, H, W, 3) uint8, rewards (N,) float64 and ended (N,) bool, as in `Outcome`.
        """
        rewards = np.zeros(len(self._ended))
        for row in np.flatnonzero(~self._ended).tolist():
            try:
                self._frames[row], rewards[row], _, self._ended[row] = self._envs[row].step(int(actions[row]))
            except Exception as error:  # as above
                self.crashed[row], self._ended[row] = reason(error), True
        return self._frames.copy(), rewards, self._ended.copy()

    def close(self) -> None:
        """Frees the games."""
        for env in self._envs:
            _close(env)


def _close(env: PixelEnv) -> None:
    with contextlib.suppress(Exception):  # a game that crashed may be beyond closing
        env.close()
