"""The config: every field explains itself, presets are what they say, and fields that must agree do."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any, get_type_hints

import pytest

from glamkit.config import (
    PRESETS,
    Config,
    OptimizerConfig,
    WorldModelConfig,
    describe,
    keys,
    preset,
)
from glamkit.errors import GlamkitError, nearest

ROWS = list(describe(Config()))


@pytest.mark.parametrize(("key", "value", "unit", "why"), ROWS, ids=[row[0] for row in ROWS])
def test_every_field_has_unit_and_why(key: str, value: Any, unit: str, why: str) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", key)
    assert value is not None
    assert unit.strip()
    assert len(why.split()) >= 3 and "\n" not in why


def test_every_field_is_described() -> None:
    assert len(ROWS) > 60
    assert keys() == [f"{name}.{key}" for name, table in asdict(Config()).items() if name != "preset" for key in table]


def test_the_published_setting_is_the_default() -> None:
    config = preset()
    assert config == Config() == preset("atari100k")
    published = {
        "env.game": "Pong",
        "env.image_size": 64,
        "env.frame_skip": 4,
        "env.sticky": 0.25,
        "env.life_loss": True,
        "replay.capacity": 100_000,
        "replay.batch_size": 32,
        "replay.sequence_length": 68,
        "replay.newest_windows": 5,
        "world_model.channels": (32, 64, 128, 256),
        "world_model.variables": 32,
        "world_model.classes": 32,
        "world_model.unimix": 0.01,
        "world_model.latents": "sampled",
        "world_model.width": 256,
        "world_model.blocks": 1,
        "world_model.state": 16,
        "world_model.conv": 4,
        "world_model.expand": 2,
        "world_model.window": 4,
        "world_model.modules": "both",
        "world_model.bins": 255,
        "world_model.bin_limit": 20,
        "world_model.variation_head": "frozen",
        "world_model.reward_scale": 1,
        "world_model.foreground_scale": 0,
        "world_model.dynamics_scale": 0.5,
        "world_model.representation_scale": 0.1,
        "world_model.variation_scale": 0.1,
        "world_model.free_nats": 1,
        "world_model.variation_free_nats": 0.1,
        "imagination.contexts": "replay",
        "imagination.memory": "window",
        "imagination.starts": 1024,
        "imagination.context_length": 8,
        "imagination.horizon": 16,
        "imagination.horizon_growth": 3125,
        "imagination.horizon_growth_limit": 32,
        "actor_critic.layers": 2,
        "actor_critic.width": 512,
        "actor_critic.bins": 255,
        "actor_critic.bin_limit": 20,
        "actor_critic.discount": 0.985,
        "actor_critic.trace": 0.95,
        "actor_critic.bootstrap": "current",
        "actor_critic.slow_decay": 0.98,
        "actor_critic.range_decay": 0.99,
        "actor_critic.range_percentile": 0.05,
        "actor_critic.entropy": 3e-4,
        "agent.acting": "prior",
        "agent.context": "carried",
        "agent.context_length": 16,
        "world_model_optimizer.learning_rate": 1e-4,
        "world_model_optimizer.clip": 1000,
        "actor_critic_optimizer.learning_rate": 3e-5,
        "actor_critic_optimizer.epsilon": 1e-5,
        "actor_critic_optimizer.clip": 100,
        "trainer.env_steps": 102_000,
        "trainer.warmup": 1024,
        "trainer.update_every": 1,
        "evaluation.episodes": 20,
        "evaluation.sampled": True,
    }
    assert {key: value for key, value, *_ in describe(config) if key in published} == published


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = preset(name, game="Breakout", seed=7)
    again = Config.from_dict(json.loads(config.to_json()))
    assert again == config
    assert again.preset == name
    assert (again.env.game, again.trainer.seed) == ("Breakout", 7)


def test_configs_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().trainer.seed = 2  # type: ignore[misc]


def test_just_enough_is_enough() -> None:
    config = preset("atari100k", "trainer.warmup=72 trainer.env_steps=73 replay.capacity=72")
    assert (config.trainer.warmup, config.trainer.env_steps, config.replay.capacity) == (72, 73, 72)
    lengths = "imagination.context_length=40 replay.sequence_length=40"
    assert preset("atari100k", f"{lengths} imagination.contexts=batch").imagination.contexts == "batch"
    assert preset("atari100k", "imagination.context_length=40 replay.sequence_length=30").replay.sequence_length == 30


def test_fields_that_must_agree_can_change_together() -> None:
    config = preset("atari100k", "env.image_size=32 world_model.channels=8,8,8")
    assert config.env.image_size == 4 * 2 ** len(config.world_model.channels)


def test_range_ends_are_allowed() -> None:
    for key in keys():
        section, name = key.split(".")
        table = getattr(Config(), section)
        item = next(item for item in fields(table) if item.name == name)
        for end in (item.metadata["low"], item.metadata["high"]):
            if end is not None and get_type_hints(type(table))[name] in (int, float):
                assert getattr(replace(table, **{name: end}), name) == end


def test_hints_ignore_case_and_dashes() -> None:
    assert nearest("ATARI-100K", PRESETS) == "did you mean 'atari100k'?"
    assert nearest("zzz", ["a", "b"]) == "allowed: a, b"


def test_sections_check_themselves() -> None:
    with pytest.raises(GlamkitError, match=r"clip = 0\.0 is outside"):
        OptimizerConfig(clip=0)
    with pytest.raises(GlamkitError, match="conv = 5 is outside 2 to 4"):
        WorldModelConfig(conv=5)


def test_the_step_size_falls_evenly_from_the_first_update_to_the_end() -> None:
    run, settings = Config().override({"trainer.warmup": 2000, "trainer.env_steps": 4000}).trainer, OptimizerConfig()
    falling = OptimizerConfig(learning_rate=0.5, final_rate=0.2)
    assert [settings.rate(run.progress(step)) for step in (0, 2000, 4000)] == [settings.learning_rate] * 3
    rates = [falling.rate(run.progress(step)) for step in (0, 2000, 3000, 4000)]
    assert rates == pytest.approx([0.5, 0.5, 0.3, 0.1])
