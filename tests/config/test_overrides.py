"""Whatever a person types: overrides in any way of writing give a valid config or one sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glamkit.config import (
    PRESETS,
    Config,
    describe,
    differences,
    keys,
    parse_overrides,
    preset,
)
from glamkit.errors import GlamkitError


@pytest.mark.parametrize(
    "overrides",
    [
        "trainer.seed=3 world_model.channels=8,16,32,64 env.life_loss=false",
        "trainer.seed=3, world_model.channels=8,16,32,64, env.life_loss=no",
        "trainer.seed=3,world_model.channels=(8,16,32,64),env.life_loss=off",
        "  trainer.seed=3.0   env.life_loss=False world_model.channels=[8, 16, 32, 64, ] ",
        "trainer.seed = 3, world_model.channels = 8, 16, 32, 64, env.life_loss = off,",
        {"trainer.seed": 3, "world_model.channels": [8, 16, 32, 64], "env.life_loss": False},
        {"trainer.seed": "3", "world_model.channels": "8,16,32,64", "env.life_loss": "false"},
    ],
)
def test_overrides_may_be_written_in_many_ways(overrides: Any) -> None:
    config = preset("atari100k", overrides)
    assert config == Config().override(overrides)
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


def test_a_setting_may_be_given_once_or_twice_alike() -> None:
    config = preset("debug", "trainer.seed=4 env.game=Boxing trainer.warmup=50 trainer.warmup=50", seed=4, game=None)
    assert (config.trainer.seed, config.env.game, config.trainer.warmup) == (4, "Boxing", 50)
    assert preset("debug", "trainer.seed=4 env.game=Boxing", **{"trainer.warmup": 50, "trainer.seed": 4}) == config


@pytest.mark.parametrize(
    ("overrides", "shorthand", "sentence"),
    [
        ("env.game=Boxing", {"game": "Pong"}, "env.game is given twice, as 'Boxing' and as 'Pong'"),
        ("trainer.seed=5", {"seed": 1}, "trainer.seed is given twice, as '5' and as 1; keep one"),
        ({"trainer.env_steps": 90}, {"env_steps": 91}, "trainer.env_steps is given twice, as 90 and as 91"),
        ("trainer.warmup=50 trainer.warmup=60", {}, "trainer.warmup is given twice, as '50' and as '60'"),
        ("trainer.seed=1,trainer.seed=2", {}, "trainer.seed is given twice"),
    ],
)
def test_a_setting_given_twice_is_refused(overrides: Any, shorthand: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        preset("debug", overrides, **shorthand)


def test_numbers_of_numpy_are_numbers() -> None:
    config = preset("debug", {"env.sticky": np.float32(0.5)}, seed=np.int64(3), env_steps=np.uint16(96))
    assert config == preset("debug", "env.sticky=0.5", seed=3, env_steps=96)
    assert type(config.trainer.seed) is int and type(config.env.sticky) is float


BAD = [
    ("trainer.seed=x", r"trainer\.seed = 'x' is not a whole number"),
    ("trainer.seed=1.5", r"trainer\.seed = '1\.5' is not a whole number"),
    ("trainer.seed=-1", r"trainer\.seed = -1 is outside 0 to 2147483647\.$"),
    ("trainer.seed=1 2", r"trainer\.seed = '1 2' is not a whole number\.$"),
    ("trainer.seed=2147483648", r"trainer\.seed = 2147483648 is outside 0 to 2147483647\.$"),
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
    ("world_model.channels=()", r"world_model\.channels = '\(\)' is not a list of 1 to 6 whole numbers"),
    ("world_model.channels=16,,32,64", r"world_model\.channels = '16,,32,64' is not a list"),
    ("world_model.channels=8,8,8,8,8,8,8", r"world_model\.channels = '8,8,8,8,8,8,8' is not a list of 1 to 6"),
    ({"world_model.channels": [16, "", 32, 64]}, r"world_model\.channels = \[16, '', 32, 64\] is not a list"),
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
    ("env.image_size=128", r"env\.image_size = 128 does not fit 4 encoder layers .*; use 64"),
    ("replay.sequence_length=6 world_model.window=5", r"use at least 7"),
    ("replay.newest_windows=33", r"replay\.newest_windows = 33 does not fit replay\.batch_size = 32; use at most 32"),
    (
        "world_model.window=9",
        r"imagination\.context_length = 8 does not fit world_model\.window = 9; use at least 9",
    ),
    (
        "world_model.window=32 imagination.context_length=32",
        r"agent\.context_length = 16 does not fit world_model\.window = 32; use at least 32",
    ),
    ("trainer.warmup=71", r"trainer\.warmup = 71 does not fit a batch .* at least 72"),
    ("trainer.env_steps=1024", r"env_steps = 1024 does not fit .* nothing would be trained; use at least 1025"),
    ("trainer.env_steps=2000 imagination.begin=5600 trainer.update_every=3", r"use at least 5601"),
    ("trainer.update_every=200000", r"use at least 200000"),
    ("trainer.env_steps=0", r"trainer\.env_steps = 0 is outside"),
    ("replay.capacity=1023", r"replay\.capacity = 1023 does not fit trainer\.warmup = 1024; use at least 1024"),
    (
        "imagination.contexts=batch imagination.context_length=41 replay.sequence_length=40",
        r"imagination\.context_length = 41 does not fit the windows that contexts are cut from; use at most 40",
    ),
]


def one_sentence(error: BaseException) -> bool:
    """Whether a message is for people: one line, no Python in it."""
    text = str(error)
    return bool(text) and "\n" not in text and "Traceback" not in text and "object at 0x" not in text


@pytest.mark.parametrize(("overrides", "sentence"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_bad_values_get_one_sentence(overrides: Any, sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence) as caught:
        preset("atari100k", overrides)
    with pytest.raises(GlamkitError, match=sentence):
        Config().override(overrides)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    ("arguments", "shorthand", "sentence"),
    [
        (["atari100"], {}, r"unknown preset 'atari100'; did you mean 'atari100k'"),
        ([None], {}, "unknown preset None"),
        (["debug"], {"sed": 1}, r"unknown setting 'sed'; did you mean 'seed'"),
        (
            ["debug"],
            {"warmup": 50},
            r"did you mean 'trainer\.warmup'\? \(dotted ones as overrides=\"trainer\.warmup=300\"\)",
        ),
        (["debug"], {"seed": 1, "trainer.seed": 2}, r"trainer\.seed is given twice, as 1 and as 2"),
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
