"""glamkit: the GLAM that anyone can run.

    config = glamkit.preset("quick", game="Pong", seed=1)
    for event in glamkit.Trainer(config, "runs/pong"):
        ...
"""

import os

# OpenMP's threads by default spin while they wait for each other. On a machine that does anything else at the same time
# (a browser with JupyterLab is enough) that makes training many times slower; waiting asleep costs next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from glamkit.actor_critic import ActorCritic
from glamkit.agent import Agent
from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.evaluation import evaluate
from glamkit.mamba import Mamba
from glamkit.official import export_official, import_official
from glamkit.presets import PRESETS, preset
from glamkit.replay import Batch, Replay
from glamkit.run import Run
from glamkit.sequence_model import GMamba, LMamba, SequenceModel
from glamkit.trainer import Event, Trainer
from glamkit.world_model import Context, Rollout, WorldModel

__all__ = [
    "PRESETS",
    "ActorCritic",
    "Agent",
    "Batch",
    "Config",
    "Context",
    "Event",
    "GMamba",
    "GlamkitError",
    "LMamba",
    "Mamba",
    "Replay",
    "Rollout",
    "Run",
    "SequenceModel",
    "Trainer",
    "WorldModel",
    "evaluate",
    "export_official",
    "import_official",
    "preset",
]
