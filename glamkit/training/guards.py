"""What can go wrong in a step, caught before it costs the run: numbers that are none or beyond the bins of the heads,
a game that crashes, and memory that runs out.

Nothing here waits for a GPU between two lines of the log.
"""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glamkit.config import Config
from glamkit.envs.pixel_env import GameFaultError
from glamkit.errors import GlamkitError, reason
from glamkit.runtime import Machine

GIB = 2**30
# What to lower when memory runs out in a function.
CAUSES = {
    "build": "world_model.width",
    "train_world_model": "replay.batch_size",
    "imagine": "imagination.starts",
    "train_actor_critic": "imagination.starts",
    "play_round": "evaluation.games",
}
FULL = ("out of memory", "allocate memory", "not enough memory")  # what errors of memory say, in lower case
PREDICTED = {"world_model": "Rewards", "actor_critic": "Imagined returns"}  # what the heads with bins predict
Played = TypeVar("Played")
logger = logging.getLogger(__name__)


class Guard:
    """Keeps a model whose numbers are not finite from being saved over a good one."""

    def __init__(self) -> None:
        # Of each update: step, model, and loss plus gradient's norm, which is finite if both are.
        self.pending: list[tuple[int, str, Tensor]] = []

    def note(self, step: int, name: str, loss: Tensor, norm: Tensor) -> None:
        """Takes in an update of the model of that name before it is made.

        On a CPU it is checked at once, elsewhere at the next `check`.
        """
        self.pending.append((step, name, loss.detach() + norm))
        if loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Checks the updates since the last time; one that is not finite raises a GlamkitError."""
        values = torch.stack([value for *_, value in self.pending]).tolist() if self.pending else []
        for (step, name, _), value in zip(self.pending, values, strict=True):
            if not math.isfinite(value):
                raise GlamkitError(
                    f"the loss of the {name.replace('_', ' ')} or its gradient is {value} at step {step}; the last "
                    f"good checkpoint is intact: go on from it with runtime.precision=float32, or start anew in "
                    f"another run_dir with a lower {name}_optimizer.learning_rate."
                )
        self.pending = []  # only now: weights that are spoilt stay so


def check_weights(model: nn.Module) -> None:
    """Checks a model that is about to be saved; weights that are not finite raise a GlamkitError."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise GlamkitError(f"{name} is not finite, so it is not saved; the last good checkpoint is kept.")


class BinRange:
    """Warns once of numbers beyond the bins of the heads that predict them, where all look like the last bin."""

    def __init__(self, config: Config) -> None:
        self.config, self.warned = config, set[str]()

    def check(self, section: str, value: float) -> None:
        """To be called with what a section's head is to predict."""
        limit = getattr(self.config, section).bin_limit
        if abs(value) > math.expm1(limit) and section not in self.warned:
            self.warned.add(section)
            logger.warning(
                "%s such as %.6g lie beyond the bins, which end at %.6g: they are learned as that; use "
                "%s.bin_limit = %.1f or more in a new run (it is %g), or smaller rewards.",
                PREDICTED[section], value, math.copysign(math.expm1(limit), value), section,
                math.ceil(10 * math.log1p(abs(value))) / 10, limit,
            )  # fmt: skip


class CrashedError(GlamkitError):
    """A game crashed too often. No step is stored by half, so the run may be saved; an update may be left out."""


class Crashes:
    """Counts the times that a game crashed, and gives up after `most`.

    Args:
        game: its name.
        most: crashes that are answered by starting it anew.
        where: it is played, such as `` in an evaluation``; empty in training.
    """

    def __init__(self, game: str, most: int, where: str = "") -> None:
        self.game, self.most, self.where = game, most, where
        self.count, self.good = 0, 0

    def attempt(self, play: Callable[..., Played], *given: Any) -> Played | None:
        """What a step or a reset of the game returns, or None if it crashed or returned what it must not.

        Raises:
            CrashedError: it crashed too often.
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

    def note(self, why: str) -> None:
        """Counts a crash.

        Raises:
            CrashedError: it was one too many.
        """
        self.count += 1
        logger.warning("%s crashed%s (%s), %d of at most %d times.", self.game, self.where, why, self.count, self.most)
        if self.count > self.most:
            without = ", or train without evaluations by evaluation.every=0" if self.where else ""
            raise CrashedError(
                f"{self.game} crashed {self.count} times{self.where}; what was saved is intact: mend the game and go "
                f"on, or allow more crashes with runtime.env_crashes{without} (the last time: {why})."
            )


def check_memory(config: Config, machine: Machine) -> None:
    """Refuses a replay that cannot fit: on CPUs its memory is taken step by step, and would be lacking hours later.

    Raises:
        GlamkitError: with the figures, and what to lower.
    """
    capacity, there = config.replay.capacity, machine.memory()
    needed = capacity * (3 * config.env.image_size**2 + 16)  # bytes: frame; action, reward and termination
    if needed > there:
        raise GlamkitError(
            f"replay.capacity = {capacity:,} needs {needed / GIB:,.1f} GiB of memory, and {machine.device} has "
            f"{there / GIB:,.1f} GiB; use at most {capacity * there // needed:,}."
        )


@contextlib.contextmanager
def explained(config: Config, machine: Machine) -> Iterator[None]:
    """Context that turns running out of memory into a sentence that says what to lower, and by how much.

    Raises:
        GlamkitError: memory ran out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error).lower() for words in FULL)):
            raise
        places = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        key = next((CAUSES[place] for place in places if place in CAUSES), "replay.capacity")
        value, there = attrgetter(key)(config), machine.memory()
        size = f" ({there / GIB:.1f} GiB)" if there < 2**63 else ""  # not known on Windows
        start = "go on" if key.startswith("evaluation.") else "start anew in another run_dir"
        raise GlamkitError(
            f"the memory of {machine.device}{size} ran out; what was saved is intact: "
            f"free some and go on, or {start} with {key}={max(value // 2, 1)} instead of {value}."
        ) from error
