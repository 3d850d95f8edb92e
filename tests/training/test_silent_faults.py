"""What would go wrong without a word: pictures, rewards, settings, names and logs that are not what they seem."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from glamkit.config import preset
from glamkit.envs.registry import make_env, resolve_game
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run
from glamkit.runs.log import Log
from glamkit.sweeps import plan
from glamkit.training import guards

SIZE = (32, 32, 3)

# Pictures -------------------------------------------------------------------------------------------------------------


class OneBuffer(gymnasium.Env):
    """A game that returns one array again and again, and writes into it."""

    observation_space, action_space = Box(0, 255, SIZE, np.uint8), Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.buffer = render_mode, np.zeros(SIZE, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        del seed, options
        self.buffer[...] = 1
        return self.buffer, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.buffer += 10 + action
        return self.buffer, 1.0, False, False, {}


def test_a_game_that_writes_into_the_picture_it_returned_changes_no_stored_one() -> None:
    gymnasium.register("OneBuffer-v0", entry_point=OneBuffer)
    try:
        env = make_env(preset("debug", game="OneBuffer-v0").env)
        first = env.reset(1)
        second = env.step(0).observation
        third = env.step(1).observation
    finally:
        del gymnasium.registry["OneBuffer-v0"]
    assert [int(frame.max()) for frame in (first, second, third)] == [1, 11, 22]


# Rewards --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [-100.0, float(2**62)])
def test_rewards_far_out_on_either_side_are_warned_of(reward: float, caplog: pytest.LogCaptureFixture) -> None:
    bins = guards.BinRange(preset("debug", "world_model.bin_limit=3"))
    for _ in range(2):
        bins.check("world_model", reward)
    ends = 19.0855 * np.sign(reward)
    assert caplog.text.count(f"Rewards such as {reward:.6g} lie beyond the bins, which end at {ends:.6g}") == 1
    caplog.clear()
    bins.check("actor_critic", 1e8)
    assert not caplog.text


# One game, one name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ale_py:ALE/Pong-v5", "gymnasium:ALE/Pong-v5", "glamkit:ALE/Pong-v5"])
def test_a_module_before_an_atari_id_makes_no_second_name(name: str, tmp_path: Path) -> None:
    assert preset("debug", game=name) == preset("debug", game="Pong")
    run = Run(tmp_path)
    run.check(preset("debug", game="Pong"), resume=True)
    run.begin(preset("debug", game="Pong"), {})
    assert run.changes(preset("debug", game=name)) == {}


def test_a_foreign_module_before_a_plain_name_is_refused() -> None:
    with pytest.raises(GlamkitError, match=r"unknown game 'gymnasium:Pong'; did you mean 'Pong'\?"):
        resolve_game("gymnasium:Pong")


@pytest.mark.parametrize("games", ["Pong ale_py:ALE/Pong-v5", "glamkit/Catch-v0 os:glamkit/Catch-v0"])
def test_a_batch_counts_a_game_once(games: str) -> None:
    with pytest.raises(GlamkitError, match="would share the folder"):
        plan.make(games)


# The log --------------------------------------------------------------------------------------------------------------


def resumed(path: Path, spoil: Callable[[bytes], bytes]) -> list[int]:
    """The steps in a log of ten lines that was spoilt before a run goes on with it."""
    before = Log(path)
    for step in range(10, 110, 10):
        before.write(step, "log", {"value": step / 4})
    size = before.size
    path.write_bytes(spoil(path.read_bytes()))
    after = Log(path)
    after.cut(size)
    after.write(110, "log", {"value": 1.0})
    return [json.loads(line)["step"] for line in path.read_bytes().splitlines()]


def test_line_ends_of_an_editor_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resumed(tmp_path / "metrics.jsonl", lambda data: data.replace(b"\n", b"\r\n"))
    assert "lines are missing" in caplog.text


@pytest.mark.parametrize("spoil", [lambda data: data, lambda data: data + data[:50], lambda data: data + data])
def test_what_came_after_the_checkpoint_is_no_change(
    spoil: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert resumed(tmp_path / "metrics.jsonl", spoil) == list(range(10, 120, 10))
    assert not caplog.text
