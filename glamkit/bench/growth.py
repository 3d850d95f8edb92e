"""How cost grows with what is asked for: horizon, batch, sequence length, width. For ``benchmark --growth``.

Only the fast side is timed, and not compiled unless that is asked for: every size would be compiled anew. That a
sequence twice as long costs twice as much is the Mamba family's claim. Whether it does is said by the slope of a line
through the logarithms (1 is linear) and by how well a straight line with a fixed part fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.bench import hardware
from glamkit.bench.timing import Tell, TimedTrainer
from glamkit.config import Config
from glamkit.runtime import memory_kept
from glamkit.training.trainer import Trainer

LENGTHS = (32, 64, 128, 256, 512)
HORIZONS = (8, 16, 32, 64)
FACTORS = (0.25, 0.5, 1, 2)
ROOM = 600  # random steps that hold a window of the longest length


class GrowthPoint(NamedTuple):
    """One size of one sweep: the config to time, and the phases that it is timed on."""

    sweep: str
    value: int
    config: Config
    phases: tuple[str, ...]


SWEEPS = {
    "horizon": "imagined steps",
    "batch_size": "windows",
    "sequence_length": "steps",
    "width": "features",
}


def points(config: Config) -> Iterator[GrowthPoint]:
    """All sizes, scaled to the config; the published ones take minutes on two CPU cores."""
    replay, width, both = config.replay, config.world_model.width, ("world_model", "sequence_model")
    for horizon in HORIZONS:
        changes = {"imagination.horizon": horizon, "imagination.horizon_growth_limit": 0}
        yield GrowthPoint("horizon", horizon, config.override(**changes), ("imagination_steps",))
    for count in dict.fromkeys(max(1, round(factor * replay.batch_size)) for factor in FACTORS):
        yield GrowthPoint("batch_size", count, sized(config, count, replay.sequence_length), both)
    # About twice the usual number of frames in the largest batch, so that it takes about twice as long.
    count = max(1, round(2 * replay.batch_size * replay.sequence_length / LENGTHS[-1]))
    for length in LENGTHS:
        yield GrowthPoint("sequence_length", length, sized(config, count, length), both)
    for factor in (0.5, 1, 2, 4):
        wide = max(8, round(factor * width))
        yield GrowthPoint("width", wide, config.override(**{"world_model.width": wide}), both)


def sized(config: Config, count: int, length: int) -> Config:
    """The config with batches of `count` windows of `length` steps, and with room for them."""
    warmup = max(config.trainer.warmup, ROOM)
    return config.override(
        **{
            "replay.batch_size": count,
            "replay.sequence_length": length,
            "replay.newest_windows": min(count, config.replay.newest_windows),
            "replay.capacity": max(config.replay.capacity, warmup),
            "trainer.warmup": warmup,
            "trainer.env_steps": max(config.trainer.env_steps, warmup + 1),
        }
    )


def measure(config: Config, repeats: int, tell: Tell, among: Sequence[str] = tuple(SWEEPS)) -> dict[str, Any]:
    """Seconds of the phases at every size, and what line they follow.

    Args:
        config: the experiment.
        repeats: times each is timed, after once that is not kept.
        tell: is told what is being timed.
        among: the sweeps wanted.

    Returns:
        For each sweep its ``unit``, its ``values`` and, for each of its phases, ``seconds``, ``exponent`` and
        ``straight_line`` (see `fit`).
    """
    sweeps: dict[str, Any] = {}
    if config.runtime.compile == "auto":
        config = config.override(**{"runtime.compile": "off"})
    chosen = [point for point in points(config) if point.sweep in among]
    for number, point in enumerate(chosen, 1):
        tell(f"growth, {number} of {len(chosen)}: {point.sweep} = {point.value}")
        torch.compiler.reset()  # or after a few sizes compilers give up and run everything as it is
        sweep = sweeps.setdefault(point.sweep, {"unit": SWEEPS[point.sweep], "values": [], "phases": {}})
        sweep["values"].append(point.value)
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            bench = TimedTrainer(point.config, folder)
            for phase in point.phases:
                work = partial(read, bench.trainer) if phase == "sequence_model" else bench.fast(phase)
                with memory_kept(bench.trainer.machine.device):
                    spans = [hardware.seconds(bench.trainer.machine, work) for _ in range(repeats + 1)]
                sweep["phases"].setdefault(phase, {"seconds": []})["seconds"].append(median(spans[1:]))
    for sweep in sweeps.values():
        for row in sweep["phases"].values():
            row |= fit(sweep["values"], row["seconds"])
    return sweeps


def read(trainer: Trainer) -> None:
    """GMamba and LMamba alone over one batch of made-up tokens, forward and backward."""
    config, model = trainer.config, trainer.agent.world_model.sequence_model
    shape = (config.replay.batch_size, config.replay.sequence_length, config.world_model.width)
    tokens = torch.randn(shape, device=trainer.machine.device, requires_grad=True)
    with trainer.machine.autocast():
        hidden, _ = model(tokens)
    hidden.sum().backward()


def fit(values: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    """The slope of the logarithms, and the straight line: fixed seconds, seconds per unit, share of variance kept."""
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    each, fixed = np.polyfit(x, y, 1)
    kept = 1 - ((y - fixed - each * x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    line = {"fixed_s": float(fixed), "per_unit_s": float(each), "r2": float(kept)}
    return {"exponent": float(exponent), "straight_line": line}
