"""Pictures, rewards and ends as they come from a game: checked where they enter, so that nothing is cast unseen."""

from __future__ import annotations

from typing import Any

import numpy as np

from glamkit.errors import GlamkitError

LARGEST = float(np.finfo(np.float32).max)  # a number of numpy's would round what it is compared with


class GameFaultError(GlamkitError):
    """A game returned something that it must not; a trainer counts it like a crash of the game."""


def read_picture(game: str, picture: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A picture as RGB: (H, W, 3) uint8, a copy.

    Raises:
        GameFaultError: it is not uint8, or not of the shape that the game's space declares: (H, W), (H, W, 1 or 3).
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != shape:
        seen = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise GameFaultError(
            f"{game} returned a picture that is {seen}, but its observation_space declares uint8 {shape}."
        )
    image = np.atleast_3d(picture)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.array(image)


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
