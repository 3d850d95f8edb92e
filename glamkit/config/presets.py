"""The named experiments, and how they are changed by hand."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from glamkit.config.fields import add_once, parse_overrides
from glamkit.config.sections import Config, keys
from glamkit.errors import GlamkitError, nearest

# What the small models for CPUs have in common.
SMALL: Mapping[str, Any] = {
    "world_model.variables": 16,
    "world_model.classes": 16,
    "world_model.width": 128,
    "world_model.variation_free_nats": 0.0,
    # A policy that reads codes must follow as they change: once they hardly do, it catches up in 150 updates.
    # With less than this its rollouts are less accurate in the end.
    "world_model_optimizer.final_rate": 0.2,
    # The sequence model's gradients are small: with 1e-6 its steps are large, and now and then it breaks down.
    "world_model_optimizer.epsilon": 1e-4,
    "actor_critic.width": 128,
    "replay.newest_windows": 1,
    "imagination.contexts": "batch",
    "imagination.memory": "recurrent",
}
PRESETS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        # The published setting: a GPU's work. The defaults above.
        "atari100k": {},
        # A small model that learns what a game looks like in minutes on two CPU cores.
        "quick": {
            **SMALL,
            # At full size a layer costs most. Nothing is seen worse with half as many channels there.
            "world_model.channels": (8, 32, 64, 64),
            "world_model.latents": "probabilities",
            # All that moves in Pong fits below the published free nats, where nothing would be predicted.
            "world_model.free_nats": 0.1,
            # Small things count: without it Pong's ball, two pixels of 4,096, is the last thing to be learned.
            "world_model.foreground_scale": 30.0,
            "world_model.dynamics_scale": 2.0,
            # With 0.2 the last steps are so large that five steps ahead each update sees the ball elsewhere.
            "world_model_optimizer.final_rate": 0.05,
            "replay.batch_size": 4,
            "replay.sequence_length": 12,
            # Random play costs a millisecond a step, dreams and acting a hundred: the model learns by itself first.
            "imagination.begin": 10_800,
            "imagination.starts": 64,
            "imagination.horizon": 8,
            "trainer.env_steps": 11_000,
            # Rallies are rare: more play to learn from costs nearly nothing, and shows more of them.
            "trainer.warmup": 4_000,
            "trainer.log_every": 50,
            "trainer.save_every": 1_000,
            "evaluation.episodes": 2,
            "evaluation.episode_steps": 500,
            # Compiling takes longer than it saves in so few, so small updates.
            "runtime.compile": "off",
            "world_model_optimizer.learning_rate": 1e-3,
            "actor_critic_optimizer.learning_rate": 1e-4,
        },
        # A whole game of the Atari 100k protocol in a few hours of one CPU core.
        "laptop": {
            **SMALL,
            "world_model.channels": (16, 32, 64, 64),
            # Draws hide small things for long; the likeliest classes are predicted worse.
            "world_model.latents": "probabilities",
            # One step in thirty or fewer brings a reward.
            "world_model.reward_scale": 3.0,
            "world_model.free_nats": 0.1,
            # 30 shows a ball sooner; where much moves, as in Boxing, the forecast then has too much to learn.
            "world_model.foreground_scale": 10.0,
            # What holds imagination back is the forecast.
            "world_model.dynamics_scale": 2.0,
            "world_model_optimizer.learning_rate": 1e-3,
            "actor_critic.bootstrap": "next",
            # With 0.003 a policy has decided within 300 updates, and lives off the model's faults.
            "actor_critic.entropy": 0.01,
            "actor_critic.final_entropy": 0.1,
            # With 1e-4 a policy is still at 83 % of its entropy where 1e-3 has decided.
            "actor_critic_optimizer.learning_rate": 1e-3,
            "replay.batch_size": 8,
            "replay.sequence_length": 32,
            "imagination.begin": 6_000,
            "imagination.starts": 256,
            "imagination.horizon": 12,
            "imagination.horizon_growth_limit": 0,
            "agent.acting": "posterior",
            "trainer.env_steps": 100_000,
            "trainer.warmup": 2_000,
            # Updates take nearly all of the time. More of them learn rewards by heart before there are enough.
            "trainer.update_every": 8,
            "trainer.log_every": 200,
        },
        # The built-in games, from their pixels, in minutes on two CPU cores.
        "learn": {
            **SMALL,
            "env.image_size": 32,
            "world_model.channels": (16, 32, 64),
            "world_model.state": 8,
            # The games are deterministic but for their beginnings: draws would only add noise to what must be learned.
            # Probabilities learn a little sooner, but blur: from one-hot codes the policy learns twice as fast.
            "world_model.latents": "likeliest",
            "world_model.bins": 63,
            "world_model.bin_limit": 3.0,
            # One step in twelve brings a reward: with weight 1 a catch is predicted after twice as many updates.
            "world_model.reward_scale": 6.0,
            # A nat of free error a step is enough to lose the ball; a tenth, to forget the lamp of Memory.
            "world_model.free_nats": 0.0,
            "world_model_optimizer.learning_rate": 2e-3,
            "actor_critic.bins": 63,
            "actor_critic.bin_limit": 3.0,
            "actor_critic.bootstrap": "next",
            "actor_critic.trace": 0.8,
            # Try everything, then decide: with 0.03 all along, policies settled early and never tried the way to a ball
            # that comes back from the wall; with 0.06 or more they stay too random to the end.
            "actor_critic.entropy": 0.12,
            "actor_critic.final_entropy": 0.1,
            "actor_critic_optimizer.learning_rate": 2e-3,
            "replay.batch_size": 8,
            "replay.sequence_length": 24,
            # The rollouts of an untrained model reward anything, and a policy that believed them does not recover.
            "imagination.begin": 6_500,
            "imagination.starts": 96,
            "imagination.context_length": 6,
            # As long as an episode: with 8 steps few rollouts hold both a decision and what it brought, and the policy
            # needs four times the updates, even in rollouts that are true.
            "imagination.horizon": 12,
            "imagination.horizon_growth_limit": 0,
            "agent.acting": "posterior",
            "trainer.env_steps": 10_000,
            # Random play first: what has not been seen some five times in each place is not predicted there.
            "trainer.warmup": 4_500,
            "trainer.save_every": 5_000,
            "evaluation.episodes": 100,
            "runtime.precision": "float32",
        },
        # Seconds: for tests, and to see that an installation works. It learns nothing.
        "debug": {
            "env.image_size": 32,
            "world_model.channels": (4, 8, 8),
            "world_model.variables": 4,
            "world_model.classes": 4,
            "world_model.width": 16,
            "world_model.state": 4,
            "actor_critic.width": 16,
            "replay.capacity": 512,
            "replay.batch_size": 4,
            "replay.sequence_length": 12,
            "replay.newest_windows": 1,
            "imagination.starts": 8,
            "imagination.horizon": 4,
            "agent.context_length": 8,
            "trainer.env_steps": 96,
            "trainer.warmup": 48,
            "trainer.log_every": 16,
            "trainer.save_every": 32,
            "evaluation.episodes": 2,
            "evaluation.episode_steps": 40,
            "runtime.precision": "float32",
        },
    }
)


def preset(name: str = "atari100k", overrides: str | Mapping[str, Any] | None = None, **shorthand: Any) -> Config:
    """The named preset with what you change.

    Args:
        name: one of `PRESETS`.
        overrides: dotted keys, as ``"trainer.warmup=300 env.sticky=0"`` or as a mapping.
        shorthand: ``game``, ``seed``, ``env_steps`` without their section, or dotted keys; None leaves the preset's
            value.

    Raises:
        GlamkitError: unknown preset, unknown key, wrong type, a value out of range, or one setting given twice.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise GlamkitError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    given = parse_overrides(overrides)
    short = {"game": "env.game", "seed": "trainer.seed", "env_steps": "trainer.env_steps"}
    for key, value in shorthand.items():
        if key not in [*short, *keys()]:
            hint = nearest(key, [*short, *keys()])
            raise GlamkitError(f'unknown setting {key!r}; {hint} (dotted ones as overrides="trainer.warmup=300")')
        if value is not None:
            add_once(given, short.get(key, key), value)
    return Config(preset=name).override({**PRESETS[name], **given})
