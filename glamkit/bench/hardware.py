"""What a machine can do, measured: matrix products, arithmetic of a phase, memory, games. For `benchmark`."""

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
from glamkit.envs.registry import make_env, make_vector
from glamkit.runtime import Machine, device_name, give_back_memory
from glamkit.training.trainer import Trainer

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(machine: Machine, work: Callable[[], Any]) -> float:
    """How long some work takes, until the device has done it."""
    machine.synchronize()
    start = time.perf_counter()
    work()
    machine.synchronize()
    return time.perf_counter() - start


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in some work, forward and backward.

    A product counts two for each multiply-add. Element-wise work, the scan and compiled code are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_rates(machine: Machine, size: int = 0, repeats: int = 5) -> dict[str, float]:
    """Floating-point operations per second of a large square matrix product: the best of a few, for each precision.

    Args:
        machine: float32 is measured, and `machine.precision` if that is another one.
        size: rows; by default one that takes a fraction of a second.
        repeats: products.
    """
    size, rates = size or (2048 if machine.device.type == "cpu" else 8192), {}
    for precision in dict.fromkeys((torch.float32, machine.precision)):
        left, right = torch.randn(2, size, size, device=machine.device, dtype=precision)
        spans = [seconds(machine, lambda a=left, b=right: a @ b) for _ in range(repeats + 1)]  # type: ignore[misc]
        rates[str(precision).removeprefix("torch.")] = 2 * size**3 / min(spans[1:])
    return rates


# Memory ---------------------------------------------------------------------------------------------------------------


class PeakMemory:
    """The most memory taken since `begin`: a GPU's by torch, recordings' too, on a CPU this process's resident set.

    Linux alone lets a process forget its largest resident set so far; elsewhere `read` says None for a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.known = device, False
        self.gpu: Any = None if device.type == "cpu" else torch.get_device_module(device)

    def begin(self) -> None:
        """Forgets what was used before."""
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
        """Bytes, or None where that cannot be known."""
        if not self.known:
            return None
        if self.gpu is not None:
            return int(self.gpu.max_memory_reserved(self.device))
        result = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return 1024 * int(result[1]) if result else None


# Games ----------------------------------------------------------------------------------------------------------------


def game_speeds(trainer: Trainer, span: float = 1.0) -> dict[str, float]:
    """Environment steps per second, each over `span` seconds; a step is `frame_skip` frames of an Atari game.

    Returns:
        ``game_alone``: one game, random actions. ``acting_and_game``: the agent's actions, and the step is stored.
        ``evaluation``: as many games side by side as the evaluation plays, random actions; all their steps count.
    """
    config, random = trainer.config, np.random.default_rng(0)
    game = make_env(config.env)
    game.reset(0)

    def play() -> int:
        if game.step(int(random.integers(game.num_actions))).ended:
            game.reset()
        return 1

    count = min(config.evaluation.episodes, config.evaluation.games)
    many = make_vector(config.env, count, 0)
    many.reset()

    def play_many() -> int:
        ended = many.step(random.integers(many.num_actions, size=count))[3]
        if ended.all():
            many.reset()
        return int((~ended).sum())

    def act() -> int:
        trainer.step = max(trainer.step, config.trainer.warmup)
        trainer.collect()
        return 1

    speeds = {"game_alone": rate(play, span), "acting_and_game": rate(act, span), "evaluation": rate(play_many, span)}
    many.close()
    return speeds


def rate(work: Callable[[], int], span: float) -> float:
    """What `work` returns, summed per second, over about `span` seconds; the first calls are not counted."""
    for _ in range(2):  # the second call of a recording records it
        work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < span:
        done += work()
    return done / (time.perf_counter() - start)


# The machine ----------------------------------------------------------------------------------------------------------


def describe(trainer: Trainer) -> dict[str, Any]:
    """What ran it: names, versions, threads, and how busy the machine was just before."""
    machine = trainer.machine
    return {
        "name": device_name(machine.device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **trainer.machine.describe(),
        "kernel": trainer.kernel,
        "glamkit": __version__,
        "numpy": np.__version__,
        "ale_py": metadata.version("ale-py"),
        "matrix_flops_per_s": matrix_rates(machine),
    }


def busy() -> float | None:
    """Programs that wanted a core over the last minute, on average; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
