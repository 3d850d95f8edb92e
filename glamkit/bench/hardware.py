"""Measures a machine for `benchmark`: matrix products, operations of a phase, memory, game speed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from glamkit import __version__
from glamkit.bench.builds import own_cores
from glamkit.envs.registry import make_env, make_vector
from glamkit.runtime import Machine, device_name, give_back_memory
from glamkit.training.trainer import Trainer

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CORES = Path("/proc/stat")


def seconds(machine: Machine, work: Callable[[], Any]) -> float:
    """Seconds that `work` takes, until the device has finished."""
    machine.synchronize()
    start = time.perf_counter()
    work()
    machine.synchronize()
    return time.perf_counter() - start


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work`, forward and backward.

    A product counts two for each multiply-add. Element-wise work, the scan and compiled code are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_rates(machine: Machine, size: int = 0, repeats: int = 5) -> dict[str, float]:
    """Floating-point operations per second of a large square matrix product, for each precision; the best of a few.

    Args:
        machine: float32 is measured, and `machine.precision` if that is another one.
        size: rows and columns; 0 takes a size that needs a fraction of a second.
        repeats: products that are timed.
    """
    size, rates = size or (2048 if machine.device.type == "cpu" else 8192), {}
    for precision in dict.fromkeys((torch.float32, machine.precision)):
        left, right = torch.randn(2, size, size, device=machine.device, dtype=precision)
        spans = [seconds(machine, lambda a=left, b=right: a @ b) for _ in range(repeats + 1)]  # type: ignore[misc]
        rates[str(precision).removeprefix("torch.")] = 2 * size**3 / min(spans[1:])
    return rates


# Memory ---------------------------------------------------------------------------------------------------------------


class PeakMemory:
    """The most memory in use since `begin`, in bytes.

    On a GPU it is what torch has reserved, recorded CUDA graphs included. On a CPU it is this process's resident set.
    Only Linux can reset the largest resident set of a process; elsewhere `read` returns None for a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.known = device, False
        self.gpu: Any = None if device.type == "cpu" else torch.get_device_module(device)

    def begin(self) -> None:
        """Starts a new measurement."""
        if self.gpu is not None:
            self.known = hasattr(self.gpu, "reset_peak_memory_stats")
            if self.known:
                self.gpu.empty_cache()
                self.gpu.reset_peak_memory_stats(self.device)
            return
        give_back_memory()  # or the leftovers of one phase count as another's
        with contextlib.suppress(OSError):
            REFERENCES.write_text("5")
            self.known = True

    def read(self) -> int | None:
        """The peak in bytes, or None if it cannot be known."""
        if not self.known:
            return None
        if self.gpu is not None:
            return int(self.gpu.max_memory_reserved(self.device))
        result = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return 1024 * int(result[1]) if result else None


# Games ----------------------------------------------------------------------------------------------------------------


def game_speeds(trainer: Trainer, span: float = 1.0) -> dict[str, float]:
    """Environment steps per second; a step is `frame_skip` frames of an Atari game.

    Args:
        trainer: whose game and agent are measured.
        span: seconds of each measurement.

    Returns:
        ``game_alone``: one game with random actions. ``acting_and_game``: the agent acts, and steps are stored.
        ``evaluation``: the steps of all games that an evaluation plays side by side, with random actions.
    """
    config, random = trainer.config, np.random.default_rng(0)
    weight = next(trainer.agent.world_model.encoder.parameters())
    game = make_env(config.env)
    game.reset(0)

    def play() -> int:
        if game.step(int(random.integers(game.num_actions))).ended:
            game.reset()
        return 1

    count = min(config.evaluation.episodes, config.evaluation.games)
    many, seeds = make_vector(config.env, count), np.arange(count)
    many.reset(seeds)

    def play_many() -> int:
        ended = many.step(random.integers(many.num_actions, size=count))[3]
        if ended.all():
            many.reset(seeds)
        return int((~ended).sum())

    def act() -> int:
        trainer.step = max(trainer.step, config.random_steps)
        trainer.collect()
        if trainer.step % config.trainer.update_every == 0:  # as an update would: what was encoded is of no use then
            torch.autograd.graph.increment_version(weight)
        return 1

    speeds = {"game_alone": rate(play, span), "acting_and_game": rate(act, span), "evaluation": rate(play_many, span)}
    many.close()
    return speeds


def rate(work: Callable[[], int], span: float) -> float:
    """The sum per second of the numbers that `work` returns, over about `span` seconds, after two calls to warm up."""
    for _ in range(2):  # the second call of a recording records it
        work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < span:
        done += work()
    return done / (time.perf_counter() - start)


# The machine ----------------------------------------------------------------------------------------------------------


def describe(trainer: Trainer) -> dict[str, Any]:
    """The machine: names, versions, threads, cores, and matrix products in operations per second."""
    machine = trainer.machine
    return {
        "name": device_name(machine.device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cores": own_cores(),
        **trainer.machine.describe(),
        "kernel": trainer.kernel,
        "glamkit": __version__,
        "numpy": np.__version__,
        "ale_py": metadata.version("ale-py"),
        "matrix_flops_per_s": matrix_rates(machine),
    }


def busy() -> float | None:
    """The system's load average over the last minute; None where the system does not provide it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


class OtherPrograms:
    """How many of this process's cores other programs have kept busy since this was made.

    Only Linux says how long each core was busy; elsewhere `read` returns None.
    """

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.perf_counter(), core_seconds(), sum(os.times()[:4])

    def read(self) -> float | None:
        """Their mean number of busy cores, or None if it cannot be known."""
        now = core_seconds()
        if now is None or self.busy is None:
            return None
        others = now - self.busy - (sum(os.times()[:4]) - self.own)
        return max(0.0, others / (time.perf_counter() - self.began))


def core_seconds() -> float | None:
    """Seconds that the cores of this process have been busy since the system began; None where nothing says."""
    try:
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in CORES.read_text().splitlines()]
    except (AttributeError, OSError):
        return None
    spent = [map(int, line[1:8]) for line in lines if line[0] in cores]
    ticks = sum(user + nice + system + irq + soft for user, nice, system, _, _, irq, soft in spent)
    return ticks / os.sysconf("SC_CLK_TCK")
