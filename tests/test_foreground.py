"""Small things: what counts as foreground, what it weighs, and that a run without it is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import after_steps, finished, same, short
from torch import Tensor

from glamkit import foreground
from glamkit.experience import Batch
from glamkit.presets import preset
from glamkit.reference import plain_copy
from glamkit.world_model import WorldModel


def blank(rows: int = 2, steps: int = 5, size: int = 8, shade: int = 100) -> Tensor:
    return torch.full((rows, steps, 3, size, size), shade, dtype=torch.uint8)


def model(**changes: Any) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(preset("debug", {f"world_model.{name}": value for name, value in changes.items()}).world_model, 3)


def batch() -> Batch:
    frames = blank(2, 8, 32)
    for step in range(8):
        frames[:, step, :, 10, 2 * step : 2 * step + 2] = 255
    return Batch(frames, torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 8), torch.zeros(2, 8))


def test_a_ball_is_foreground_where_it_is_and_nowhere_else() -> None:
    frames = blank()
    frames[0, 2, 1, 3, 4] = 200  # one channel is enough; the mean of ten frames is 110
    weights = foreground.emphasis(frames, 30.0, 0.08)
    expected = torch.zeros(2, 5, 1, 8, 8)
    expected[0, 2, 0, 3, 4] = 30.0
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)


def test_nothing_departs_from_a_still_picture() -> None:
    assert not foreground.emphasis(blank(), 30.0, 0.0).any()


@pytest.mark.parametrize(("share", "weight"), [(1 / 64, 30.0), (2 / 64, 30.0), (1 / 8, 8.0), (1 / 2, 2.0), (1.0, 1.0)])
def test_a_large_foreground_weighs_as_much_as_a_frame(share: float, weight: float) -> None:
    """Of 64 pixels two stay below 1 / 30; half of the picture weighs 2 each, and all of it as it would anyway."""
    frames, count = blank(1, 20), round(64 * share)
    frames[0, 7].flatten(-2)[:, :count] = 255
    weights = foreground.emphasis(frames, 30.0, 0.08)[0, 7].flatten()
    torch.testing.assert_close(weights, torch.where(torch.arange(64) < count, weight, 0.0))
    assert weights.mean() <= 1


def test_errors_by_hand() -> None:
    frames, pictures = blank(1, 1, 2, 0)[0], torch.zeros(1, 3, 2, 2)
    pictures[0, :, 0, 0] = 0.5  # three channels: 0.75
    pictures[0, 1, 1, 1] = 1.0
    plain, stressed = foreground.errors(pictures, frames, torch.tensor([[[[30.0, 0.0], [0.0, 2.0]]]]))
    assert (plain.item(), stressed.item()) == (1.75, 30 * 0.75 + 2)


def test_the_loss_adds_the_foreground() -> None:
    plain, weighty, data = model(), model(foreground_scale=30.0), batch()
    weighty.load_state_dict(plain.state_dict())
    observed = plain.observe(data.frames)
    (one, before), (other, after) = plain.loss(data, observed), weighty.loss(data, observed)
    assert "foreground" not in before
    torch.testing.assert_close(after["reconstruction"], before["reconstruction"])
    torch.testing.assert_close(other, one + after["foreground"])
    pictures = plain.decode(observed.latent)
    gaps = (pictures - data.frames / 255).square().sum(2)[:, range(8), 10].unfold(-1, 2, 2).sum(-1)
    ball = torch.stack([gaps[:, step, step] for step in range(8)], 1)
    torch.testing.assert_close(after["foreground"], 30 * ball.mean())


def test_it_is_the_plain_way_s() -> None:
    net, data = model(foreground_scale=30.0, latents="probabilities"), batch()
    (mine, parts), (theirs, plainly) = net.loss(data), plain_copy(net).loss(data)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(parts["foreground"], plainly["foreground"])


def test_compiled_it_is_the_same() -> None:
    frames = batch().frames
    compiled = torch.compile(foreground.emphasis, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames, 30.0, 0.08), foreground.emphasis(frames, 30.0, 0.08))


def test_a_run_with_it_resumes_to_the_bit(tmp_path: Path) -> None:
    config = short("world_model.foreground_scale=30")
    whole = finished(config, tmp_path / "whole")
    after_steps(config, tmp_path / "parts", 55).save()
    assert same(finished(config, tmp_path / "parts").agent.state_dict(), whole.agent.state_dict())
