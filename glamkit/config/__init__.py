"""Every number of an experiment: `sections` with units and reasons, `presets`, and `fields`, which check themselves.

Nothing here imports torch.
"""

from glamkit.config.fields import (
    Checked,
    add_once,
    at_least,
    coerce,
    falling,
    game_folder,
    game_name,
    parse_overrides,
    read_seeds,
    setting,
)
from glamkit.config.presets import PRESETS, preset
from glamkit.config.sections import (
    ActorCriticConfig,
    AgentConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    ImaginationConfig,
    OptimizerConfig,
    ReplayConfig,
    RuntimeConfig,
    TrainerConfig,
    WorldModelConfig,
    describe,
    differences,
    keys,
)
