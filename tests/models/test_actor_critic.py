"""Actor and critic: the loss by hand, the return range, the slow critic, and what must not be trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from glamkit.config import ActorCriticConfig, preset
from glamkit.models.actor_critic import ActorCritic, ReturnRange
from glamkit.models.world_model import WorldModel
from glamkit.ops.functional import lambda_return, two_hot_loss
from glamkit.training.updates import with_methods
from glamkit.types import Context, Rollout

A, F, N, H = 3, 10, 6, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def model(**changes: Any) -> ActorCritic:
    return ActorCritic(ActorCriticConfig(**{"width": 16, **changes}), F, A)


def dream(rows: int = N) -> Rollout:
    return Rollout(
        torch.randn(rows, H + 1, F),
        torch.randint(A, (rows, H)),
        5 * torch.randn(rows, H),
        (torch.rand(rows, H) < 0.2).float(),
    )


def test_a_game_of_one_action_has_a_loss_and_metrics() -> None:
    rollout = dream()._replace(actions=torch.zeros(N, H, dtype=torch.int64))
    loss, metrics = ActorCritic(ActorCriticConfig(width=16), F, 1).loss(rollout)
    assert loss.isfinite() and all(value.isfinite() for value in metrics.values()) and metrics["entropy_share"] == 0


def test_policy_value_and_actions() -> None:
    net, states = model(), torch.randn(7, 4, F)
    assert torch.allclose(net.policy(states).exp().sum(-1), torch.ones(7, 4))
    assert net.value(states).shape == net.act(states).shape == (7, 4)
    draws = net.act(states[:1, :1].expand(20_000, 1, F)).flatten()
    shares = torch.bincount(draws, minlength=A) / 20_000
    assert torch.allclose(shares, net.policy(states[0, 0]).exp(), atol=0.015)


@pytest.mark.parametrize("bootstrap", ["current", "next"])
def test_the_loss_by_hand(bootstrap: str) -> None:
    net, rollout = model(bootstrap=bootstrap), dream()
    with torch.no_grad():
        for parameter in net.slow_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    net.range.low.fill_(-4.0)
    net.range.high.fill_(6.0)
    total, parts = net.loss(rollout)

    def returns(values: Tensor) -> Tensor:
        return lambda_return(rollout.rewards, rollout.terminations, values, 0.985, 0.95, bootstrap)

    states = rollout.states[:, :-1]
    G, V = returns(net.value(rollout.states)), net.value(states)
    slow = (net.slow_critic(rollout.states).softmax(-1) * net.bins).sum(-1)
    slow = slow.sign() * slow.abs().expm1()
    ordered = G.flatten().sort().values  # 30 returns: the first and the 28th
    spread = 0.99 * 10 + 0.01 * (ordered[27] - ordered[0])
    assert spread > 1
    policy = net.actor(states).softmax(-1)
    chosen = policy.gather(-1, rollout.actions[..., None])[..., 0].log()
    entropy = -(policy * policy.log()).sum(-1).mean()
    expected = {
        "policy": -((G - V) / spread * chosen).mean(),
        "value": two_hot_loss(net.critic(states), G, net.bins).mean(),
        "slow_value": two_hot_loss(net.critic(states), returns(slow), net.bins).mean(),
        "entropy": entropy,
        "range": spread,
        "return": G.mean(),
    }
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-4), name
    sum_of_parts = expected["policy"] + expected["value"] + expected["slow_value"] - 3e-4 * entropy
    assert total.item() == pytest.approx(sum_of_parts.item(), rel=1e-5)


def test_the_loss_s_parts_may_be_somebody_else_s_and_progress_a_tensor() -> None:
    net, rollout, called = model(final_entropy=0.1), dream(), list[str]()
    other = copy.deepcopy(net)

    def noted(name: str) -> Callable[..., Any]:
        return lambda *given: called.append(name) or getattr(other, name)(*given)

    plain, parts = net.loss(rollout, 0.25)
    view = with_methods(other, evaluate_states=noted("evaluate_states"), policy_loss=noted("policy_loss"))
    loss, same = view.loss(rollout, torch.tensor(0.25))
    assert called == ["evaluate_states", "policy_loss"]
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    assert {name: value.item() for name, value in same.items()} == pytest.approx(
        {name: value.item() for name, value in parts.items()}, rel=1e-6
    )


def test_the_policy_s_loss_trains_the_actor_only() -> None:
    net, rollout = model(), dream()
    together = dict(zip([n for n, _ in net.named_parameters()], _gradients(net, net.loss(rollout)[0]), strict=True))
    returns = lambda_return(rollout.rewards, rollout.terminations, net.value(rollout.states), 0.985, 0.95).detach()
    critic = net.critic(rollout.states[:, :-1])
    alone = 2 * two_hot_loss(critic, returns, net.bins).mean()  # at first, the slow critic is the critic
    for (name, _), gradient in zip(net.named_parameters(), _gradients(net, alone), strict=True):
        if name.startswith("critic"):
            assert torch.allclose(together[name], gradient, atol=1e-6), name
        if name.startswith("slow_critic"):
            assert together[name].abs().sum() == 0
        if name.startswith("actor"):
            assert together[name].abs().sum() > 0


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.2), (0.5, 0.11), (1.0, 0.02)])
def test_the_entropy_s_weight_falls_evenly(progress: float, weight: float) -> None:
    net, rollout = model(entropy=0.2, final_entropy=0.1), dream()
    total, parts = net.loss(rollout, progress)
    others = sum(parts[name].item() for name in ("policy", "value", "slow_value"))
    assert (others - total.item()) / parts["entropy"].item() == pytest.approx(weight, rel=1e-3)


def _gradients(net: ActorCritic, loss: Tensor) -> list[Tensor]:
    net.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("pays", [0, 2])
def test_it_learns_which_action_pays(pays: int) -> None:
    net = model()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(80):
        states = torch.randn(32, H + 1, F)
        actions = net.act(states[:, :-1])
        loss, _ = net.loss(Rollout(states, actions, (actions == pays).float(), torch.zeros(32, H)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.move_slow_critic()
    shares = net.policy(torch.randn(100, F)).exp().mean(0)
    assert shares[pays] > 0.9
    assert net.value(torch.randn(100, F)).mean() > 1  # returns of about 5


def test_no_gradient_reaches_the_world_model() -> None:
    config = preset("debug")
    world = WorldModel(config.world_model, A)
    net = ActorCritic(config.actor_critic, world.features, A)
    context = Context(torch.randn(N, 8, world.latent), torch.randint(A, (N, 8)))
    rollout = world.imagine(net.act, context, 4)  # with gradients on, as a careless caller may
    assert rollout.states.requires_grad
    assert rollout.rewards.requires_grad
    net.loss(rollout)[0].backward()
    assert all(p.grad is None for p in world.parameters())
    assert all(p.grad is not None for p in net.actor.parameters())


def test_the_return_range_takes_in_the_present_batch_first() -> None:
    measure, returns = ReturnRange(0.05, 0.99), torch.arange(1.0, 101.0)
    low = high = 0.0
    for update in range(200):
        scale = measure(returns[torch.randperm(100)].view(10, 10))
        low, high = 0.99 * low + 0.01 * 5, 0.99 * high + 0.01 * 95  # the 5th and the 95th smallest
        assert scale.item() == pytest.approx(max(1.0, high - low), rel=1e-4)
        assert (measure.high - measure.low).item() == pytest.approx(high - low, rel=1e-4)
        if update == 0:
            assert scale == 1  # 0.9: small returns are not blown up
    assert scale > 70


def test_the_return_range_is_saved_but_not_trained() -> None:
    net = model()
    net.loss(dream())
    assert {"range.low", "range.high"} <= set(net.state_dict())
    assert not net.range.high.requires_grad
    assert net.range.high != 0


def test_the_slow_critic_follows_slowly() -> None:
    net = model()
    assert all(torch.equal(a, b) for a, b in zip(net.slow_critic.parameters(), net.critic.parameters(), strict=True))
    with torch.no_grad():
        for parameter in net.critic.parameters():
            parameter.copy_(torch.randn_like(parameter))
    before = [p.clone() for p in net.slow_critic.parameters()]
    net.move_slow_critic()
    for slow, old, fast in zip(net.slow_critic.parameters(), before, net.critic.parameters(), strict=True):
        assert torch.allclose(slow, 0.98 * old + 0.02 * fast, atol=1e-6)
        assert not slow.requires_grad
    assert all(p.requires_grad for p in net.critic.parameters())


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_and_width_are_the_config_s(layers: int) -> None:
    net = model(layers=layers, width=24)
    shapes = [tuple(p.shape) for name, p in net.actor.named_parameters() if p.dim() == 2]
    assert shapes == [(24, F)] + [(24, 24)] * (layers - 1) + [(A, 24)]
