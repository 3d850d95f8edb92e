"""Times both sides of a training step in turns. For `benchmark`, which explains the sides."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from glamkit.bench import hardware
from glamkit.bench.hardware import Work
from glamkit.config import Config
from glamkit.models.world_model import Observed
from glamkit.notebook import Tell, duration
from glamkit.runtime import memory_kept
from glamkit.training.trainer import Trainer
from glamkit.types import Batch, Context, Rollout

PHASES = {
    "world_model": "one update of the world model, with backward pass and optimiser step",
    "imagination": "imagined rollouts, with the encoding of the real steps they start from",
    "imagination_steps": "the imagined rollouts alone, from real steps already encoded",
    "actor_critic": "one update of actor and critic",
    "step": "a whole training step: sample, update, imagine, update",
}
SIDES = {"fast": "glamkit", "opt_in": "glamkit with the opt-in settings", "reference": "the plain way"}
# The plain way: the models as they are written, in float32, with the scan as a loop in Python.
PLAIN = {"runtime.accelerate": "off", "runtime.precision": "float32", "runtime.kernel": "glamkit"}
PLAIN |= {"runtime.compile": "off", "runtime.record": "false"}
Works = Mapping[tuple[str, str], Work]


class TimedTrainer:
    """A trainer that has played its random steps, and the inputs of its phases.

    Args:
        config: the experiment.
        folder: an empty folder for the trainer's run.
    """

    def __init__(self, config: Config, folder: str | Path) -> None:
        self.trainer = Trainer(config, folder)
        while self.trainer.step < config.trainer.warmup:
            self.trainer.collect()

    @cached_property
    def batch(self) -> Batch:
        """Windows of the replay for the world model."""
        return self.trainer.replay.sample()

    @cached_property
    def observed(self) -> Observed:
        """The encoded batch; the world model makes one update for it."""
        return self.trainer.train_world_model(self.batch)

    @cached_property
    def context(self) -> Context:
        """The contexts that imagined rollouts start from."""
        settings, trainer = self.trainer.config.imagination, self.trainer
        real = trainer.replay.sample(settings.starts, settings.context_length)
        context = trainer.phases.encode(real.frames, real.actions)
        return Context(*(part.clone() for part in context))  # a recording's are overwritten by its next call

    @cached_property
    def rollout(self) -> Rollout:
        """Imagined rollouts for the actor-critic."""
        return self.trainer.imagine(self.batch, self.observed)

    def work(self, phase: str) -> Work:
        """The work of a phase. Its inputs are prepared here, outside the measured time."""
        trainer = self.trainer
        match phase:
            case "world_model":
                return partial(trainer.train_world_model, self.batch)
            case "imagination":
                return partial(trainer.imagine, self.batch, self.observed)
            case "imagination_steps":
                return partial(trainer.phases.imagine, self.context, trainer.horizon)
            case "actor_critic":
                return partial(trainer.train_actor_critic, self.rollout)
        return partial(update, trainer)


def update(trainer: Trainer) -> None:
    """One training step, as in `Trainer.advance`."""
    batch = trainer.replay.sample()
    trainer.train_actor_critic(trainer.imagine(batch, trainer.train_world_model(batch)))


class Clock:
    """Times functions in turns, round after round, and shows how long is left.

    Args:
        trainer: whose machine is used.
        works: (phase, side) -> the function to time.
        tell: is called with the progress, as text.

    Attributes:
        spans: (phase, side) -> seconds, one number for each round.
    """

    def __init__(self, trainer: Trainer, works: Works, tell: Tell) -> None:
        self.machine, self.works, self.tell = trainer.machine, works, tell
        self.spans: dict[tuple[str, str], list[float]] = {key: [] for key in works}
        self.best: dict[tuple[str, str], float] = {}

    def warm_up(self) -> None:
        """Calls every function once without keeping its time: the first call is slower."""
        for number, (key, work) in enumerate(self.works.items(), 1):
            self.tell(f"warming up, {number} of {len(self.works)}: {shown(*key)}")
            self.best[key] = hardware.seconds(self.machine, work)

    def run(self, repeats: int) -> None:
        """Times all functions one after the other, `repeats` times."""
        for turn in range(1, repeats + 1):
            rest = dict(self.best)
            for key, work in self.works.items():
                left = sum(rest.values()) + (repeats - turn) * sum(self.best.values())
                self.tell(f"round {turn} of {repeats}: {shown(*key)}; about {duration(left)} left of these")
                self.spans[key].append(self.time(key[1], work))
                self.best[key] = min(self.best[key], self.spans[key][-1])
                del rest[key]

    def time(self, side: str, work: Work) -> float:
        """Seconds of one call. As in training, a fast side reuses the memory of the step before."""
        if side == "reference":
            return hardware.seconds(self.machine, work)
        with memory_kept(self.machine.device):
            work()
            return hardware.seconds(self.machine, work)

    def compare(self, phase: str, side: str) -> dict[str, Any]:
        """One row of the result: median seconds of a side and of the reference, and the median of their ratios.

        A ratio is formed in each round: reference / side.
        """
        fast, reference = self.spans[phase, side], self.spans[phase, "reference"]
        ratios = [slow / quick for quick, slow in zip(fast, reference, strict=True)]
        return {
            "fast_s": median(fast),
            "reference_s": median(reference),
            "ratio": median(ratios),
            "fast_each_s": fast,
            "reference_each_s": reference,
            "ratios": ratios,
        }


def shown(phase: str, side: str) -> str:
    """A phase and its side in the words of the table."""
    return f"{phase}, {SIDES[side]}"


def peak(config: Config) -> int | None:
    """Peak memory of a process that trains, in bytes; see `hardware.peak_memory`. It needs a process of its own."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = TimedTrainer(config, folder).trainer
        device = trainer.machine.device
        with nullcontext() if config.runtime.accelerate == "off" else memory_kept(device):
            for _ in range(2):  # with the optimisers' states, and what is recorded at the second step
                update(trainer)
        return hardware.peak_memory(device)


def step_costs(trainer: Trainer, repeats: int, tell: Tell) -> dict[int, float]:
    """Seconds of a training step of the config as it is, at the first, a middle and the last horizon of the run.

    Returns:
        Horizon -> seconds; 0 is a step before `imagination.begin`, which trains the world model alone.
    """
    settings, before = trainer.config.imagination, trainer.step
    growths = min(trainer.config.trainer.env_steps // settings.horizon_growth, settings.horizon_growth_limit)
    costs = {}
    points = sorted({0, growths // 2, growths})
    for number, growth in enumerate(points, 1):
        trainer.step = growth * settings.horizon_growth
        tell(f"timing steps as configured, at horizon {trainer.horizon}, {number} of {len(points)}")
        with memory_kept(trainer.machine.device):
            for _ in range(2 if trainer.machine.recorder else 1):  # the second call of a recording records it
                update(trainer)
            spans = [hardware.seconds(trainer.machine, partial(update, trainer)) for _ in range(min(repeats, 2))]
        costs[trainer.horizon] = median(spans)
    if settings.begin > trainer.config.trainer.warmup:
        alone = partial(trainer.train_world_model, trainer.replay.sample())
        with memory_kept(trainer.machine.device):
            costs[0] = median(hardware.seconds(trainer.machine, alone) for _ in range(min(repeats, 2)))
    trainer.step = before
    return costs


def run_hours(config: Config, costs: Mapping[int, float], speeds: Mapping[str, float]) -> float:
    """Hours of one whole run: games, acting and updates, without evaluation and saving.

    Args:
        config: of the run.
        costs: from `step_costs`; between horizons they are interpolated.
        speeds: steps per second, from `hardware.game_speeds`.
    """
    settings, run = config.imagination, config.trainer
    steps = np.arange(run.warmup + 1, run.env_steps + 1)
    steps = steps[steps % run.update_every == 0]
    horizons = settings.horizon + np.minimum(steps // settings.horizon_growth, settings.horizon_growth_limit)
    horizons[steps <= settings.begin] = 0
    known = sorted(costs)
    updates = np.interp(horizons, known, [costs[horizon] for horizon in known]).sum()
    first = config.random_steps
    acting = (run.env_steps - first) / speeds["acting_and_game"] + first / speeds["game_alone"]
    return float(updates + acting) / 3600


if __name__ == "__main__":
    sys.stdout.write(json.dumps(peak(Config.from_dict(json.load(sys.stdin)))) + "\n")
