"""Runs of seconds, for the tests of what trains and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from glamkit.config import Config, parse_overrides, preset
from glamkit.sweeps import plan as planning
from glamkit.sweeps.job import Job
from glamkit.training.trainer import Trainer

# Pong with so small a model that a run takes a second or two: 48 random steps, then updates up to step 64. Free nats
# would keep so fresh a prior from being trained at all.
SHORT = "trainer.env_steps=64 trainer.log_every=10 trainer.save_every=25 runtime.device=cpu"
SHORT += " world_model.free_nats=0 world_model.variation_free_nats=0"


def short(overrides: str = "", **shorthand: Any) -> Config:
    settings = parse_overrides(SHORT) | parse_overrides(overrides)
    if "env_steps" in shorthand:  # a setting may be given once
        del settings["trainer.env_steps"]
    return preset("debug", settings, **shorthand)


def finished(config: Config, folder: Path) -> Trainer:
    trainer = Trainer(config, folder)
    for _ in trainer:
        pass
    return trainer


def log(trainer: Trainer | Job) -> list[dict[str, Any]]:
    """The log's lines without what the clock says."""
    lines = [json.loads(line) for line in trainer.run.log_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time")} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Bit for bit, through tables, lists and tensors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    return one == other


def after_steps(config: Config, folder: Path, steps: int) -> Trainer:
    """A trainer stopped from outside after some steps, wherever that is."""
    trainer = Trainer(config, folder)
    while trainer.step < steps:
        trainer.advance()
    return trainer


def catch_jobs(folder: Path, count: int = 4) -> list[Job]:
    """A batch of tiny runs of Catch, none of which is begun."""
    plan = planning.make("glamkit/Catch-v0", f"1-{count}", "debug", overrides="runtime.device=cpu", folder=folder)
    return [entry.job(folder) for entry in plan.entries]


def evaluated(job: Job) -> None:
    """Gives a run its evaluation."""
    job.run.begin(job.config, {})
    job.run.evaluation_file.write_text(json.dumps({"mean_return": 1.5, "step": job.total}))
