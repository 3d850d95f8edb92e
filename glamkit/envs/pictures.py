"""Pictures, rewards and ends as they come from a game: each is checked where it enters, so that nothing is cast unseen.

What a game returns is held against what its observation space declares. A picture of another type, shape or range is
refused. A space with another range than 0 to 255 says how its pictures are scaled, and then they are.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from glamkit.errors import GlamkitError

LARGEST = float(np.finfo(np.float32).max)  # a number of numpy's would round what it is compared with

logger = logging.getLogger(__name__)


class GameFaultError(GlamkitError):
    """A game returned something that it must not; a trainer counts it like a crash of the game."""


class Pictures:
    """Reads the pictures of one game.

    Args:
        game: its name, for messages.
        space: what the game declares: uint8 of (H, W), (H, W, 1) or (H, W, 3).

    Attributes:
        scaled: how pictures are changed, in words; empty where they are taken as they are.

    Raises:
        GlamkitError: the space declares one value alone, so no picture can differ from another; or several ranges.
    """

    def __init__(self, game: str, space: Box) -> None:
        self.game, self.shape = game, space.shape
        self.low, self.high = int(space.low.min()), int(space.high.max())
        if self.low == self.high:
            raise GlamkitError(f"{game} cannot be played: its space declares pictures of the value {self.low} alone.")
        if space.low.max() != self.low or space.high.min() != self.high:
            raise GlamkitError(
                f"{game} cannot be played: its space declares other ranges for some pixels or channels than for "
                f"others; declare one range, such as 0 to 255, and return pictures in it."
            )
        full = (self.low, self.high) == (0, 255)
        self.scaled = "" if full else f"scaled from {self.low} .. {self.high} to 0 .. 255"
        if not full:
            logger.warning("%s declares pictures of %d to %d: they are %s.", game, self.low, self.high, self.scaled)

    def read(self, picture: Any) -> np.ndarray:
        """A picture as RGB: (H, W, 3) uint8, a copy.

        Raises:
            GameFaultError: its type, shape, channels or range are not those of the space.
        """
        if not isinstance(picture, np.ndarray) or isinstance(picture, np.ma.MaskedArray) or picture.shape != self.shape:
            raise self._fault(picture)
        if picture.dtype != np.uint8 or self.scaled:
            low, high = picture.min(), picture.max()
            if picture.dtype.kind not in "iu" or low < self.low or high > self.high:
                raise self._fault(picture, f" with values {low} to {high}")
            if self.scaled:
                picture = np.rint((picture.astype(np.float64) - self.low) * (255 / (self.high - self.low)))
            picture = picture.astype(np.uint8)
        image = np.atleast_3d(picture)
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.array(image)

    def _fault(self, picture: Any, values: str = "") -> GameFaultError:
        kind = f"{picture.dtype} {picture.shape}" if type(picture) is np.ndarray else type(picture).__name__
        declared = f"uint8 {self.shape} of {self.low} to {self.high}"
        return GameFaultError(
            f"{self.game} returned a picture that is {kind}{values}, but its observation_space declares {declared}."
        )


def read_reward(game: str, reward: Any) -> float:
    """The reward as a float; an array of one number will do.

    Raises:
        GameFaultError: it is no number, or none that float32 can hold, as the replay does.
    """
    value = np.asarray(reward)
    if value.size != 1 or value.dtype.kind not in "biuf" or not abs(value.item()) <= LARGEST:
        raise GameFaultError(f"{game} returned the reward {str(reward)[:80]!r}, which is not one finite number.")
    return float(value.item())


def read_flag(game: str, name: str, flag: Any) -> bool:
    """Whether an episode is `name` ("terminated" or "truncated"); a number or an array of one will do.

    Raises:
        GameFaultError: it is neither yes nor no.
    """
    value = np.asarray(flag)
    if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
        raise GameFaultError(f"{game} returned {name} = {str(flag)[:80]!r}, which is neither True nor False.")
    return bool(value.item())
