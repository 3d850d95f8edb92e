"""Every number of an experiment: its sections, the named presets, and how a person changes them.

`sections` has the settings with their units and reasons, `presets` the named experiments, `fields` the checks.
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
