"""What can go wrong in a step, caught before it costs the run: numbers that are none, memory, a game that crashes or
rewards more than the heads can predict.

Nothing here waits for a GPU between two lines of the log.
"""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from glamkit.config import Config
from glamkit.envs.pixel_env import GameFaultError
from glamkit.envs.registry import PixelEnv, make_env
from glamkit.errors import GlamkitError, reason
from glamkit.models.agent import Agent
from glamkit.runtime import Machine

PENDING = 1000  # updates after which they are looked at even if no line of the log is due
FLOAT = 4  # bytes
GIB = 2**30
# What to lower when memory runs out in a part of a step.
CAUSES = {
    "train_world_model": "replay.batch_size",
    "imagine": "imagination.starts",
    "train_actor_critic": "imagination.starts",
}
Played = TypeVar("Played")
logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """One update, to be checked later."""

    step: int
    name: str  # of the model
    sum: Tensor  # of its loss and its gradient's norm: finite if both are


class Guard:
    """Keeps a model whose numbers are not finite from being saved over a good one."""

    def __init__(self) -> None:
        self.pending: list[Update] = []
        self.failure = ""

    def note(self, step: int, name: str, loss: Tensor, norm: Tensor) -> None:
        """Takes in an update of the model of that name before it is made.

        On a CPU it is checked at once, elsewhere at the next `check`.
        """
        self.pending.append(Update(step, name, loss.detach() + norm))
        if loss.device.type == "cpu" or len(self.pending) >= PENDING:
            self.check()

    def check(self, model: nn.Module | None = None) -> None:
        """Checks the updates since the last time, and the weights of a model that is about to be saved.

        Raises:
            GlamkitError: one was not finite. From then on always, as the weights are spoilt.
        """
        pending, self.pending = self.pending, []
        if pending and not self.failure:
            finite = torch.stack([update.sum for update in pending]).isfinite().tolist()
            if not all(finite):
                self._fail(pending[finite.index(False)])
        if model is not None and not self.failure:
            spoilt = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
            if spoilt:
                self.failure = f"{spoilt[0]} is not finite, so it is not saved; the last good checkpoint is kept."
        if self.failure:
            raise GlamkitError(self.failure)

    def _fail(self, update: Update) -> None:
        self.failure = (
            f"the loss of the {update.name.replace('_', ' ')} or its gradient is {update.sum.item()} at step "
            f"{update.step}; the last good checkpoint is intact: go on from it with runtime.precision=float32, or "
            f"start anew in another run_dir with a lower {update.name}_optimizer.learning_rate."
        )


# The game -------------------------------------------------------------------------------------------------------------


class Crashes:
    """Counts the times that a game crashed, and gives up after `most`.

    Args:
        game: its name.
        most: crashes that are answered by starting it anew.
        where: it is played, such as `` in an evaluation``; empty in training.
    """

    def __init__(self, game: str, most: int, where: str = "") -> None:
        self.game, self.most, self.where = game, most, where
        self.count, self.cause, self.good = 0, "", 0

    def note(self, why: str) -> None:
        """Counts a crash and its cause."""
        self.count, self.cause = self.count + 1, why
        logger.warning("%s crashed%s (%s), %d of at most %d times.", self.game, self.where, why, self.count, self.most)

    def check(self) -> None:
        """Gives up after too many.

        Raises:
            GlamkitError: there were.
        """
        if self.count > self.most:
            without = ", or train without evaluations by evaluation.every=0" if self.where else ""
            raise GlamkitError(
                f"{self.game} crashed {self.count} times{self.where}; what was saved is intact: mend the game and go "
                f"on, or allow more crashes with runtime.env_crashes{without} (the last time: {self.cause})."
            )

    def attempt(self, play: Callable[..., Played], *given: Any) -> Played | None:
        """What a step or a reset of the game returns, or None if it crashed or returned what it must not.

        Raises:
            GlamkitError: what was asked of the game is at fault, or its first reset or step shows that it is none.
        """
        try:
            result = play(*given)
        except Exception as error:  # a stranger's game may raise whatever it likes
            if isinstance(error, GlamkitError) and not (isinstance(error, GameFaultError) and self.good > 1):
                raise
            self.note(reason(error))
            return None
        self.good += 1
        return result

    def restart(self, env: PixelEnv, seed: int) -> tuple[PixelEnv, np.ndarray]:
        """A new game in place of `env`, with its first frame (H, W, 3).

        Raises:
            GlamkitError: it cannot be opened, or crashed too often.
        """
        with contextlib.suppress(Exception):  # it may be beyond closing
            env.close()
        while True:
            self.check()
            new = make_env(env.config)
            frame = self.attempt(new.reset, seed + self.count)  # another at each crash: the same might crash again
            if frame is not None:
                return new, frame


class BinRange:
    """Notices numbers beyond the bins of the heads that predict them, where all look like the last bin."""

    def __init__(self, config: Config) -> None:
        self.limits = {name: getattr(config, name).bin_limit for name in ("world_model", "actor_critic")}
        self.warned: set[str] = set()

    def beyond(self, what: str, value: float, section: str) -> bool:
        """Whether a value lies beyond the bins of a section; the first time, it is warned of."""
        limit = self.limits[section]
        if not abs(value) > math.expm1(limit):
            return False
        if what not in self.warned:
            self.warned.add(what)
            logger.warning(
                "%s such as %.6g lie beyond the bins, which end at %.6g: they are learned as that; use "
                "%s.bin_limit = %.1f or more in a new run (it is %g), or smaller rewards.",
                what.capitalize(), value, math.copysign(math.expm1(limit), value), section, wide_enough(value), limit,
            )  # fmt: skip
        return True


def wide_enough(value: float) -> float:
    """The least `bin_limit`, in symlog units to one decimal, whose bins hold a value."""
    return math.ceil(10 * math.log1p(abs(value))) / 10


# Memory ---------------------------------------------------------------------------------------------------------------


def check_memory(config: Config, actions: int, machine: Machine) -> None:
    """Refuses, before any work, what cannot fit: a lower bound of what is needed against what the device has.

    Raises:
        GlamkitError: with the figures, and what to lower.
    """
    frame, latent = 3 * config.env.image_size**2, config.world_model.variables * config.world_model.classes
    batch, rollouts = config.replay.batch_size * config.replay.sequence_length, config.imagination.starts
    states = rollouts * (config.imagination.horizon + 1) * (latent + config.world_model.width) * FLOAT
    frames = 0 if config.imagination.contexts == "batch" else rollouts * config.imagination.context_length * frame
    per_step = frame + 2 * FLOAT + 8  # a stored step: frame, reward, termination, action
    needs = {
        # Weights, their gradients and Adam's two averages.
        "world_model.width": 4 * FLOAT * _parameters(config, actions),
        "replay.batch_size": batch * frame * (1 + FLOAT),  # as bytes and as the decoder's pixels
        "imagination.starts": max(states, frames * (1 + FLOAT)),
        "replay.capacity": config.replay.capacity * per_step,
    }
    there = machine.memory()
    if sum(needs.values()) <= there:
        return
    key = max(needs, key=lambda name: needs[name])
    left = max(there - sum(needs.values()) + needs[key], 0)
    section, name = key.split(".")
    value = getattr(getattr(config, section), name)
    most = f"use at most {value * left // needs[key]:,}" if key != "world_model.width" else "use a smaller one"
    raise GlamkitError(
        f"{key} = {value:,} needs at least {needs[key] / GIB:,.1f} GiB of memory, and {machine.device} has "
        f"{there / GIB:,.1f} GiB, {left / GIB:,.1f} of them for this; {most}."
    )


def _parameters(config: Config, actions: int) -> int:
    """How many the models will have, without making them."""
    try:
        with torch.device("meta"):
            agent = Agent.build(config, actions)
    except (RuntimeError, OverflowError, TypeError, MemoryError, ValueError) as error:
        raise GlamkitError(f"the sizes in world_model and actor_critic cannot be built: {reason(error)}.") from None
    return sum(parameter.numel() for parameter in agent.parameters())


@contextlib.contextmanager
def explained(config: Config, machine: Machine) -> Iterator[None]:
    """Context that turns running out of memory into a sentence that says what to lower, and by how much.

    Raises:
        GlamkitError: memory ran out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        full = "out of memory" in text or "allocate memory" in text or "not enough memory" in text
        if not (full or isinstance(error, MemoryError)):
            raise
        places = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        key = next((CAUSES[place] for place in places if place in CAUSES), "replay.capacity")
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        raise GlamkitError(
            f"the memory of {machine.device} ({machine.memory() / GIB:.1f} GiB) ran out; what was saved is intact: "
            f"free some and go on, or start anew in another run_dir with {key}={max(value // 2, 1)} instead of {value}."
        ) from error
