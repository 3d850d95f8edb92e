"""What the agent was at a few moments of its training, to look back at when the run is done.

A checkpoint holds all that a run needs to go on; it is large, and only the newest two are kept. A keepsake holds the
agent's weights alone, its matrices rounded to bfloat16: enough to see how what it sees and expects came about. So all
keepsakes of a run together take about as much room as a checkpoint and a half. Keeping one draws no random number and
changes nothing, and nothing needs them: the folder may be deleted.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from glamkit.config import TrainerConfig
from glamkit.models.agent import Agent
from glamkit.runs.files import sweep
from glamkit.training import checkpoint

COUNT = 8  # parts that training is divided into; a keepsake at the end of each but the last, whose end is a checkpoint


def moments(settings: TrainerConfig) -> list[int]:
    """The agent steps after which a keepsake is left: close together at first, when most changes."""
    first, length = settings.warmup, settings.env_steps - settings.warmup
    steps = {first + round(length * (part / COUNT) ** 2) for part in range(1, COUNT)}
    return sorted(steps - {first, settings.env_steps})


def keep(folder: Path, step: int, agent: Agent) -> None:
    """Writes a keepsake.

    Raises:
        GlamkitError: the disk is full or the folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    state = {name: rounded(value) for name, value in agent.state_dict().items()}
    sweep(folder)
    checkpoint.write(folder / f"{step:09d}.pt", step, {"step": step, "agent": state})


def rounded(value: Tensor) -> Tensor:
    """A matrix or a kernel in bfloat16, as a GPU multiplies it anyway; anything smaller as it is."""
    return value.to(torch.bfloat16) if value.is_floating_point() and value.dim() > 1 else value
