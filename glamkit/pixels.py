"""One game as the agent meets it: square uint8 RGB frames, whole-number actions, one outcome a step.

Nothing here resets by itself: the caller does, when `Outcome.ended` says so. So the invented transition that
gymnasium's automatic resets put between two episodes cannot come into being.

Any gymnasium environment can be saved in the middle of a game if it has ``clone_state() -> dict`` (of plain numbers,
text, bytes, and lists or tables of them) and ``restore_state(dict)``; its random generator and time limit are
saved for it.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

import ale_py
import cv2
import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing

from glamkit.config import Env
from glamkit.errors import GlamkitError


class Outcome(NamedTuple):
    """What one agent step brings."""

    observation: np.ndarray  # (H, W, 3) uint8, the frame after the step
    reward: float  # raw, summed over the skipped frames
    terminated: bool  # as stored: the game is over or, with config.life_loss, a life is lost
    ended: bool  # the game is over or cut off by its time limit: reset before the next step


class PixelEnv:
    """One game, made by `make_env`.

    Frames that are not `image_size` square are resized by area (squeezed, not cropped), grey ones repeated to RGB.
    `frame_skip`, `sticky` and `life_loss` are Atari's and do not touch other games.

    Attributes:
        num_actions: actions are 0 .. num_actions - 1.
        action_names: one name for each.
    """

    def __init__(self, config: Env, env: gymnasium.Env, step_limit: int | None) -> None:
        self._config, self._env, self._step_limit = config, env, step_limit
        self._game: Any = env.unwrapped
        self._frame: np.ndarray = np.zeros((config.image_size, config.image_size, 3), np.uint8)
        self._screen = self._frame
        self._steps, self._started, self._running = 0, False, False
        space: Any = env.action_space
        self.num_actions, self._first_action = int(space.n), int(space.start)
        names = self._game.get_action_meanings() if hasattr(self._game, "get_action_meanings") else []
        fallback = [f"action {index}" for index in range(self.num_actions)]
        self.action_names = [str(name) for name in names] if len(names) == self.num_actions else fallback

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts a game and returns its first frame (H, W, 3); without a seed the random stream goes on."""
        observation, _ = self._env.reset(seed=seed)
        self._steps, self._started, self._running = 0, True, True
        return self._see(observation)

    def step(self, action: int) -> Outcome:
        """Plays one agent step.

        Raises:
            GlamkitError: the action is not in 0 .. num_actions - 1, or the game is over and was not reset.
        """
        if not self._running:
            raise GlamkitError(f"{self._config.game} is over or was never started; call reset() before step().")
        if action not in range(self.num_actions):
            raise GlamkitError(f"action {action} is outside 0 to {self.num_actions - 1} of {self._config.game}.")
        observation, reward, terminated, truncated, _ = self._env.step(self._first_action + int(action))
        self._steps += 1
        cut = self._step_limit is not None and self._steps >= self._step_limit
        self._running = not (terminated or truncated or cut)
        stored = bool(terminated) or (self._lost_life() and self._config.life_loss)
        return Outcome(self._see(observation), float(reward), stored, not self._running)

    def screen(self) -> np.ndarray:
        """The game's own picture (H, W, 3) uint8, as it was before pooling and resizing."""
        return self._screen.copy()

    def clone(self) -> dict[str, Any] | None:
        """The state as plain numbers, text and bytes, or None where the environment cannot be saved."""
        if not self._started:
            raise GlamkitError(f"{self._config.game} was never started; call reset() before clone().")
        inner = self._save()
        if inner is None or not _is_plain(inner):
            return None
        return {
            "game": self._config.game,
            "inner": inner,
            # Text, because the generator's 128-bit numbers are more than most readers of saved tables accept.
            "random": json.dumps(self._game.np_random.bit_generator.state),
            "frame": zlib.compress(self._frame.tobytes()),
            "steps": self._steps,
            "running": int(self._running),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Puts a state from `clone` back, here or in a fresh environment of the same config.

        What follows is the same to the bit as if the game had never stopped. Returns the current frame (H, W, 3).
        """
        if state["game"] != self._config.game:
            raise GlamkitError(f"a saved game of {state['game']} cannot go on in {self._config.game}.")
        self._env.reset()  # gymnasium refuses to step before a first reset
        self._load(state["inner"])
        self._game.np_random.bit_generator.state = json.loads(state["random"])
        self._steps, self._started, self._running = state["steps"], True, bool(state["running"])
        self._frame = np.frombuffer(zlib.decompress(state["frame"]), np.uint8).reshape(self._frame.shape)
        return self._frame.copy()

    def close(self) -> None:
        """Frees the game; call nothing afterwards."""
        self._env.close()

    def _see(self, observation: np.ndarray) -> np.ndarray:
        image = np.atleast_3d(observation)
        self._screen = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.array(image)
        self._frame, size = self._screen, self._config.image_size
        if self._screen.shape[:2] != (size, size):
            self._frame = cv2.resize(self._screen, (size, size), interpolation=cv2.INTER_AREA)
        return self._frame.copy()

    def _lost_life(self) -> bool:
        return False

    def _save(self) -> dict[str, Any] | None:
        able = hasattr(self._game, "clone_state") and hasattr(self._game, "restore_state")
        return self._game.clone_state() if able else None

    def _load(self, inner: dict[str, Any]) -> None:
        self._game.restore_state(inner)


class Sticky(gymnasium.Wrapper):
    """Repeats the last action with a probability, frame by frame, as ALE does (Machado et al., 2018).

    ALE's own is not used, because its saved states leave out the action that may be repeated.
    """

    def __init__(self, env: gymnasium.Env, probability: float) -> None:
        super().__init__(env)
        self.probability, self.last = probability, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Forgets the last action: a game begins with no-op."""
        self.last = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One frame of `action`, or of the last one."""
        if not self.probability or self.np_random.random() >= self.probability:
            self.last = action
        return self.env.step(self.last)


class Atari(PixelEnv):
    """An Atari game: frame skip with the maximum of the last two frames, sticky actions, lives."""

    def __init__(self, config: Env, game_id: str) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        raw = gymnasium.make(game_id, frameskip=1, repeat_action_probability=0.0, disable_env_checker=True)
        self._sticky = Sticky(raw, config.sticky)
        size, skip = config.image_size, config.frame_skip
        self._pool = AtariPreprocessing(
            self._sticky, noop_max=0, frame_skip=skip, screen_size=size, grayscale_obs=False
        )
        super().__init__(config, self._pool, step_limit=None)
        self._lives = 0

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts a game, without random no-ops, and returns its first frame (H, W, 3)."""
        frame = super().reset(seed)
        self._lives = self._game.ale.lives()
        return frame

    def screen(self) -> np.ndarray:
        """The last frame (210, 160, 3) uint8 as the console drew it."""
        return self._game.ale.getScreenRGB()

    def _lost_life(self) -> bool:
        before, self._lives = self._lives, self._game.ale.lives()
        return self._lives < before

    def _save(self) -> dict[str, Any]:
        # The pooled frames matter too: a game that ends before its last frames are drawn shows the earlier ones.
        return {
            "emulator": self._game.clone_state(include_rng=True).__getstate__(),
            "pool": [zlib.compress(frame.tobytes(), 1) for frame in self._pool.obs_buffer],
            "last_action": int(self._sticky.last),
            "lives": self._lives,
        }

    def _load(self, inner: dict[str, Any]) -> None:
        emulator = ale_py.ALEState.__new__(ale_py.ALEState)
        emulator.__setstate__(inner["emulator"])
        self._game.restore_state(emulator)
        for frame, saved in zip(self._pool.obs_buffer, inner["pool"], strict=True):
            frame[...] = np.frombuffer(zlib.decompress(saved), np.uint8).reshape(frame.shape)
        self._sticky.last, self._lives = inner["last_action"], inner["lives"]


def _is_plain(value: Any) -> bool:
    """Whether a value is made only of what torch.load(weights_only=True) and JSON-like stores read back."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes)
