"""Every number of an experiment, section by section; the published setting is each field's default.

Each field carries its unit, the reason it is there and its allowed range; `describe` prints them as a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from typing import Any, Literal

from glamkit.config.fields import Checked, coerce, falling, game_name, parse_overrides, setting
from glamkit.errors import GlamkitError, nearest


@dataclass(frozen=True)
class EnvConfig(Checked):
    """The game and how it is seen (paper: Atari 100k protocol)."""

    game: str = setting("Pong", "name", "an Atari game such as Pong, or a gymnasium id with image observations")
    image_size: int = setting(64, "pixels", "side of the square frame; 2 ** (2 + number of encoder layers)", 8, 256)
    frame_skip: int = setting(4, "frames", "one agent step; the last two frames are max-pooled against flicker", 1, 16)
    sticky: float = setting(0.25, "probability", "the last action is repeated: no game is replayed blindly", 0, 1)
    life_loss: bool = setting(True, "yes/no", "store a lost life as a termination; the game goes on until it is over")

    def __post_init__(self) -> None:
        super().__post_init__()  # a game has one name, whichever of its names was given
        object.__setattr__(self, "game", game_name(self.game))


@dataclass(frozen=True)
class ReplayConfig(Checked):
    """The ring of stored steps and how training windows are drawn from it."""

    capacity: int = setting(100_000, "steps", "the ring's size; older steps are overwritten", 64)
    batch_size: int = setting(32, "windows", "windows per world-model update", 1)
    sequence_length: int = setting(68, "steps", "length T of a window: S burn-in steps and 64 trained ones", 6)
    newest_windows: int = setting(5, "windows", "of each batch are the newest, so the present is always learned", 0)


@dataclass(frozen=True)
class WorldModelConfig(Checked):
    """Categorical autoencoder, GMamba + LMamba, heads and loss weights (paper section 3)."""

    channels: tuple[int, ...] = setting((32, 64, 128, 256), "channels", "of the encoder's stride-2 layers", 1)
    variables: int = setting(32, "variables", "K categorical variables in a latent", 1)
    classes: int = setting(32, "classes", "of each categorical variable", 2)
    unimix: float = setting(0.01, "share", "of uniform in every categorical: keeps KL finite", 0, 0.5)
    latents: Literal["sampled", "likeliest", "probabilities"] = setting(
        "sampled", "choice", "one-hot draws (as released), the likeliest classes, or probabilities: see motion sooner"
    )
    width: int = setting(256, "features", "D, width of tokens and of the hidden state", 8)
    blocks: int = setting(1, "blocks", "Mamba blocks in GMamba and in LMamba, stacked", 1, 32)
    state: int = setting(16, "states", "per channel of the selective state space", 1, 256)
    conv: int = setting(4, "taps", "of Mamba's causal convolution", 2, 4)
    expand: int = setting(2, "times", "inner width of a Mamba block over D", 1, 8)
    window: int = setting(4, "tokens", "S, what LMamba sees: the local variation", 1, 64)
    modules: Literal["both", "gmamba", "lmamba"] = setting(
        "both", "choice", "which modules add to the hidden state: both is the paper, the others are for ablation"
    )
    bins: int = setting(255, "bins", "of the two-hot reward distribution", 3)
    bin_limit: float = setting(20.0, "symlog units", "the bins span +- this", 1, 50)
    variation_head: Literal["frozen", "learned"] = setting(
        "frozen", "choice", "posterior of the variation: a fixed random projection (as released), or trained"
    )
    reward_scale: float = setting(1.0, "weight", "of the reward's loss: more where rewards are few, pictures rich", 0)
    foreground_scale: float = setting(0.0, "weight", "more for errors of small things that come and go; 0 = off", 0)
    foreground_threshold: float = setting(0.08, "of a pixel's range", "foreground departs by more than noise", 0, 1)
    dynamics_scale: float = setting(0.5, "weight", "of the KL that trains the prior", 0)
    representation_scale: float = setting(0.1, "weight", "of the KL that makes latents predictable", 0)
    variation_scale: float = setting(0.1, "weight", "of the KL that makes GMamba predict the variation", 0)
    free_nats: float = setting(1.0, "nats", "KL below this is not trained further", 0)
    variation_free_nats: float = setting(0.1, "nats", "the same for the variation", 0)


@dataclass(frozen=True)
class ImaginationConfig(Checked):
    """Where imagined rollouts start, how long they last and what they remember."""

    contexts: Literal["replay", "batch"] = setting(
        "replay", "choice", "encode fresh random windows (as released), or reuse the model update's latents"
    )
    memory: Literal["window", "recurrent"] = setting(
        "window", "choice", "re-read the last tokens at each step (as released), or carry the Mamba state"
    )
    begin: int = setting(0, "agent steps", "until then only the model learns, from random play: rollouts mislead", 0)
    starts: int = setting(1024, "rollouts", "imagined in parallel", 1)
    context_length: int = setting(8, "steps", "of real experience before a rollout; also the window it reads", 2, 64)
    horizon: int = setting(16, "steps", "H at the start of training", 1, 1024)
    horizon_growth: int = setting(3125, "agent steps", "for each, rollouts get one step longer: the model improves", 1)
    horizon_growth_limit: int = setting(32, "steps", "most that is added to the horizon", 0, 1024)


@dataclass(frozen=True)
class ActorCriticConfig(Checked):
    """Actor and critic on the imagined states (paper section 3; STORM's settings)."""

    layers: int = setting(2, "layers", "hidden layers of actor and critic", 1, 16)
    width: int = setting(512, "features", "of each hidden layer", 8)
    bins: int = setting(255, "bins", "of the two-hot value distribution", 3)
    bin_limit: float = setting(20.0, "symlog units", "the bins span +- this", 1, 50)
    discount: float = setting(0.985, "per step", "gamma: how much the next step counts", 0, 1)
    trace: float = setting(0.95, "per step", "lambda of the lambda-return: bias against variance", 0, 1)
    bootstrap: Literal["current", "next"] = setting("current", "choice", "in returns: V(s_t) as released, or V(s_t+1)")
    slow_decay: float = setting(0.98, "per update", "EMA of the slow critic", 0, 1)
    range_decay: float = setting(0.99, "per update", "EMA of the return range that scales advantages", 0, 1)
    range_percentile: float = setting(0.05, "share", "returns cut off at each end when the range is measured", 0, 0.5)
    entropy: float = setting(3e-4, "weight", "of the policy's entropy: keeps exploration alive", 0)
    final_entropy: float = setting(1.0, "of entropy", "the weight at the run's end; it falls evenly", 0, 1)


@dataclass(frozen=True)
class AgentConfig(Checked):
    """How the agent acts in the real game."""

    acting: Literal["prior", "posterior"] = setting(
        "prior", "choice", "act on the predicted latent (as released) or on the one seen in the current frame"
    )
    context: Literal["carried", "reset"] = setting(
        "carried", "choice", "at an episode's end keep the context (as released) or empty it"
    )
    context_length: int = setting(16, "steps", "of past frames and actions that acting looks at", 2, 256)


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """Adam and its gradient clip."""

    learning_rate: float = setting(1e-4, "per update", "Adam's step size", 1e-8, 1)
    final_rate: float = setting(1.0, "of learning_rate", "the step size at the run's end; it falls evenly", 0, 1)
    epsilon: float = setting(1e-8, "-", "Adam's denominator floor", 1e-16, 1)
    clip: float = setting(1000.0, "gradient norm", "larger gradients are scaled down to this", 1e-6)

    def rate(self, progress: float) -> float:
        """Adam's step size when `progress` (0 to 1) of the training is done."""
        return float(falling(self.learning_rate, self.final_rate, progress))


@dataclass(frozen=True)
class TrainerConfig(Checked):
    """The loop: how long, how often."""

    seed: int = setting(1, "-", "everything random in a run derives from it", 0, 2**31 - 1)
    env_steps: int = setting(102_000, "agent steps", "length of the run; one step is frame_skip game frames", 1)
    warmup: int = setting(1024, "agent steps", "random actions before the first update", 1)
    update_every: int = setting(1, "agent steps", "between two updates of world model and actor-critic", 1)
    log_every: int = setting(100, "agent steps", "metrics are averaged over this and written as one line", 1)
    save_every: int = setting(2500, "agent steps", "between two checkpoints", 1)

    @property
    def updates(self) -> int:
        """Updates of the world model in the whole run."""
        return max(self.env_steps // self.update_every - self.warmup // self.update_every, 0)

    def next_update(self, step: int) -> int:
        """The first agent step after `step` that ends with an update."""
        return (max(step, self.warmup) // self.update_every + 1) * self.update_every

    def progress(self, step: int) -> float:
        """How much of the training is done after so many agent steps: 0 until the first update, 1 at the end."""
        return max(step - self.warmup, 0) / (self.env_steps - self.warmup)


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """The protocol of the final score."""

    episodes: int = setting(20, "episodes", "played with the final policy (published: 20)", 1, 1000)
    sampled: bool = setting(True, "yes/no", "sample actions as published; no = the most likely action")
    episode_steps: int = setting(27_000, "agent steps", "an episode is cut here (108,000 frames, ALE's rule)", 1)
    games: int = setting(20, "games", "side by side; each episode has a seed: this changes no average", 1, 1000)
    sticky: Literal["env", "on", "off"] = setting("env", "choice", "sticky actions: as in env.sticky, on (0.25) or off")
    no_ops: int = setting(0, "frames", "idle at most at an episode's start (as released 0, elsewhere 30)", 0, 1000)
    every: int = setting(0, "agent steps", "between two evaluations during training; 0: at its end only", 0)


@dataclass(frozen=True)
class RuntimeConfig(Checked):
    """The machine, never the result."""

    device: str = setting("auto", "name", "auto takes a CUDA GPU when there is one; or cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "choice", "of convolutions and products (float32: TF32 on CUDA GPUs); losses and scans stay float32"
    )
    kernel: Literal["auto", "glamkit", "mamba-ssm"] = setting("auto", "choice", "GMamba's scan: auto is glamkit's own")
    accelerate: str = setting("on", "choice", "faster classes: on, off (then not compiled either), or rules left out")
    compile: Literal["auto", "on", "off"] = setting("auto", "choice", "torch.compile: slow to begin; auto: long runs")
    record: bool = setting(True, "yes/no", "on CUDA GPUs a phase's kernels are recorded once and start together")
    tensorboard: bool = setting(False, "yes/no", "also write the log for TensorBoard, into tensorboard/ of the run")
    deterministic: bool = setting(False, "yes/no", "on GPUs only kernels that repeat to the bit: slower")
    max_hours: float = setting(0.0, "hours", "then the run saves and stops; start it again to go on; 0 = no limit", 0)
    env_crashes: int = setting(10, "crashes", "of the game, answered by starting it anew; after more the run stops", 0)


@dataclass(frozen=True)
class Config:
    """One experiment. `preset` is the name it was made from; it changes nothing by itself."""

    preset: str = "atari100k"
    env: EnvConfig = EnvConfig()
    replay: ReplayConfig = ReplayConfig()
    world_model: WorldModelConfig = WorldModelConfig()
    imagination: ImaginationConfig = ImaginationConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    agent: AgentConfig = AgentConfig()
    world_model_optimizer: OptimizerConfig = OptimizerConfig()
    actor_critic_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-5, epsilon=1e-5, clip=100.0)
    trainer: TrainerConfig = TrainerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def __post_init__(self) -> None:
        """Checks what only two fields together can get wrong."""
        world, replay, imagination, trainer = self.world_model, self.replay, self.imagination, self.trainer
        layers, window = len(world.channels), world.window
        side, source = 4 * 2**layers, replay.sequence_length if imagination.contexts == "batch" else inf
        longest = max(replay.sequence_length, imagination.context_length)
        filled = longest + max(replay.newest_windows, 1) - 1
        first = trainer.next_update(self.random_steps)
        begin = f"trainer.warmup = {trainer.warmup}, imagination.begin = {imagination.begin}, trainer.update_every = "
        for key, low, high, why in (
            ("env.image_size", side, side, f"{layers} encoder layers (world_model.channels) that halve it"),
            ("replay.sequence_length", window + 2, inf, f"world_model.window = {window}"),
            ("replay.newest_windows", 0, replay.batch_size, f"replay.batch_size = {replay.batch_size}"),
            ("imagination.context_length", window, inf, f"world_model.window = {window}"),
            ("imagination.context_length", 0, source, "the windows that contexts are cut from"),
            ("trainer.warmup", filled, inf, "a batch of windows, which it has to fill"),
            ("trainer.env_steps", first, inf, f"{begin}{trainer.update_every}: nothing would be trained"),
            ("replay.capacity", trainer.warmup, inf, f"trainer.warmup = {trainer.warmup}"),
            ("agent.context_length", window, inf, f"world_model.window = {window}"),
        ):
            section, name = key.split(".")
            value = getattr(getattr(self, section), name)
            if not low <= value <= high:
                allowed = low if low == high else f"at least {low}" if value < low else f"at most {high}"
                raise GlamkitError(f"{key} = {value} does not fit {why}; use {allowed}.")

    @property
    def random_steps(self) -> int:
        """Agent steps at the run's beginning in which actions are random."""
        return max(self.trainer.warmup, self.imagination.begin)

    def override(self, changes: str | Mapping[str, Any]) -> Config:
        """A copy with dotted keys replaced; all at once, so that two fields that must agree can change together.

        They are given as text, such as ``"trainer.warmup=300 env.sticky=0"``, or as a mapping.

        Raises:
            GlamkitError: unknown key, wrong type, or a value out of range.
        """
        tables: dict[str, dict[str, Any]] = {}
        for key, value in parse_overrides(changes).items():
            if key not in keys():
                raise GlamkitError(f"unknown setting {key!r}; {nearest(key, keys())}")
            section, name = key.split(".")
            tables.setdefault(section, {})[name] = value
        sections = {}
        for section, table in tables.items():
            try:
                sections[section] = replace(getattr(self, section), **table)
            except GlamkitError as error:
                raise GlamkitError(f"{section}.{error}") from None
        return replace(self, **sections)

    def to_json(self) -> str:
        """The whole config as indented JSON."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_dict(data: Any) -> Config:
        """Inverse of `dataclasses.asdict`; unknown or misspelt keys are refused by name."""
        if not isinstance(data, Mapping):
            raise GlamkitError(f"a config is a table of sections, not {type(data).__name__}.")
        preset = coerce("preset", data.get("preset", "atari100k"), str)
        flat = {
            f"{section}.{key}": value
            for section, table in data.items()
            if section != "preset"
            for key, value in (table.items() if isinstance(table, Mapping) else [("", table)])
        }
        return Config(preset=preset).override(flat)


def keys() -> list[str]:
    """All dotted keys, in the order of the file."""
    return [key for key, *_ in describe(Config())]


def describe(config: Config) -> Iterator[tuple[str, Any, str, str]]:
    """Rows (dotted key, value, unit, why): the whole experiment as a table."""
    for section in fields(config):
        table = getattr(config, section.name)
        if section.name != "preset":
            for item in fields(table):
                unit, why = item.metadata["unit"], item.metadata["why"]
                yield f"{section.name}.{item.name}", getattr(table, item.name), unit, why


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    pairs = zip(describe(one), describe(other), strict=True)
    return {key: (value, theirs) for (key, value, *_), (_, theirs, *_) in pairs if value != theirs}
