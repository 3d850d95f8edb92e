"""The agent at a few steps of its training, to look back at when the run is done.

A checkpoint holds all that a run needs to go on. It is large, and only the newest two are kept. A snapshot holds the
agent's weights alone, its matrices rounded to bfloat16. All snapshots of a run together take about as much disk as a
checkpoint and a half. Saving one draws no random number and changes nothing in training. Nothing needs them: the
folder may be deleted.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from glamkit.config import TrainerConfig
from glamkit.models.agent import Agent
from glamkit.runs.files import make_folder, sweep
from glamkit.training import checkpoint

COUNT = 8  # parts of the training; each but the last ends with a snapshot, and the last with a checkpoint


def steps_of(settings: TrainerConfig) -> list[int]:
    """The agent steps after which a snapshot is saved: close together at first, when most changes."""
    first, length = settings.warmup, settings.env_steps - settings.warmup
    steps = {first + round(length * (part / COUNT) ** 2) for part in range(1, COUNT)}
    return sorted(steps - {first, settings.env_steps})


def save(folder: Path, step: int, agent: Agent) -> None:
    """Writes a snapshot of the agent after `step` agent steps; the folder is made if need be.

    Raises:
        GlamkitError: the disk is full or the folder cannot be written.
    """
    make_folder(folder)
    state = {name: rounded(value) for name, value in agent.state_dict().items()}
    sweep(folder)
    checkpoint.write(folder / f"{step:09d}.pt", step, {"step": step, "agent": state})


def rounded(value: Tensor) -> Tensor:
    """A tensor of two or more axes in bfloat16, as a GPU multiplies it anyway; others as they are."""
    return value.to(torch.bfloat16) if value.is_floating_point() and value.dim() > 1 else value
