"""Measures a machine for `benchmark`: time, memory, game speed, other programs."""

from __future__ import annotations

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

from glamkit import __version__
from glamkit.envs.registry import make_env
from glamkit.runtime import Machine, device_name, own_cores
from glamkit.training.trainer import Trainer

STATUS, CORES = Path("/proc/self/status"), Path("/proc/stat")
Work = Callable[[], Any]


def seconds(machine: Machine, work: Work) -> float:
    """Seconds that `work` takes, until the device has finished."""
    machine.synchronize()
    start = time.perf_counter()
    work()
    machine.synchronize()
    return time.perf_counter() - start


def peak_memory(device: torch.device) -> int | None:
    """The most memory that this process has used so far, in bytes; None where it cannot be known.

    On a GPU it is what torch has reserved, recorded CUDA graphs included. On a CPU it is the process's resident set, as
    Linux reports it.
    """
    if device.type != "cpu":
        gpu: Any = torch.get_device_module(device)
        return int(gpu.max_memory_reserved(device)) if hasattr(gpu, "max_memory_reserved") else None
    result = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return 1024 * int(result[1]) if result else None


# Games ----------------------------------------------------------------------------------------------------------------


def game_speeds(trainer: Trainer, span: float = 1.0) -> dict[str, float]:
    """Environment steps per second; a step is `frame_skip` frames of an Atari game.

    Args:
        trainer: whose game and agent are measured.
        span: seconds of each measurement.

    Returns:
        ``game_alone``: one game with random actions. ``acting_and_game``: the agent acts, and steps are stored.
    """
    config, random = trainer.config, np.random.default_rng(0)
    weight = next(trainer.agent.world_model.encoder.parameters())
    game = make_env(config.env)
    game.reset(0)

    def play() -> None:
        if game.step(int(random.integers(game.num_actions))).ended:
            game.reset()

    def act() -> None:
        trainer.step = max(trainer.step, config.random_steps)
        trainer.collect()
        if trainer.step % config.trainer.update_every == 0:  # as an update would: what was encoded is of no use then
            torch.autograd.graph.increment_version(weight)

    return {"game_alone": rate(play, span), "acting_and_game": rate(act, span)}


def rate(work: Work, span: float) -> float:
    """Calls of `work` per second, over about `span` seconds, after two to warm up."""
    for _ in range(2):  # the second call of a recording records it
        work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < span:
        work()
        done += 1
    return done / (time.perf_counter() - start)


# The machine ----------------------------------------------------------------------------------------------------------


def describe(trainer: Trainer) -> dict[str, Any]:
    """The machine: names, versions, threads and cores."""
    return {
        "name": device_name(trainer.machine.device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cores": own_cores(),
        **trainer.machine.describe(),
        "kernel": trainer.kernel,
        "glamkit": __version__,
        "numpy": np.__version__,
        "ale_py": metadata.version("ale-py"),
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
