"""What is measured besides the losses, on batches worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from glamkit.config import preset
from glamkit.models import head_metrics
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel
from glamkit.ops.functional import two_hot
from glamkit.types import Batch, Rollout


def test_detection_counts_hits_alarms_and_events() -> None:
    predicted, actual = torch.tensor([[0, 1, 1, -1], [0, -1, 1, 0]]), torch.tensor([[0, 1, 0, 1], [1, -1, 1, 0]])
    result = head_metrics.detection(predicted, actual)
    assert {name: float(share) for name, share in result.items()} == {"hits": 3 / 8, "alarms": 5 / 8, "events": 5 / 8}


@pytest.mark.parametrize("bins", [255, 63, 254])
def test_the_sign_of_a_two_hot_code(bins: int) -> None:
    places = torch.linspace(-20.0, 20.0, bins)
    rewards = torch.tensor([0.0, 1.0, -1.0, 500.0, -7.0, 0.001])
    assert head_metrics.sign(two_hot(rewards, places), places).tolist() == [0, 1, -1, 1, -1, 0]
    torn = 0.4 * two_hot(torch.tensor(1.0), places) + 0.35 * two_hot(torch.tensor(-1.0), places)
    assert head_metrics.sign(torn + 0.25 * two_hot(torch.tensor(0.0), places), places) == 1


def test_heads_say_what_they_foresaw() -> None:
    bins = torch.linspace(-20.0, 20.0, 63)
    foreseen, rewards = torch.tensor([[1.0, 0.0, -1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0, 2.0]])
    logits = (two_hot(foreseen, bins) + 1e-6).log()
    ends, terminations = torch.tensor([[9.0, -9.0, -9.0, 9.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]])
    result = {
        name: float(value) for name, value in head_metrics.heads(logits, rewards, bins, ends, terminations).items()
    }
    assert result == pytest.approx(
        {
            "reward_hits": 0.2,
            "reward_alarms": 0.6,
            "reward_events": 0.6,
            "termination_hits": 0.2,
            "termination_alarms": 0.4,
            "termination_events": 0.4,
            "termination_predicted": 0.5,
        }
    )


def batch() -> Batch:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (3, 9, 3, 32, 32), dtype=torch.uint8)
    rewards, terminations = torch.zeros(3, 9), torch.zeros(3, 9)
    rewards[0, 8], rewards[1, 5], terminations[2, 7] = 2.0, -1.0, 1.0
    return Batch(frames, torch.zeros(3, 9, dtype=torch.long), rewards, terminations)


def test_experience_describes_the_sampled_steps() -> None:
    data = batch()
    result = {name: float(value) for name, value in head_metrics.experience(data).items()}
    seen = data.frames[:, [0, 4, 8]].float() / 255
    still = ((seen - seen.mean((0, 1))) ** 2).sum((-3, -2, -1)).mean()
    expected = {"reward": 1 / 27, "reward_rate": 2 / 27, "reward_size": 3 / 27, "termination": 1 / 27}
    assert result == pytest.approx(expected | {"spread": float(still)}, rel=1e-4)


def test_the_world_model_measures_and_its_loss_stays_the_same() -> None:
    net, data = WorldModel(preset("debug", "world_model.latents=probabilities").world_model, 3), batch()
    total, parts = net.loss(data)
    observed = net.observe(data.frames)
    hidden, _ = net.sequence_model(net.tokens(observed.latent, data.actions))
    logits, ends = net.reward(hidden), net.termination(hidden).squeeze(-1)
    for name, value in head_metrics.heads(
        logits, data.rewards[:, 4:], net.bins, ends, data.terminations[:, 4:]
    ).items():
        assert parts[name] == pytest.approx(float(value), abs=1e-6), name
    assert parts["reward_events"] == 2 / 15
    assert parts["dynamics_free"] == float(parts["dynamics_kl"] < 1)
    main = sum(parts[name] for name in ("reconstruction", "reward", "termination"))
    weighted = main + 0.5 * parts["dynamics"] + 0.1 * parts["representation"] + 0.1 * parts["variation"]
    assert total.item() == pytest.approx(float(weighted), rel=1e-6)
    free = WorldModel(preset("debug", "world_model.free_nats=1000").world_model, 3).loss(data)[1]["dynamics_free"]
    assert (float(free), free.requires_grad) == (1.0, False)


def test_the_actor_critic_measures() -> None:
    torch.manual_seed(0)
    net = ActorCritic(preset("debug").actor_critic, 6, 4)
    rewards = torch.full((5, 3), 300.0)
    rollout = Rollout(torch.randn(5, 4, 6), torch.randint(4, (5, 3)), rewards, torch.zeros(5, 3))
    _, parts = net.loss(rollout)
    assert float(parts["entropy_share"]) == pytest.approx(float(parts["entropy"]) / math.log(4))
    assert float(parts["scale"]) == pytest.approx(max(1.0, float(parts["range"])))
    assert float(parts["scale"]) > 1
    nothing = net.loss(rollout._replace(rewards=rewards * 0))[1]
    assert float(nothing["advantage"]) < float(parts["advantage"])
