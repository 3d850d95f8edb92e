"""Starts are found where they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glamkit.analysis.starts import AHEAD, LEAD, SEEN, Start, find_starts, good_start, ordered
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run
from glamkit.training.load import LoadedRun


def test_starts_lie_before_what_they_are_chosen_for(run: LoadedRun) -> None:
    rewards, ends = ordered(run, "rewards"), ordered(run, "terminations")
    by_reward = find_starts(run, "reward")
    assert by_reward and all(rewards[start.step + LEAD] != 0 for start in by_reward)
    sizes = [abs(rewards[start.step + LEAD]) for start in by_reward]
    assert sizes == sorted(sizes, reverse=True)
    assert all(ends[start.step + LEAD] == 1 for start in find_starts(run, "termination"))
    assert by_reward[0].why == f"reward {rewards[by_reward[0].step + LEAD]:+g} at step {by_reward[0].step + LEAD}"
    for by in ("random", "reward", "termination"):
        result = [start.step for start in find_starts(run, by, 5, ahead=10)]
        assert 0 < len(result) <= 5 and min(result) >= 8 and max(result) <= 110
        assert by == "random" or min(np.diff(sorted(result)), default=9) > LEAD


def test_what_nobody_could_foresee_is_no_start(run: LoadedRun) -> None:
    ends, oldest = ordered(run, "terminations"), run.replay.oldest
    result = [start.step for start in find_starts(run, "random", 1000, ahead=10)]
    first, last = result[0], result[-1]
    assert result == [step for step in range(first, last + 1) if not ends[step - 1 - oldest]]
    assert len(result) < last + 1 - first  # some ends lie between them


def test_a_start_is_of_the_game_in_which_it_happens(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, ends = torch.zeros_like(run.replay.rewards), np.flatnonzero(ordered(run, "terminations"))
    changed[[int(ends[3]) + LEAD, int(ends[4]) + LEAD + 1]] = 1.0  # a game earlier, and the first step of the same game
    monkeypatch.setattr(run.replay, "rewards", changed)
    assert [start.step for start in find_starts(run, "reward")] == [ends[4] + 1]
    over = run.replay.terminations.clone()
    over[int(ends[3]) + 2] = 1
    monkeypatch.setattr(run.replay, "terminations", over)
    by_end = [start.step + LEAD for start in find_starts(run, "termination", 100)]
    assert ends[3] in by_end and ends[3] + 2 not in by_end


def test_a_good_start_is_some_steps_before_a_gain(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, ends = torch.zeros_like(run.replay.rewards), np.flatnonzero(ordered(run, "terminations"))
    monkeypatch.setattr(run.replay, "rewards", changed)
    assert good_start(run) == find_starts(run, "random", 1)[0]
    changed[ends] = -1.0  # nothing has been overwritten, so rows are step numbers
    assert good_start(run) == Start(ends[-2] + 3, f"reward -1 at step {ends[-1]}")
    changed[ends[3]] = 1.0
    assert good_start(run).step == max(ends[3] - AHEAD, ends[2] + 1 + SEEN)
    monkeypatch.setattr(run.replay, "terminations", torch.zeros_like(run.replay.terminations))
    endless = run._replace(run=Run("nowhere"))  # without a log, which tells of ends too
    assert good_start(endless).step == ends[3] - AHEAD
    assert good_start(run, context=60).step >= 60


def test_nothing_of_a_kind_gets_a_sentence(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.replay, "rewards", torch.zeros(run.replay.config.capacity))
    with pytest.raises(GlamkitError, match="no stored step is a start by 'reward'; choose"):
        find_starts(run, "reward")
