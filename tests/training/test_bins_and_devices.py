"""Rewards and returns beyond the bins, devices that are not here, and names of before."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from square import SQUARE, Square, square
from tiny_runs import after_steps, finished, short

from glamkit.config import EnvConfig, preset
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.runtime import available
from glamkit.training import evaluation
from glamkit.training.load import open_run

CATCH = "glamkit/Catch-v0"


# Bins -----------------------------------------------------------------------------------------------------------------


class Paying(Square):
    """A square that pays the same at each of ten steps."""

    def __init__(self, reward: float) -> None:
        super().__init__(length=10)
        self.reward = reward

    def step(self, action: int) -> Any:
        frame, _, *rest = super().step(action)
        return frame, self.reward, *rest


LIMITS = "world_model.bin_limit=3 actor_critic.bin_limit=3"


def test_rewards_beyond_the_bins_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    square(Paying, reward=100.0)
    with caplog.at_level(logging.WARNING, "glamkit"):
        finished(short(LIMITS, game=SQUARE), tmp_path)
    warned = [line.getMessage() for line in caplog.records if "beyond the bins" in line.getMessage()]
    assert warned[0] == (
        "Rewards such as 100 lie beyond the bins, which end at 19.0855: they are learned as that; use "
        "world_model.bin_limit = 4.7 or more in a new run (it is 3), or smaller rewards."
    )
    assert [message.split()[0] for message in warned].count("Rewards") == 1
    assert math.expm1(4.7) > 100 > math.expm1(4.6)


def test_imagined_returns_beyond_the_bins_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = after_steps(short(game=CATCH), tmp_path, 57)
    trainer.agent.actor_critic.range.low.fill_(-1e12)
    trainer.agent.actor_critic.range.high.fill_(1.0)
    with caplog.at_level(logging.WARNING, "glamkit"):
        trainer.write_log()
    assert "Imagined returns such as -1e+12" in caplog.text and "actor_critic.bin_limit" in caplog.text


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_what_fits_the_bins_is_not_warned_of(reward: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    square(Paying, reward=reward)
    with caplog.at_level(logging.WARNING, "glamkit"):
        finished(short(LIMITS, game=SQUARE), tmp_path)
    assert "beyond the bins" not in caplog.text


# Devices and names of before ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("made") / "run"
    finished(short(game=CATCH), folder)
    yield folder


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_run_opens_and_is_evaluated_where_its_device_is_not(
    device: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("device_count", "is_available"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    folder = shutil.copytree(trained, tmp_path / "run")
    text = json.loads((folder / "config.json").read_text())
    text["config"]["runtime"] |= {"device": device, "compile": "on"}
    (folder / "config.json").write_text(json.dumps(text))
    monkeypatch.setenv("CXX", "/nowhere")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with caplog.at_level(logging.WARNING, "glamkit"):
        opened = open_run(folder)
    assert opened.machine.device.type == "cpu" and "it is opened on cpu" in caplog.text
    assert opened.config.runtime.device == device  # what it was trained on is not forgotten
    for changes in ({}, {"runtime.device": "cpu"}):
        assert evaluation.evaluate_run(evaluation.opened(folder, changes=changes), film=False)[0]["step"] == 64
    with pytest.raises(GlamkitError, match=rf"runtime\.device = '{device}', but"):
        evaluation.opened(folder, changes={"runtime.device": device})


def test_what_is_here_is_left_as_it_is() -> None:
    config = preset("debug", "runtime.device=cpu").runtime
    assert available(config) == config


def test_one_game_has_one_name(tmp_path: Path) -> None:
    names = ["Tennis", "ALE/Tennis-v5", "ale_py:ALE/Tennis-v5"]
    assert {EnvConfig(game=name).game for name in names} == {"Tennis"}
    assert EnvConfig(game=f"glamkit.envs.tiny_games:{CATCH}").game == CATCH
    for name in ("ALE/Pong-ram-v5", "mine:Tennis", "PongNoFrameskip-v4", "ale_py:", "late_game:mine/Late-v0"):
        assert EnvConfig(game=name).game == name
    finished(short("trainer.env_steps=50", game="Pong"), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"game": "Pong"', '"game": "ALE/Pong-v5"'))
    assert finished(short("trainer.env_steps=50", game="ale_py:ALE/Pong-v5"), tmp_path).step == 50
    env = make_env(EnvConfig(game="Pong"))
    env.reset(1)
    env.restore(env.clone() | {"game": "ALE/Pong-v5"})
