"""Opening games: by name, singly for training or several at once for evaluation.

Atari games go by their plain name ("Pong"), the built-in ones by theirs ("glamkit/Catch-v0"); any other gymnasium id
serves if its observations are images and its actions Discrete. ``module:EnvId`` first imports the module of a game.
"""

from __future__ import annotations

import contextlib
import importlib
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
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


def resolve_game(name: str) -> str:
    """The gymnasium id behind a game's name, after checking that it can be opened and played here."""
    game_id = _look_up(name)
    _open(name, game_id).close()
    return game_id


def make_env(config: str | Config | EnvConfig, no_ops: int = 0) -> PixelEnv:
    """Opens the game of a config, or the one of that name; Atari's start with up to `no_ops` frames of doing nothing.

    Raises:
        GlamkitError: there is no such game (with the nearest names), it cannot be opened here, its observations are
            not images or its actions not Discrete.
    """
    if isinstance(config, str):
        config = EnvConfig(game=config)
    elif isinstance(config, Config):
        config = config.env
    elif not isinstance(config, EnvConfig):  # such as an environment itself
        raise GlamkitError(f"{type(config).__name__} is no game: register yours, and open it by its name or a config.")
    game_id = _look_up(config.game)
    if game_id.startswith("ALE/"):
        game = _open(config.game, game_id, frameskip=1, repeat_action_probability=config.sticky)
        return Atari(config, game, no_ops)
    return PixelEnv(config, _open(config.game, game_id))


def is_atari(name: str) -> bool:
    """Whether frame skip, sticky actions, lives and no-op starts mean anything to a game."""
    return _look_up(name).startswith("ALE/")


def _look_up(name: str) -> str:
    module, colon, registered = name.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything
            hint = "; is its folder in PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else "."
            why = f"{type(error).__name__}: {reason(error)}{hint}"
            raise GlamkitError(f"the module of {name!r} cannot be imported: {why}") from error
    elif f"ALE/{name}-v5" in gymnasium.registry:
        return f"ALE/{name}-v5"
    spec = gymnasium.registry.get(registered)
    if spec is None or _outdated(spec):
        known = [one for one in gymnasium.registry.values() if not _outdated(one)]
        names = [one.name if one.namespace == "ALE" else one.id for one in known]
        names.sort(key=lambda one: ("/" not in one, one))  # of equally near ones the last is named
        raise GlamkitError(f"unknown game {name!r}; {nearest(registered, names, _bare)}")
    return name if colon and spec.namespace != "ALE" else registered


def _outdated(spec: EnvSpec) -> bool:
    """Whether an id is one of 2016-2021, which hide their own frame skips and sticky actions: the config has these."""
    return spec.entry_point == "ale_py.env:AtariEnv" and spec.namespace != "ALE"


def _bare(name: str) -> str:
    """A game's name without module, namespace, version and variant."""
    return plain(re.sub(r"NoFrameskip|Deterministic|-ram|-v\d+$", "", re.split("[:/]", name)[-1]))


def _open(name: str, game_id: str, **options: Any) -> gymnasium.Env:
    """Makes an environment and checks that its spaces suit the agent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on versions and spaces that the checks below make definite
            env = gymnasium.make(game_id, disable_env_checker=True, **options)
    except Exception as error:  # whatever a stranger's constructor raises, the user needs the reason in one line
        missing = game_id.startswith("ALE/") and isinstance(error, OSError)  # as with conda-forge's ale-py
        mend = "; its ROM is missing: pip install --force-reinstall ale-py" if missing else ""
        raise GlamkitError(f"{name} cannot be opened: {reason(error)}{mend}.") from error
    frames, actions = env.observation_space, env.action_space
    shape, limits = frames.shape or (), (0, 0)
    if isinstance(frames, Box) and frames.dtype == np.uint8:
        limits = frames.low.max(), frames.high.min()
    if limits == (0, 255) and len(shape) > 1 and shape[2:] in ((), (1,), (3,)) and isinstance(actions, Discrete):
        return env
    env.close()
    kind = f"{type(frames).__name__} {shape} {frames.dtype}"
    raise GlamkitError(
        f"{name} cannot be played: its observations are {kind} and its actions {type(actions).__name__}, not pictures, "
        f"Box (height, width, 3) or (height, width) uint8 of 0 to 255, and Discrete; register it inside "
        f"gymnasium.wrappers.AddRenderObservation to play from its rendered pictures."
    )


class Games:
    """Copies of a game in step, for evaluation: one episode each until `reset`; `no_ops` as in `make_env`.

    A copy that has ended keeps its last frame and brings no reward. One whose game crashes ends there, with the reason
    in `crashed`; the next `reset` opens its game anew.
    """

    def __init__(self, config: EnvConfig, no_ops: int = 0) -> None:
        self._config, self._no_ops = config, no_ops
        self._envs: list[PixelEnv] = []
        self._frames, self._ended = np.zeros(0, np.uint8), np.zeros(0, bool)
        self.crashed: dict[int, str] = {}

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Starts a game from each seed (N,), in as many copies; returns the frames (N, H, W, 3) uint8."""
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
        """One agent step by actions (N,); frames (N, H, W, 3) uint8, rewards (N,) float64 and ended (N,) bool."""
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
