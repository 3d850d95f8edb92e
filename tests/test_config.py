"""The config: every field explains itself, and whatever a person types gives a valid config or one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glamkit.config import Config, Optimizer, WorldModel, describe, differences, keys
from glamkit.errors import GlamkitError, nearest
from glamkit.presets import PRESETS, preset
from glamkit.settings import parse_overrides

ROWS = list(describe(Config()))


@pytest.mark.parametrize(("key", "value", "unit", "why"), ROWS, ids=[row[0] for row in ROWS])
def test_every_field_has_unit_and_why(key: str, value: Any, unit: str, why: str) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", key)
    assert value is not None
    assert unit.strip()
    assert len(why) > 10


def test_every_field_is_described() -> None:
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


@pytest.mark.parametrize(
    "overrides",
    [
        "trainer.seed=3 world_model.channels=8,16,32,64 env.life_loss=false",
        "trainer.seed=3, world_model.channels=8,16,32,64, env.life_loss=no",
        "trainer.seed=3,world_model.channels=(8,16,32,64),env.life_loss=off",
        "  trainer.seed=3.0   env.life_loss=False world_model.channels=[8, 16, 32, 64] ",
        {"trainer.seed": 3, "world_model.channels": [8, 16, 32, 64], "env.life_loss": False},
        {"trainer.seed": "3", "world_model.channels": "8,16,32,64", "env.life_loss": "false"},
    ],
)
def test_overrides_may_be_written_in_many_ways(overrides: Any) -> None:
    config = preset("atari100k", overrides)
    assert config.trainer.seed == 3
    assert type(config.trainer.seed) is int
    assert config.world_model.channels == (8, 16, 32, 64)
    assert config.env.life_loss is False
    assert set(differences(config, Config())) == {"trainer.seed", "world_model.channels", "env.life_loss"}


def test_numbers_may_be_text_as_yaml_leaves_them() -> None:
    config = preset("atari100k", "world_model_optimizer.learning_rate=1e-3 actor_critic.entropy=0")
    assert config.world_model_optimizer.learning_rate == 1e-3
    assert config.actor_critic.entropy == 0.0
    assert type(config.actor_critic.entropy) is float


@pytest.mark.parametrize("empty", [None, "", {}, "  "])
def test_no_overrides_change_nothing(empty: Any) -> None:
    assert preset("quick", empty) == preset("quick")


def test_shorthand_is_the_last_word() -> None:
    config = preset("debug", "trainer.seed=3 env.game=Boxing", seed=4, game=None)
    assert (config.trainer.seed, config.env.game) == (4, "Boxing")


BAD = [
    ("trainer.seed=x", r"trainer\.seed = 'x' is not a whole number"),
    ("trainer.seed=1.5", r"trainer\.seed = '1\.5' is not a whole number"),
    ("trainer.seed=-1", r"trainer\.seed = -1 is outside 0 to"),
    ({"trainer.seed": True}, r"trainer\.seed = True is not a whole number"),
    ({"trainer.seed": 10**400}, r"trainer\.seed = 10+ is not a whole number"),
    ({"trainer.seed": None}, r"trainer\.seed = None is not a whole number"),
    ("env.sticky=1.1", r"env\.sticky = 1\.1 is outside 0 to 1"),
    ("env.sticky=nan", r"env\.sticky = 'nan' is not a finite number"),
    ({"env.sticky": float("inf")}, r"env\.sticky = inf is not a finite number"),
    ("env.life_loss=2", r"env\.life_loss = '2' is not True or False"),
    ({"env.game": 5}, r"env\.game = 5 is not text"),
    ("agent.acting=priro", r"agent\.acting = 'priro' is not one of the choices; did you mean 'prior'\?"),
    ("actor_critic.bootstrap=later", r"allowed: current, next"),
    ("world_model.channels=a,b", r"world_model\.channels = 'a' is not a whole number"),
    ({"world_model.channels": 5}, r"world_model\.channels = 5 is not a list"),
    ({"world_model.channels": [32, 0, 64, 64]}, r"world_model\.channels = \(32, 0, 64, 64\) is outside"),
    ("world_model.chanels=8", r"unknown setting 'world_model\.chanels'; did you mean 'world_model\.channels'"),
    ("seed=1", r"unknown setting 'seed'"),
    ("trainer=1", r"unknown setting 'trainer'"),
    ("trainer.seed", r"override 'trainer\.seed' is not of the form key=value"),
    ("trainer.seed=", r"is not of the form key=value"),
    ("=3", r"is not of the form key=value"),
    (7, r"overrides = 7 is neither text"),
    (["trainer.seed=1"], r"is neither text"),
    # Fields that must agree.
    ("env.image_size=128", r"env\.image_size = 128 does not fit 4 encoder layers; use 64"),
    ("replay.sequence_length=6 world_model.window=5", r"at least 7 is needed"),
    ("replay.newest_windows=33", r"replay\.newest_windows = 33 is more than replay\.batch_size = 32"),
    ("trainer.warmup=71", r"trainer\.warmup = 71 is too short .* at least 72"),
    ("trainer.env_steps=1024", r"env_steps = 1024 leaves nothing to train .* at least 1025"),
    ("trainer.env_steps=0", r"trainer\.env_steps = 0 is outside"),
    ("replay.capacity=1023", r"replay\.capacity = 1023 cannot hold the 1024 steps"),
]


def one_sentence(error: BaseException) -> bool:
    """Whether a message is for people: one line, no Python in it."""
    text = str(error)
    return bool(text) and "\n" not in text and "Traceback" not in text and "object at 0x" not in text


@pytest.mark.parametrize(("overrides", "sentence"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_bad_values_get_one_sentence(overrides: Any, sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence) as caught:
        preset("atari100k", overrides)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    ("arguments", "shorthand", "sentence"),
    [
        (["atari100"], {}, r"unknown preset 'atari100'; did you mean 'atari100k'"),
        ([None], {}, "unknown preset None"),
        (["debug"], {"sed": 1}, r"unknown setting 'sed'; did you mean 'seed'"),
        (["debug"], {"env_steps": "many"}, r"trainer\.env_steps = 'many' is not a whole number"),
    ],
)
def test_bad_arguments_of_preset(arguments: list[Any], shorthand: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        preset(*arguments, **shorthand)


@pytest.mark.parametrize("data", [None, [], "x", {"env": 3}, {"env": {"gmae": "Pong"}}, {"preset": 3}, {"x": {"y": 1}}])
def test_bad_stored_configs_are_refused(data: Any) -> None:
    with pytest.raises(GlamkitError) as caught:
        Config.from_dict(data)
    assert one_sentence(caught.value)


def test_just_enough_is_enough() -> None:
    config = preset("atari100k", "trainer.warmup=72 trainer.env_steps=73 replay.capacity=72")
    assert (config.trainer.warmup, config.trainer.env_steps, config.replay.capacity) == (72, 73, 72)


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


# Whatever is typed ---------------------------------------------------------------------------------------------------

CHOICES = ["frozen", "learned", "replay", "batch", "window", "recurrent", "current", "next", "prior", "posterior"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 200),
    st.floats(),
    st.text(),
    st.sampled_from([*CHOICES, "true", "1e3", "1e400", "-0", "8,8,8", "()", "0x10", "\uff11", "_", "1_0"]),
    st.binary(),
    st.lists(st.one_of(st.integers(1, 64), st.text(), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
KEYS = st.one_of(st.sampled_from(keys()), st.text(), st.integers())


def valid_or_one_sentence(make: Any) -> None:
    try:
        config = make()
    except GlamkitError as error:
        assert one_sentence(error)
        return
    assert isinstance(config, Config)
    assert Config.from_dict(json.loads(config.to_json())) == config
    for _, value, *_ in describe(config):
        assert type(value) in (int, float, bool, str, tuple)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PRESETS)), st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_table_of_overrides_is_valid_or_refused(name: str, overrides: dict[Any, Any]) -> None:
    valid_or_one_sentence(lambda: preset(name, overrides))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(keys()), st.sampled_from(["=", "==", " = ", ":"]), st.text(max_size=8))))
def test_any_text_of_overrides_is_valid_or_refused(pieces: list[tuple[str, str, str]]) -> None:
    valid_or_one_sentence(lambda: preset("debug", " ".join("".join(piece) for piece in pieces)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert all(key and value for key, value in parse_overrides(text).items())
    except GlamkitError as error:
        assert one_sentence(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        VALUES,
        lambda inner: st.dictionaries(
            st.one_of(st.sampled_from(["preset", "env", "trainer", "game", "seed"]), st.text(max_size=3)), inner
        ),
        max_leaves=6,
    )
)
def test_any_stored_config_is_valid_or_refused(data: Any) -> None:
    valid_or_one_sentence(lambda: Config.from_dict(data))


def test_hints_ignore_case_and_dashes() -> None:
    assert nearest("ATARI-100K", PRESETS) == "did you mean 'atari100k'?"
    assert nearest("zzz", ["a", "b"]) == "allowed: a, b"


def test_sections_check_themselves() -> None:
    with pytest.raises(GlamkitError, match=r"clip = 0\.0 is outside"):
        Optimizer(clip=0)
    with pytest.raises(GlamkitError, match="conv = 5 is outside 2 to 4"):
        WorldModel(conv=5)


def test_the_step_size_falls_evenly_from_the_first_update_to_the_end() -> None:
    run, settings = Config().override(**{"trainer.warmup": 2000, "trainer.env_steps": 4000}).trainer, Optimizer()
    falling = Optimizer(learning_rate=0.5, final_rate=0.2)
    assert [settings.rate(run.progress(step)) for step in (0, 2000, 4000)] == [settings.learning_rate] * 3
    rates = [falling.rate(run.progress(step)) for step in (0, 2000, 3000, 4000)]
    assert rates == pytest.approx([0.5, 0.5, 0.3, 0.1])
