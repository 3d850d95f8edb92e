"""Runs made by hand: finished ones with known scores, without any training, and opened ones with any model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from glamkit.config import Config, RuntimeConfig, preset
from glamkit.models.world_model import WorldModel
from glamkit.runs.folder import Run
from glamkit.runtime import Machine
from glamkit.training.evaluation import card
from glamkit.training.load import LoadedRun
from glamkit.training.replay import Replay


def report_of(config: Config, returns: list[float], **changes: Any) -> dict[str, Any]:
    """What an evaluation would have written."""
    return {
        "episodes": [{"return": value, "length": 100, "cut": False, "seed": n} for n, value in enumerate(returns)],
        "mean_return": float(np.mean(returns)),
        "step": config.trainer.env_steps,
        "protocol": card(config, 0),
        **changes,
    }


def made_run(folder: Path, returns: list[float], overrides: str = "", name: str = "atari100k", **changes: Any) -> Run:
    """A finished run of a preset; `changes` are of its evaluation.json, but for `game` and `seed`."""
    shorthand = {key: changes.pop(key) for key in ("game", "seed") if key in changes}
    config = preset(name, overrides, **shorthand)
    run = Run(folder)
    folder.mkdir(parents=True)
    run.begin(config, {})
    steps = np.linspace(0, config.trainer.env_steps, 41)[1:].astype(int)
    level = np.mean(returns) * (1 - np.exp(-3 * steps / steps[-1]))
    noise = np.random.default_rng(config.trainer.seed).normal(0, 0.1 * abs(np.mean(returns)) + 0.1, len(steps))
    lines = [
        {"step": int(step), "kind": "episode", "episode/return": float(value), "episode/length": 100.0}
        for step, value in zip(steps, level + noise, strict=True)
    ]
    run.log_file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    run.evaluation_file.write_text(json.dumps(report_of(config, returns, **changes)))
    return run


def made_two_games(folder: Path) -> Path:
    """Pong and Boxing of the published setting, with two seeds each: one plays like a human and one at random."""
    for game, levels in {"Pong": (14.6, -20.7), "Boxing": (12.1, 0.1)}.items():
        for seed, level in enumerate(levels, 1):
            made_run(folder / f"{game}-{seed}", [level - 1, level + 1], game=game, seed=seed)
    return folder


def looked_into(model: WorldModel, replay: Replay, config: Config) -> LoadedRun:
    """An opened run of which there are only a world model, stored steps and settings."""
    agent: Any = SimpleNamespace(world_model=model)
    machine = Machine(RuntimeConfig(device="cpu", precision="float32"))
    return LoadedRun(Run("nowhere"), config, 0, agent, machine, replay, ())
