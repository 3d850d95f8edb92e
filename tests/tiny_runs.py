"""Runs of seconds, for the tests of what trains and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glamkit.config import Config
from glamkit.presets import preset
from glamkit.trainer import Trainer

# Pong with so small a model that a run takes a second or two: 48 random steps, then updates up to step 64. Free nats
# would keep so fresh a prior from being trained at all.
SHORT = "trainer.env_steps=64 trainer.log_every=10 trainer.save_every=25 runtime.device=cpu"
SHORT += " world_model.free_nats=0 world_model.variation_free_nats=0"


def short(overrides: str = "", **shorthand: Any) -> Config:
    return preset("debug", f"{SHORT} {overrides}", **shorthand)


def finished(config: Config, folder: Path) -> Trainer:
    trainer = Trainer(config, folder)
    for _ in trainer:
        pass
    return trainer


def log(trainer: Trainer) -> list[dict[str, Any]]:
    """The log's lines without what the clock says."""
    lines = [json.loads(line) for line in trainer.run.log_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time")} for line in lines]


def after_steps(config: Config, folder: Path, steps: int) -> Trainer:
    """A trainer stopped from outside after some steps, wherever that is."""
    trainer = Trainer(config, folder)
    while trainer.step < steps:
        trainer.advance()
    return trainer
