"""What can go wrong in a step, caught before it costs the run: numbers that are none, memory, a game that crashes or
rewards more than the heads can predict.

Nothing here waits for a GPU between two lines of the log.
"""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from glamkit.config import PRESETS, Config, EnvConfig
from glamkit.envs.pictures import GameFaultError
from glamkit.envs.registry import LARGEST, Outcome, PixelEnv, is_atari, make_env
from glamkit.errors import GlamkitError, reason
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel
from glamkit.runs.files import replace
from glamkit.runs.log import Means
from glamkit.runtime import Machine
from glamkit.training.replay import Replay

PENDING = 1000  # updates after which they are looked at even if no line of the log is due
FLOAT = 4  # bytes
GIB = 2**30
# What to lower when memory runs out in a part of a step.
CAUSES = {
    "train_world_model": "replay.batch_size",
    "imagine": "imagination.starts",
    "train_actor_critic": "imagination.starts",
}
logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """One update, to be checked later."""

    step: int
    name: str  # of the model
    sum: Tensor  # of its loss and its gradient's norm: finite if both are
    drawn: tuple[Tensor, int]  # the windows it was made from, see `Replay.drawn`


class Guard:
    """Keeps a model whose numbers are not finite from being saved over a good one.

    Args:
        replay: for the batch that did it.
        folder: the run's, where that batch is dumped.
    """

    def __init__(self, replay: Replay, folder: Path) -> None:
        self.replay, self.folder = replay, folder
        self.pending: list[Update] = []
        self.failure = ""

    def note(self, step: int, name: str, loss: Tensor, norm: Tensor) -> None:
        """Takes in an update of the model of that name before it is made.

        On a CPU it is checked at once, elsewhere at the next `check`.
        """
        self.pending.append(Update(step, name, loss.detach() + norm, self.replay.drawn))
        if loss.device.type == "cpu" or len(self.pending) >= PENDING:
            self.check()

    def check(self, model: nn.Module | None = None) -> None:
        """Checks the updates since the last time, and the weights of a model that is about to be saved.

        Raises:
            GlamkitError: one was not finite; the batch is dumped. From then on always, as the weights are spoilt.
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
        kept = "its batch could not be kept"
        starts, length = update.drawn
        with contextlib.suppress(GlamkitError):
            path = self.folder / f"not-finite-{update.step:09d}.npz"
            batch = {name: part.cpu().numpy() for name, part in self.replay.window(starts, length)._asdict().items()}
            replace(path, lambda file: np.savez_compressed(file, starts=starts.numpy(), **batch))
            kept = f"its batch is in {path.name}"
        self.failure = (
            f"the loss of the {update.name.replace('_', ' ')} or its gradient is {update.sum.item()} at step "
            f"{update.step}, and {kept}; the last good checkpoint is intact: go on from it with "
            f"runtime.precision=float32, or start anew in another run_dir with a lower "
            f"{update.name}_optimizer.learning_rate."
        )


# The game -------------------------------------------------------------------------------------------------------------


class Crashes:
    """Counts the times that a game crashed since this trainer was made, and gives up after `most`.

    A game that has not made a single step gives up sooner: at once where it breaks gymnasium's interface, and when it
    crashes for the second time.
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.cause, self.played = "", False

    def attempt(self, env: PixelEnv, action: int) -> Outcome | None:
        """One step of the game, or None if it crashed or brought a reward that is no number.

        Raises:
            GlamkitError: the action is none of the game's, or the first step shows that it cannot be played.
        """
        try:
            outcome = env.step(action)
            if abs(outcome.reward) <= LARGEST:
                self.played = True
                return outcome
            self._note(env, f"its reward was {outcome.reward}")
        except Exception as error:  # a stranger's game may raise whatever it likes
            self._take(env, error)
        return None

    def reset(self, env: PixelEnv, seed: int | None = None) -> np.ndarray | None:
        """The first frame (H, W, 3) of a new game, or None if it crashed.

        Raises:
            GlamkitError: it shows, before any step, that the game cannot be played.
        """
        try:
            return env.reset(seed)
        except Exception as error:  # as in `attempt`
            self._take(env, error)
        return None

    def restart(self, env: PixelEnv, seed: int) -> tuple[PixelEnv, np.ndarray]:
        """A new game in place of `env`, with its first frame.

        Raises:
            GlamkitError: it cannot be opened, or crashed too often.
        """
        with contextlib.suppress(Exception):  # it may be beyond closing
            env.close()
        while True:
            new = make_env(env.config)
            frame = self.reset(new, seed + self.count)  # another at each crash: the same might crash again
            if frame is not None:
                return new, frame
            self.check(env)

    @property
    def too_many(self) -> bool:
        """Whether the game is to be given up."""
        return self.count > self.most or (self.count > 1 and not self.played)

    def check(self, env: PixelEnv) -> None:
        """Gives up after too many.

        Raises:
            GlamkitError: there were.
        """
        if self.too_many and not self.played:
            raise GlamkitError(f"{env.config.game} crashed {self.count} times before its first step: {self.cause}.")
        if self.too_many:
            raise GlamkitError(
                f"{env.config.game} crashed {self.count} times; what was saved is intact: mend the game and go on, "
                f"or allow more crashes with runtime.env_crashes (the last time: {self.cause})."
            )

    def _take(self, env: PixelEnv, error: Exception) -> None:
        if isinstance(error, GlamkitError) and not (isinstance(error, GameFaultError) and self.played):
            raise error
        self._note(env, reason(error))

    def _note(self, env: PixelEnv, why: str) -> None:
        self.count, self.cause = self.count + 1, why
        logger.warning("%s crashed (%s), %d of at most %d times.", env.config.game, why, self.count, self.most)


class BinRange:
    """Notices rewards and returns beyond the bins of the heads that predict them, where all look like the last bin.

    The log gets a line's mean size of those beyond, and no entry where all fit; the first of each kind is warned of.

    Args:
        config: the experiment.
        means: the log's; ``replay/reward_beyond`` and ``replay/return_beyond`` are added to it.
    """

    def __init__(self, config: Config, means: Means) -> None:
        self.means, self.discount, self.every = means, config.actor_critic.discount, config.trainer.log_every
        self.limits = {name: getattr(config, name).bin_limit for name in ("world_model", "actor_critic")}
        self.warned: set[str] = set()
        self.steps: list[tuple[float, bool]] = []  # reward and termination of each step of the present episode

    def add(self, reward: float, terminated: bool, ended: bool) -> None:
        """Takes in one step of the game."""
        reward = float(np.float32(reward))  # as the replay holds it
        self.steps.append((reward, terminated))
        self.compare("reward", reward, "world_model")
        if ended or len(self.steps) % self.every == 0:  # a long episode has a return too before its end
            self.compare("return", self.largest_return(), "actor_critic")
        if ended:
            self.steps = []

    def largest_return(self) -> float:
        """The largest discounted return that the critic should have predicted in the present episode."""
        largest = following = 0.0
        for reward, terminated in reversed(self.steps):
            following = reward + self.discount * following * (not terminated)
            largest = max(largest, following, key=abs)
        return largest

    def compare(self, what: str, value: float, section: str) -> None:
        """Adds a value beyond the bins of `section` to the means."""
        if self.beyond(f"{what}s", value, section):
            self.means.add({f"{what}_beyond": abs(value)}, "replay")

    def beyond(self, what: str, value: float, section: str) -> bool:
        """Whether a value lies beyond the bins; the first time, it is warned of."""
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


def note_idle(config: Config) -> None:
    """Says in the program's log which settings of the game mean nothing in it, though they were given."""
    table = PRESETS.get(config.preset, {})
    for key in ("frame_skip", "sticky", "life_loss"):
        value = getattr(config.env, key)
        if value != table.get(f"env.{key}", getattr(EnvConfig(), key)) and not is_atari(config.env.game):
            logger.warning("env.%s = %s means nothing in %s, which is no Atari game.", key, value, config.env.game)


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
            world_model = WorldModel(config.world_model, actions)
            actor_critic = ActorCritic(config.actor_critic, world_model.features, actions)
    except (RuntimeError, OverflowError, TypeError, MemoryError, ValueError) as error:
        raise GlamkitError(f"the sizes in world_model and actor_critic cannot be built: {reason(error)}.") from None
    return sum(p.numel() for model in (world_model, actor_critic) for p in model.parameters())


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
