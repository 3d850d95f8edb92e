"""What can go wrong in a run, caught before it costs much: numbers that are none or too large, a replay that memory
cannot hold, and a game that crashes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from glamkit.config import Config
from glamkit.envs.pixel_env import GameFaultError
from glamkit.errors import GlamkitError, reason
from glamkit.runtime import Machine

GIB = 2**30
PREDICTED = {"world_model": "Rewards", "actor_critic": "Imagined returns"}  # what the heads with bins predict
SPOILT = (
    "the last good checkpoint is intact: go on from it with runtime.precision=float32, or start anew in another "
    "run_dir with lower world_model_optimizer.learning_rate and actor_critic_optimizer.learning_rate."
)
Played = TypeVar("Played")
logger = logging.getLogger(__name__)


def check_losses(step: int, metrics: Mapping[str, float]) -> None:
    """Checks the means since the last line of the log: a loss or gradient that is not finite is a GlamkitError."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise GlamkitError(f"{name} is {value} in the steps before step {step}; {SPOILT}")


def check_weights(model: nn.Module) -> None:
    """Checks a model that is about to be saved; weights that are not finite raise a GlamkitError."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise GlamkitError(f"{name} is not finite, so it is not saved; {SPOILT}")


class BinRange:
    """Warns once of numbers beyond the bins of the heads that predict them, where all look like the last bin."""

    def __init__(self, config: Config) -> None:
        self.config, self.warned = config, set[str]()

    def check(self, section: str, value: float) -> None:
        """To be called with what a section's head is to predict."""
        limit = getattr(self.config, section).bin_limit
        if abs(value) > math.expm1(limit) and section not in self.warned:
            self.warned.add(section)
            wanted = math.ceil(10 * math.log1p(abs(value))) / 10
            logger.warning(
                "%s such as %.6g lie beyond the bins, which end at %.6g: they are learned as that; use "
                "%s.bin_limit = %.1f or more in a new run (it is %g), or smaller rewards.",
                PREDICTED[section], value, math.copysign(math.expm1(limit), value), section, wanted, limit,
            )  # fmt: skip


def check_memory(config: Config, machine: Machine) -> None:
    """Refuses a replay that cannot fit: on CPUs its memory is taken step by step, and would be lacking hours later."""
    capacity, there = config.replay.capacity, machine.memory()
    needed = capacity * (3 * config.env.image_size**2 + 16)  # bytes: frame; action, reward and termination
    if needed > there:
        raise GlamkitError(
            f"replay.capacity = {capacity:,} needs {needed / GIB:,.1f} GiB of memory, and {machine.device} has "
            f"{there / GIB:,.1f} GiB; use at most {capacity * there // needed:,}."
        )


class Crashes:
    """Counts the times that a game crashed, and gives up after `most`; `where` is such as `` in an evaluation``."""

    def __init__(self, game: str, most: int, where: str = "") -> None:
        self.game, self.most, self.where, self.count = game, most, where, 0

    def attempt(self, play: Callable[..., Played], *given: Any) -> Played | None:
        """What a step or a reset of the game returns, or None if it crashed or returned what it must not.

        A GlamkitError comes out after too many crashes, or where what was asked of the game is at fault.
        """
        try:
            return play(*given)
        except Exception as error:  # a stranger's game may raise whatever it likes
            if isinstance(error, GlamkitError) and not isinstance(error, GameFaultError):
                raise
            self.note(reason(error))
            return None

    def note(self, why: str) -> None:
        """Counts a crash; one too many is a GlamkitError."""
        self.count += 1
        logger.warning("%s crashed%s (%s), %d of at most %d times.", self.game, self.where, why, self.count, self.most)
        if self.count > self.most:
            without = ", or train without evaluations by evaluation.every=0" if self.where else ""
            raise GlamkitError(
                f"{self.game} crashed {self.count} times{self.where}; what was saved is intact: mend the game and go "
                f"on, or allow more crashes with runtime.env_crashes{without} (the last time: {why})."
            )
