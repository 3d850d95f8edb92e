"""One game as the agent meets it: square uint8 RGB frames, whole-number actions, one outcome a step.

Nothing here resets by itself: the caller does, when `Outcome.ended` says so. So the invented transition of gymnasium's
automatic resets cannot come into being. Every episode is fixed by a seed and its actions: a game is saved as just these
and goes on to the bit when they are replayed, which ALE's own saved states do not.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any, NamedTuple

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import AtariPreprocessing, TransformObservation

from glamkit.config import EnvConfig, game_name
from glamkit.errors import GlamkitError

LARGEST = float(np.finfo(np.float32).max)  # a number of numpy's would round what it is compared with


class GameFaultError(GlamkitError):
    """A game returned something that it must not; a trainer counts it like a crash of the game."""


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
        config: the game and how it is seen.
        num_actions: actions are 0 .. num_actions - 1.
        action_names: one name for each.
        lives: what is left of the present game's; 0 for games that count none.
        running: whether an episode has begun and has not ended.
    """

    def __init__(self, config: EnvConfig, env: gymnasium.Env) -> None:
        self.config, self._env = config, env
        self._game: Any = env.unwrapped
        self._frame: np.ndarray = np.zeros((config.image_size, config.image_size, 3), np.uint8)
        self._screen = self._frame
        self._drawn: list[np.ndarray] = []  # the frames of the last step, where pooling would throw them away
        self._random = np.random.default_rng()  # draws one seed per episode
        self._seed, self._actions, self.running = -1, list[int](), False
        self._trace = 0  # checksum over the episode's frames, to know a replayed game from another
        self.lives = 0
        space: Any = env.action_space
        self.num_actions, self._first_action = int(space.n), int(space.start)
        names: list[str] = []
        with contextlib.suppress(Exception):  # they only help to read: a game plays without
            names = list(getattr(self._game, "get_action_meanings", list)())
        known = len(names) == self.num_actions
        self.action_names = names if known else [f"action {index}" for index in range(self.num_actions)]

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts a game and returns its first frame (H, W, 3); a seed begins a new sequence of games."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        return self._begin(int(self._random.integers(2**31)))

    def step(self, action: int) -> Outcome:
        """Plays one agent step.

        Raises:
            GlamkitError: the action is not in 0 .. num_actions - 1, the game is over and was not reset, or it returned
                another picture than its space declares, or no number.
        """
        if not self.running:
            raise GlamkitError(f"{self.config.game} is over or was never started; call reset() before step().")
        if action not in range(self.num_actions):
            raise GlamkitError(f"action {action} is not one of 0 to {self.num_actions - 1} of {self.config.game}.")
        self._actions.append(int(action))
        self._drawn.clear()
        observation, reward, over, cut, _ = self._env.step(self._first_action + int(action))
        game = self.config.game
        terminated = bool(read_number(game, "terminated =", over, flag=True))
        truncated = bool(read_number(game, "truncated =", cut, flag=True))
        self.running = not (terminated or truncated)
        before, self.lives = self.lives, self._count_lives()
        stored = terminated or (self.lives < before and self.config.life_loss)
        return Outcome(self._see(observation), read_number(game, "the reward", reward), stored, not self.running)

    def screens(self) -> np.ndarray:
        """Every picture the game drew in the last step (n, H, W, 3) uint8, before pooling and resizing.

        Of an Atari game they are the console's (frame_skip, 210, 160, 3); after a reset it is one.
        """
        return np.stack(self._drawn or [self._screen])

    def clone(self) -> dict[str, Any]:
        """The present state in plain numbers, text and tensors, a few bytes per step of the episode."""
        if self._seed < 0:
            raise GlamkitError(f"{self.config.game} was never started; call reset() before clone().")
        return {
            "game": self.config.game,
            "seed": self._seed,
            "actions": torch.tensor(self._actions, dtype=torch.int32),
            "trace": self._trace,
            # Text, because these 128-bit numbers are more than many readers of saved tables accept.
            "random": json.dumps(self._random.bit_generator.state),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Puts a state from `clone` back, here or in a fresh environment of the same config.

        The episode is played again from its start, about 0.5 ms a step of Atari. Returns the current frame (H, W, 3).

        Raises:
            GlamkitError: the state is another game's, or the game did not replay to the same frames.
        """
        if game_name(state["game"]) != self.config.game:
            raise GlamkitError(f"a saved game of {state['game']} cannot go on in {self.config.game}.")
        self._begin(state["seed"])
        for action in state["actions"].tolist():
            if self.running:
                self.step(int(action))
        if self._trace != state["trace"]:
            name = self.config.game
            raise GameFaultError(f"a saved {name} cannot go on: replaying it from its seed gave another game.")
        self._random.bit_generator.state = json.loads(state["random"])
        return self._frame.copy()

    def close(self) -> None:
        """Frees the game; call nothing afterwards."""
        self._env.close()

    def _begin(self, seed: int) -> np.ndarray:
        self._drawn.clear()
        observation, _ = self._env.reset(seed=seed)
        self._seed, self._actions, self.running, self._trace = seed, [], True, 0
        self.lives = self._count_lives()
        return self._see(observation)

    def _see(self, observation: Any) -> np.ndarray:
        self._screen = read_picture(self.config.game, observation, self._env.observation_space.shape or ())
        self._frame, size = self._screen, self.config.image_size
        if self._screen.shape[:2] != (size, size):
            self._frame = cv2.resize(self._screen, (size, size), interpolation=cv2.INTER_AREA)
        self._trace = zlib.crc32(self._frame.tobytes(), self._trace)
        return self._frame.copy()

    def _count_lives(self) -> int:
        return 0


class Atari(PixelEnv):
    """An Atari game: frame skip with the maximum of the last two frames, sticky actions, lives, no-op starts."""

    def __init__(self, config: EnvConfig, raw: gymnasium.Env, no_ops: int) -> None:
        def keep(frame: np.ndarray) -> np.ndarray:
            self._drawn.append(frame)
            return frame

        size, skip = config.image_size, config.frame_skip
        kept = TransformObservation(raw, keep, raw.observation_space)
        pooled = AtariPreprocessing(kept, noop_max=no_ops, frame_skip=skip, screen_size=size, grayscale_obs=False)
        super().__init__(config, pooled)

    def memory(self) -> np.ndarray:
        """The console's 128 bytes of memory, (128,) uint8."""
        return np.array(self._game.ale.getRAM(), np.uint8)

    def _count_lives(self) -> int:
        return int(self._game.ale.lives())


def read_picture(game: str, picture: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A picture, uint8 of the declared shape (H, W) or (H, W, 1 or 3), as RGB: (H, W, 3) uint8, a copy."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != shape:
        seen = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise GameFaultError(f"{game} returned a picture that is {seen}, but its space declares uint8 {shape}.")
    image = np.atleast_3d(picture)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.array(image)


def read_number(game: str, what: str, value: Any, flag: bool = False) -> float:
    """A reward, which float32 can hold, or 0 or 1 for a `flag`; an array of one number will do."""
    array = np.asarray(value)
    known = array.size == 1 and array.dtype.kind in "biuf"
    if known and (array.item() in (0, 1) if flag else abs(array.item()) <= LARGEST):
        return float(array.item())
    kind = "neither True nor False" if flag else "not one finite number"
    raise GameFaultError(f"{game} returned {what} {str(value)[:80]!r}, which is {kind}.")
