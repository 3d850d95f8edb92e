"""The GLAM that anyone can run.

config = glamkit.preset("quick", game="Pong", seed=1)
for event in glamkit.Trainer(config, "runs/pong"):
    ...
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP's threads spin while they wait for each other. On a machine that does anything else at the same time (a browser
# with JupyterLab is enough) spinning for long makes training many times slower, not spinning at all twice as slow on a
# quiet one. This is some 30 microseconds; it has to be said before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from glamkit.actor_critic import ActorCritic
    from glamkit.agent import Agent
    from glamkit.config import Config
    from glamkit.errors import GlamkitError
    from glamkit.evaluation import evaluate
    from glamkit.experience import Batch, Context, Rollout
    from glamkit.mamba import Mamba
    from glamkit.official import export_official, import_official
    from glamkit.presets import PRESETS, preset
    from glamkit.replay import Replay
    from glamkit.run import Run
    from glamkit.sequence_model import GMamba, LMamba, SequenceModel
    from glamkit.trainer import Event, Trainer
    from glamkit.world_model import WorldModel

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

# Where the public names live. A room is imported when a name of it is first used: so `import glamkit` is quick, and
# `python -m glamkit.doctor` runs even where torch itself is broken.
_ROOMS = {
    "actor_critic": ["ActorCritic"],
    "agent": ["Agent"],
    "config": ["Config"],
    "errors": ["GlamkitError"],
    "evaluation": ["evaluate"],
    "experience": ["Batch", "Context", "Rollout"],
    "mamba": ["Mamba"],
    "official": ["export_official", "import_official"],
    "presets": ["PRESETS", "preset"],
    "replay": ["Replay"],
    "run": ["Run"],
    "sequence_model": ["GMamba", "LMamba", "SequenceModel"],
    "trainer": ["Event", "Trainer"],
    "world_model": ["WorldModel"],
}


def __getattr__(name: str) -> Any:
    """Imports the room of a public name when the name is first used."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"glamkit.{room}"), name)
    raise AttributeError(f"module 'glamkit' has no attribute {name!r}")
