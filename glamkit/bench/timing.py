"""Times training: both sides of a step in turns for `benchmark`, and how long a whole run takes.

As a program it reads a config from its standard input and prints the `hours` of a whole run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.notebook import Tell, duration
from glamkit.runtime import Machine, memory_kept
from glamkit.training.trainer import Trainer
from glamkit.types import Context

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
SPAN = 0.3  # seconds over which agent steps are timed
Work = Callable[[], Any]
Works = Mapping[tuple[str, str], Work]


def played(config: Config, folder: str | Path) -> Trainer:
    """A trainer in an empty folder that has played its random steps."""
    trainer = Trainer(config, folder)
    while trainer.step < config.trainer.warmup:
        trainer.collect()
    return trainer


def works_of(trainer: Trainer) -> dict[str, Work]:
    """The work of each phase. Its inputs are prepared here, outside the measured time, with a world model's update."""
    settings = trainer.config.imagination
    batch = trainer.replay.sample()
    observed = trainer.train_world_model(batch)
    real = trainer.replay.sample(settings.starts, settings.context_length)
    # Cloned: a recording's are overwritten by its next call.
    context = Context(*(part.clone() for part in trainer.phases.encode(real.frames, real.actions)))
    return {
        "world_model": partial(trainer.train_world_model, batch),
        "imagination": partial(trainer.imagine, batch, observed),
        "imagination_steps": partial(trainer.phases.imagine, context, trainer.horizon),
        "actor_critic": partial(trainer.train_actor_critic, trainer.imagine(batch, observed)),
        "step": partial(update, trainer),
    }


def update(trainer: Trainer) -> None:
    """One training step, as in `Trainer.advance`."""
    batch = trainer.replay.sample()
    trainer.train_actor_critic(trainer.imagine(batch, trainer.train_world_model(batch)))


def seconds(machine: Machine, work: Work) -> float:
    """Seconds that `work` takes, until the device has finished."""
    machine.synchronize()
    start = time.perf_counter()
    work()
    machine.synchronize()
    return time.perf_counter() - start


def in_turns(machine: Machine, works: Works, repeats: int, tell: Tell) -> dict[tuple[str, str], list[float]]:
    """Times functions one after the other, round after round: (phase, side) -> seconds, one number for each round.

    One more round before them does not count: the first call is slower.
    """
    spans: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    turns = [(turn, key) for turn in range(repeats + 1) for key in works]
    for place, (turn, key) in enumerate(turns):
        phase, side = key
        if turn:
            left = sum(min(spans[other]) for _, other in turns[place:])
            tell(f"round {turn} of {repeats}: {phase}, {SIDES[side]}; about {duration(left)} left of these")
        else:
            tell(f"warming up, {place + 1} of {len(works)}: {phase}, {SIDES[side]}")
        with nullcontext() if side == "reference" else memory_kept(machine.device):
            if side != "reference":
                works[key]()  # as in training, a fast side reuses the memory of the step before
            spans[key].append(seconds(machine, works[key]))
    return {key: each[1:] for key, each in spans.items()}


def run_hours(trainer: Trainer) -> float:
    """Hours of a whole run after its random steps, which are played already, without evaluation and saving.

    A few agent steps are timed in the middle of the run, since imagined rollouts grow. The part before
    `imagination.begin`, which trains the world model alone, is timed apart.
    """
    settings, now, total = trainer.config.trainer, trainer.step, 0.0
    begin = min(trainer.config.random_steps, settings.env_steps)
    for alone, first, last in ((True, settings.warmup, begin), (False, begin, settings.env_steps)):
        if first < last:
            trainer.step = (first + last) // 2
            with memory_kept(trainer.machine.device):
                total += (last - first) / settings.update_every / rate(partial(steps_to_update, trainer, alone))
    trainer.step = now
    return total / 3600


def steps_to_update(trainer: Trainer, alone: bool) -> None:
    """Agent steps up to an update, and the update: of everything, or of the world model alone."""
    for _ in range(trainer.config.trainer.update_every):
        trainer.collect()
    if alone:
        trainer.train_world_model(trainer.replay.sample())
    else:
        update(trainer)


def rate(work: Work) -> float:
    """Calls of `work` per second, over about `SPAN` seconds, after two to warm up."""
    for _ in range(2):  # the second call of a recording records it
        work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SPAN:
        work()
        done += 1
    return done / (time.perf_counter() - start)


def hours(config: Config) -> float:
    """`run_hours` of a new trainer that has played its random steps."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_hours(played(config, folder))


def hours_apart(config: Config, environment: Mapping[str, str]) -> float:
    """As `hours`, in a process of its own. A GlamkitError has the last line of its error."""
    command = [sys.executable, "-m", "glamkit.bench.timing"]
    done = subprocess.run(command, input=config.to_json(), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:  # killed, most likely for want of memory, where it says nothing
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise GlamkitError(f"{config.env.game} by {config.preset} could not be timed: {reason}")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{hours(Config.from_dict(json.load(sys.stdin)))}\n")
    except GlamkitError as error:
        sys.exit(str(error))
