"""The replay ring: which windows can be drawn, and that none crosses the place being written."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glamkit.config import ReplayConfig
from glamkit.training.replay import Replay
from glamkit.types import Batch

CPU = torch.device("cpu")


def filled(count: int, capacity: int = 64, newest: int = 2, length: int = 7, seed: int = 0) -> Replay:
    """A replay whose step i says i everywhere: in its frame (as two digits), action, reward and termination."""
    config = ReplayConfig(capacity=capacity, batch_size=6, sequence_length=length, newest_windows=newest)
    replay = Replay(config, 8, CPU, seed)
    for step in range(count):
        replay.add(picture(step), step, step / 2, step % 3 == 0)
    return replay


def picture(step: int) -> np.ndarray:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[0, 1, 2], frame[7, 6, 0] = step % 256, step // 256
    return frame


def steps_of(batch: Batch) -> torch.Tensor:
    """The step numbers (B, T) a batch was made of, after checking that its four parts agree."""
    steps = batch.actions
    assert batch.frames.dtype == torch.uint8
    assert torch.equal(batch.frames[:, :, 2, 0, 1].long(), steps % 256)
    assert torch.equal(batch.frames[:, :, 0, 7, 6].long(), steps // 256)
    assert torch.equal(batch.rewards, steps / 2)
    assert torch.equal(batch.terminations, (steps % 3 == 0).float())
    return steps


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 400),
    st.integers(64, 100),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 12),
    st.integers(0, 2**31),
)
def test_no_window_crosses_the_write_position(
    count: int, capacity: int, length: int, rows: int, newest: int, seed: int
) -> None:
    newest = min(newest, count - length + 1)  # Config asks for a warm-up that long
    replay = filled(count, capacity, newest, seed=seed)
    steps = steps_of(replay.sample(rows, length))
    assert steps.shape == (rows, length)
    assert (steps.diff(dim=1) == 1).all()
    assert steps.min() >= max(0, count - capacity)
    assert steps.max() < count
    fresh = min(newest, rows)
    assert steps[rows - fresh :, -1].tolist() == list(range(count - fresh, count))


def test_shapes_and_defaults() -> None:
    batch = filled(50).sample()
    assert batch.frames.shape == (6, 7, 3, 8, 8)
    assert batch.actions.shape == batch.rewards.shape == batch.terminations.shape == (6, 7)
    assert batch.rewards.dtype == batch.terminations.dtype == torch.float32


@pytest.mark.parametrize("count", [30, 150])
def test_all_other_windows_are_equally_likely(count: int) -> None:
    replay, length = filled(count, newest=0), 7
    starts = replay.sample_starts(20_000, length)
    first, last = max(0, count - 64), count - length
    counts = torch.bincount(starts - first, minlength=last - first + 1)
    assert len(counts) == last - first + 1  # from the oldest step that is left to the newest whole window
    expected = 20_000 / len(counts)
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_the_same_seed_draws_the_same_windows() -> None:
    one, other, third = filled(60), filled(60), filled(60, seed=1)
    assert torch.equal(one.sample_starts(50, 7), other.sample_starts(50, 7))
    assert not torch.equal(one.sample_starts(50, 7), third.sample_starts(50, 7))


@pytest.mark.parametrize("count", [40, 64, 150])
def test_parts_put_a_replay_together_again(count: int) -> None:
    replay = filled(count)
    replay.sample()
    cuts = sorted({replay.oldest, count - 20, count - 3, count})
    copy = filled(0)
    copy.load_state_dict(replay.state_dict())
    for first, last in pairwise(cuts):
        copy.load_part(first, replay.part(first, last))
    assert (copy.count, len(copy), copy.oldest) == (replay.count, len(replay), replay.oldest)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(replay.sample(), copy.sample(), strict=True))
    steps_of(copy.window(torch.arange(copy.oldest, count - 6), 7))


def test_its_size_and_what_is_oldest() -> None:
    assert [(len(filled(n)), filled(n).oldest) for n in (0, 10, 64, 65, 200)] == [
        (0, 0),
        (10, 0),
        (64, 0),
        (64, 1),
        (64, 136),
    ]
