"""What can go wrong in a step, caught before it costs the run: numbers that are none, and a game that crashes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from glamkit.envs.pixel_env import GameFaultError
from glamkit.errors import GlamkitError, reason

Played = TypeVar("Played")
logger = logging.getLogger(__name__)


def check_losses(step: int, metrics: Mapping[str, float]) -> None:
    """Checks the means since the last line of the log: a loss or gradient that is not finite is a GlamkitError."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise GlamkitError(
                f"{name} is {value} in the steps before step {step}; the last good checkpoint is intact: go on from it "
                f"with runtime.precision=float32, or start anew in another run_dir with a lower "
                f"{name.split('/')[0]}_optimizer.learning_rate."
            )


def check_weights(model: nn.Module) -> None:
    """Checks a model that is about to be saved; weights that are not finite raise a GlamkitError."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise GlamkitError(f"{name} is not finite, so it is not saved; the last good checkpoint is kept.")


class Crashes:
    """Counts the times that a game crashed in training, and gives up after `most`."""

    def __init__(self, game: str, most: int) -> None:
        self.game, self.most, self.count = game, most, 0

    def attempt(self, play: Callable[..., Played], *given: Any) -> Played | None:
        """What a step or a reset of the game returns, or None if it crashed or returned what it must not.

        A GlamkitError comes out after too many crashes, or where what was asked of the game is at fault.
        """
        try:
            return play(*given)
        except Exception as error:  # a stranger's game may raise whatever it likes
            if isinstance(error, GlamkitError) and not isinstance(error, GameFaultError):
                raise
            self.count, why = self.count + 1, reason(error)
            logger.warning("%s crashed (%s), %d of at most %d times.", self.game, why, self.count, self.most)
            if self.count > self.most:
                raise GlamkitError(
                    f"{self.game} crashed {self.count} times; what was saved is intact: mend the game and go on, or "
                    f"allow more crashes with runtime.env_crashes (the last time: {why})."
                ) from None
            return None
