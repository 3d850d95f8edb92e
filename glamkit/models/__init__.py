"""The paper's models: encoder, posterior, GMamba and LMamba, heads, losses, imagination, actor and critic.

Read `world_model` first, then `sequence_model`, `mamba` and `actor_critic`. Modules here know no device, file,
optimiser or clock. `released` reads and writes the weights of the authors' code.

Who changes a formula here trains with `runtime.accelerate=off` until its faster class in `training.accelerate` is
changed too: `tests/training/test_accelerate.py` and `tests/training/test_plain.py` show where the two differ.
"""

from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent
from glamkit.models.mamba import Mamba
from glamkit.models.released import export_released, import_released
from glamkit.models.sequence_model import GMamba, LMamba, SequenceModel
from glamkit.models.world_model import WorldModel

__all__ = [
    "ActorCritic",
    "Agent",
    "GMamba",
    "LMamba",
    "Mamba",
    "SequenceModel",
    "WorldModel",
    "export_released",
    "import_released",
]
