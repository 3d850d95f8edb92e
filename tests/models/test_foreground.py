"""Small things: what counts as foreground, what it weighs, and that a run without it is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import after_steps, finished, same, short
from torch import Tensor

from glamkit.config import preset
from glamkit.models import foreground
from glamkit.models.foreground import Foreground
from glamkit.models.world_model import WorldModel
from glamkit.types import Batch


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


def settled(shade: float = 100.0, scale: float = 30.0, size: int = 8) -> Foreground:
    """One whose usual picture is known, and stays."""
    net = Foreground(size, scale, 0.08).eval()
    net.usual.fill_(shade)
    return net


def test_a_ball_is_foreground_where_it_is_and_nowhere_else() -> None:
    frames = blank()
    frames[0, 2, 1, 3, 4] = 121  # one channel is enough, and more than 20.4 of 255
    frames[1, 2, :, 3, 4] = 120
    expected = torch.zeros(2, 5, 1, 8, 8)
    expected[0, 2, 0, 3, 4] = 30.0
    torch.testing.assert_close(settled()(frames), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("share", "weight"), [(1 / 64, 30.0), (2 / 64, 30.0), (1 / 8, 8.0), (1 / 2, 2.0), (1.0, 1.0)])
def test_a_large_foreground_weighs_as_much_as_a_frame(share: float, weight: float) -> None:
    """Of 64 pixels two stay below 1 / 30; half of the picture weighs 2 each, and all of it as it would anyway."""
    frames, count = blank(1, 20), round(64 * share)
    frames[0, 7].flatten(-2)[:, :count] = 255
    weights = settled()(frames)[0, 7].flatten()
    torch.testing.assert_close(weights, torch.where(torch.arange(64) < count, weight, 0.0))
    assert weights.mean() <= 1


def test_weights_below_one() -> None:
    assert foreground.emphasis(torch.ones(1, 1, 2, 2) > 0, 0.5).unique().tolist() == [0.5]


def test_the_usual_picture_is_the_median() -> None:
    """A pixel that is dark for two frames of five and light for three, and one that never changes."""
    net, frames = Foreground(8, 30.0, 0.08), blank(5, 1)
    frames[:2, :, :, 0, 0], frames[2:, :, :, 0, 0] = 10, 200
    for _ in range(60):
        weights = net(frames)
    assert abs(net.usual[0, 0, 0] - 200) <= 4
    assert (net.usual[:, 1:] - 100).abs().max() <= 4
    assert weights.flatten(1).any(1).tolist() == [True, True, False, False, False]
    assert net.moves == 60


def test_its_steps_by_hand() -> None:
    net = Foreground(8, 30.0, 0.08)
    net(blank(shade=0))
    assert net.usual.unique().tolist() == [127.5 - 128]
    net(blank(shade=255))
    assert net.usual.unique().tolist() == pytest.approx([-0.5 + 128 * 0.8])


def test_looking_moves_nothing() -> None:
    net = settled()
    net(blank(shade=200))
    assert (net.usual.unique().tolist(), net.moves) == ([100.0], 0)


def test_errors_by_hand() -> None:
    frames, pictures = blank(1, 1, 2, 0)[0], torch.zeros(1, 3, 2, 2)
    pictures[0, :, 0, 0] = 0.5  # three channels: 0.75
    pictures[0, 1, 1, 1] = 1.0
    plain, stressed = foreground.errors(pictures, frames, torch.tensor([[[[30.0, 0.0], [0.0, 2.0]]]]))
    assert (plain.item(), stressed.item()) == (1.75, 30 * 0.75 + 2)


def test_the_loss_adds_the_foreground() -> None:
    plain, weighty, data = model(), model(foreground_scale=30.0), batch()
    assert weighty.foreground is not None
    weighty.foreground.usual.fill_(100).sub_(128)  # what the first step comes to be 100
    weighty.load_state_dict(plain.state_dict(), strict=False)
    observed = plain.observe(data.frames)
    (one, before), (other, after) = plain.loss(data, observed), weighty.loss(data, observed)
    assert "foreground" not in before
    torch.testing.assert_close(after["reconstruction"], before["reconstruction"])
    torch.testing.assert_close(other, one + after["foreground"])
    pictures = plain.decode(observed.latent)
    gaps = (pictures - data.frames / 255).square().sum(2)[:, range(8), 10].unfold(-1, 2, 2).sum(-1)
    ball = torch.stack([gaps[:, step, step] for step in range(8)], 1)
    torch.testing.assert_close(after["foreground"], 30 * ball.mean())


def test_compiled_it_is_the_same() -> None:
    frames, net, other = batch().frames, Foreground(32, 30.0, 0.08), Foreground(32, 30.0, 0.08)
    compiled = torch.compile(net.forward, backend="eager", fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(frames), other(frames))
    torch.testing.assert_close(net.usual, other.usual)


def test_without_it_nothing_is_kept() -> None:
    assert not [name for name in model().state_dict() if "foreground" in name]
    assert {"foreground.usual", "foreground.moves"} <= set(model(foreground_scale=3).state_dict())


def test_a_run_with_it_resumes_to_the_bit(tmp_path: Path) -> None:
    config = short("world_model.foreground_scale=30")
    whole = finished(config, tmp_path / "whole")
    after_steps(config, tmp_path / "parts", 55).save()
    assert same(finished(config, tmp_path / "parts").agent.state_dict(), whole.agent.state_dict())
