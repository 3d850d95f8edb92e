"""The world model: what its loss trains, what it leaves alone, and what it imagines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.config import Config, preset
from glamkit.models.world_model import WorldModel
from glamkit.ops.functional import free_nats, kl_categorical, two_hot_loss
from glamkit.types import Batch, Context

A, B, T, S = 3, 4, 12, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def model(**changes: Any) -> WorldModel:
    config = preset("debug", {f"world_model.{name}": value for name, value in changes.items()})
    return WorldModel(config.world_model, A)


def batch(rows: int = B, steps: int = T) -> Batch:
    """Smooth pictures that differ from step to step, as an autoencoder can learn them in moments."""
    coarse = torch.rand(rows * steps, 3, 4, 4)
    frames = F.interpolate(coarse, 32, mode="bilinear").mul(255).to(torch.uint8).unflatten(0, (rows, steps))
    return Batch(
        frames,
        torch.randint(A, (rows, steps)),
        torch.randint(-1, 2, (rows, steps)).float(),
        (torch.rand(rows, steps) < 0.2).float(),
    )


def context(rows: int = 5, steps: int = 6) -> Context:
    latents = F.one_hot(torch.randint(4, (rows, steps, 4)), 4).float().flatten(-2)
    return Context(latents, torch.randint(A, (rows, steps)))


def test_the_published_size() -> None:
    world_model = WorldModel(Config().world_model, 6)
    assert sum(p.numel() for p in world_model.parameters()) == 16_160_387


def test_shapes_of_what_is_seen() -> None:
    net, data = model(), batch()
    embedding, posterior, latent = net.observe(data.frames)
    assert embedding.shape == (B, T, 16 * 8)
    assert posterior.shape == (B, T, 4, 4)
    assert latent.shape == (B, T, 16)
    assert net.decode(latent).shape == data.frames.shape
    assert net.tokens(latent, data.actions).shape == (B, T, 16)
    assert set(latent.detach().round().unique().tolist()) == {0, 1}
    assert torch.allclose(posterior.exp().sum(-1), torch.ones(B, T, 4))
    assert posterior.exp().min() >= 0.01 / 4 * 0.999  # unimix


def test_latents_may_be_probabilities() -> None:
    net = model(latents="probabilities")
    observed = net.observe(batch().frames)
    assert torch.equal(observed.latent, observed.posterior.exp().flatten(-2))
    hidden = torch.randn(3, 16)
    assert torch.equal(net.predict(hidden), net.prior(hidden).exp().flatten(-2))


def test_tokens_tell_latents_and_actions_apart() -> None:
    net, (latents, actions) = model(), context()
    token = net.tokens(latents, actions)
    assert not torch.allclose(net.tokens(latents, (actions + 1) % A), token)
    assert not torch.allclose(net.tokens(latents.roll(1, -1), actions), token)
    with_action = torch.cat([latents, F.one_hot(actions, A).float()], -1)
    assert torch.equal(net.stem(with_action), token)


@pytest.mark.parametrize(
    "odd", [[1, 0, 0, 0], [0.2, 0.3, 0.1, 0.4], [0, 0, 0, 0], [1, 1, 0, -1], [2, 0, 0, 0], [0, 1, 0.5, 0]]
)
def test_tokens_are_the_same_one_hot_or_not(odd: list[float]) -> None:
    net, (latents, actions) = model(), context()
    latents[2, 3, 4:8] = torch.tensor(odd)
    expected = net.stem(torch.cat([latents, F.one_hot(actions, A).float()], -1))
    torch.testing.assert_close(net.tokens(latents, actions), expected)
    with torch.no_grad():
        torch.testing.assert_close(net.tokens(latents, actions), expected)
        assert net.tokens(latents[:0], actions[:0]).shape == (0, 6, 16)


def test_called_it_gives_what_training_reads() -> None:
    net, data = model(latents="probabilities").eval(), batch()
    hidden, variation = net(data.frames, data.actions)
    assert hidden.shape == variation.shape == (B, T - S, 16)
    read = net.sequence_model(net.tokens(net.observe(data.frames).latent, data.actions))
    assert torch.equal(hidden, read[0]) and torch.equal(variation, read[1])


@pytest.mark.parametrize(("free", "variation_free"), [(1.0, 0.1), (0.0, 0.0)])
def test_the_loss_is_the_paper_s_sum(free: float, variation_free: float) -> None:
    """Written out again from the formulas, with the places in time counted one by one."""
    net, data = model(free_nats=free, variation_free_nats=variation_free), batch()
    observed = net.observe(data.frames)
    total, parts = net.loss(data, observed)
    latents = observed.latent
    hidden, g = net.sequence_model(net.tokens(latents, data.actions))
    dynamics, representation, variation, reward, termination = [], [], [], [], []
    for t in range(S, T):
        h = hidden[:, t - S]
        reward.append(two_hot_loss(net.reward(h), data.rewards[:, t], net.bins))
        logit = net.termination(h)[:, 0]
        termination.append(F.binary_cross_entropy_with_logits(logit, data.terminations[:, t], reduction="none"))
        if t + 1 < T:
            post, prior = observed.posterior[:, t + 1], net.prior(h)
            dynamics.append(kl_categorical(post.detach(), prior))
            representation.append(kl_categorical(post, prior.detach()))
            difference = observed.embedding[:, t + 1] - observed.embedding[:, t]
            variation.append(kl_categorical(net.variation_posterior(difference), net.variation_prior(g[:, t - S])))
    error = (net.decode(latents) - data.frames / 255).square().flatten(2).sum(-1).mean()
    expected = {
        "reconstruction": error,
        "reward": torch.stack(reward).mean(),
        "termination": torch.stack(termination).mean(),
        "dynamics": free_nats(torch.stack(dynamics), free),
        "representation": free_nats(torch.stack(representation), free),
        "variation": free_nats(torch.stack(variation), variation_free),
        "dynamics_kl": torch.stack(dynamics).mean(),
        "variation_kl": torch.stack(variation).mean(),
    }
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-5), name
    weights = {"dynamics": 0.5, "representation": 0.1, "variation": 0.1}
    summed = sum(weights.get(name, 1.0) * value.item() for name, value in expected.items() if not name.endswith("_kl"))
    assert total.item() == pytest.approx(summed, rel=1e-5)
    assert not any(part.requires_grad for part in parts.values())
    weighty = WorldModel(replace(net.config, reward_scale=6.0), A)
    weighty.load_state_dict(net.state_dict())
    assert weighty.loss(data, observed)[0].item() == pytest.approx(summed + 5 * expected["reward"].item(), rel=1e-5)


def test_dynamics_trains_the_prior_and_representation_the_posterior() -> None:
    def gradients(part: str) -> dict[str, float]:
        weights = {f"{name}_scale": float(name == part) for name in ("dynamics", "representation", "variation")}
        net = model(free_nats=0.0, **weights)
        data = batch()
        observed = net.observe(data.frames)
        # Leaves cut the network open: what reaches them comes from the KLs alone.
        posterior = observed.posterior.detach().requires_grad_()
        latent = observed.latent.detach()
        net.loss(data, observed._replace(posterior=posterior, latent=latent))[0].backward()
        prior = net.prior.weight.grad
        return {
            "posterior": 0.0 if posterior.grad is None else posterior.grad.abs().sum().item(),
            "prior": 0.0 if prior is None else prior.abs().sum().item(),
        }

    dynamics, representation = gradients("dynamics"), gradients("representation")
    assert dynamics["prior"] > 0 == dynamics["posterior"]
    assert representation["posterior"] > 0 == representation["prior"]


def head_gradients(kind: str) -> tuple[WorldModel, dict[str, Tensor], Tensor]:
    net, data = model(variation_head=kind, variation_free_nats=0.0), batch()
    observed = net.observe(data.frames)
    embedding = observed.embedding.detach().requires_grad_()
    loss, parts = net.loss(data, observed._replace(embedding=embedding))
    loss.backward()
    return net, parts, torch.zeros(()) if embedding.grad is None else embedding.grad


def test_a_frozen_variation_head_is_never_trained() -> None:
    net, parts, through = head_gradients("frozen")
    assert all(p.grad is None and not p.requires_grad for p in net.variation_posterior.parameters())
    assert net.variation_prior.weight.grad is not None
    assert net.variation_prior.weight.grad.abs().sum() > 0
    assert net.sequence_model.gmamba.out[0].weight.grad is not None
    assert through.abs().sum() == 0  # nor does the variation reach the encoder
    assert "variation_representation" not in parts


def test_a_learned_variation_head_is_trained() -> None:
    net, parts, through = head_gradients("learned")
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.variation_posterior.parameters())
    assert through.abs().sum() > 0
    assert parts["variation_representation"] == parts["variation"]  # the same KL, seen from its other side
    weights = {"dynamics": 0.5, "representation": 0.1, "variation": 0.1, "variation_representation": 0.1}
    weights |= dict.fromkeys(("reconstruction", "reward", "termination"), 1.0)
    weighted = sum(weight * parts[name] for name, weight in weights.items())
    assert parts["total"].item() == pytest.approx(float(weighted), rel=1e-5)


def test_the_learned_head_follows_and_the_prior_leads_each_by_its_own_term() -> None:
    for off, still, moved in (
        ("representation_scale", "variation_posterior", "variation_prior"),
        ("variation_scale", "variation_prior", "variation_posterior"),
    ):
        net = model(variation_head="learned", variation_free_nats=0.0, **{off: 0.0})
        net.loss(batch())[0].backward()
        gradients = [getattr(net, name).weight.grad.abs().sum() for name in (still, moved)]
        assert gradients[0] == 0 < gradients[1]


def test_the_variation_loss_trains_gmamba_where_the_hidden_state_lacks_it() -> None:
    def gradients(**changes: Any) -> list[Tensor | None]:
        net = model(modules="lmamba", variation_free_nats=0.0, **changes)
        net.loss(batch())[0].backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.sequence_model.lmamba.parameters())
        return [p.grad for p in net.sequence_model.gmamba.parameters()]

    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients())
    assert all(gradient is None or gradient.abs().sum() == 0 for gradient in gradients(variation_scale=0.0))


def test_it_overfits_one_batch() -> None:
    net, data = model(), batch()
    data = data._replace(terminations=(data.rewards > 0).float())
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    curves: list[dict[str, Tensor]] = []
    for _ in range(150):
        loss, parts = net.train().loss(data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curves.append(parts)
    first, last = curves[0], {name: sum(c[name] for c in curves[-10:]) / 10 for name in curves[0]}
    assert last["total"] < first["total"] / 4
    assert last["reconstruction"] < first["reconstruction"] / 4
    assert last["reward"] < first["reward"] / 5
    assert last["termination"] < first["termination"] / 2


@pytest.mark.parametrize("memory", ["window", "recurrent"])
def test_dreams_have_their_shapes_and_policies_see_z_and_h(memory: str) -> None:
    net, start, seen = model().eval(), context(), []

    def policy(states: Tensor) -> Tensor:
        seen.append(states)
        return torch.randint(A, states.shape[:1])

    rollout = net.imagine(policy, start, 7, memory)
    assert rollout.states.shape == (5, 8, 16 + 16)
    assert rollout.actions.shape == rollout.rewards.shape == rollout.terminations.shape == (5, 7)
    assert rollout.actions.dtype == torch.int64
    assert torch.equal(torch.stack(seen, 1), rollout.states[:, :-1])  # one call per step, on the state of that step
    z, h = rollout.states.split([net.latent, net.config.width], -1)
    assert torch.allclose(z.unflatten(-1, (4, 4)).sum(-1), torch.ones(5, 8, 4))
    assert set(rollout.terminations.unique().tolist()) <= {0.0, 1.0}
    past = net.remember(start, memory)
    assert torch.equal(h[:, 0], past.hidden)
    for t in range(7):  # h_t+1 has seen (z_t, a_t), and the reward is that of this action
        past.read(net.tokens(z[:, t], rollout.actions[:, t]))
        assert torch.equal(h[:, t + 1], past.hidden)
        reward, end = net.outcome(past.hidden)
        assert torch.equal(rollout.rewards[:, t], reward)
        assert torch.equal(rollout.terminations[:, t], end)


def test_dreams_draw_latents_from_the_prior() -> None:
    net = model().eval()
    with torch.no_grad():
        net.prior.weight.zero_()
        net.prior.bias.copy_(torch.tensor([0.0, 0, 50, 0] * 4))  # all but a share of unimix on the third class
    rollout = net.imagine(lambda states: torch.zeros(len(states), dtype=torch.int64), context(3000), 3)
    shares = rollout.states[..., : net.latent].unflatten(-1, (4, 4)).mean((0, 1, 2))
    assert shares.tolist() == pytest.approx([0.0025, 0.0025, 0.9925, 0.0025], abs=0.003)


def test_outcomes_are_in_their_own_units() -> None:
    net = model()
    with torch.no_grad():
        net.reward[-1].weight.zero_()
        net.reward[-1].bias.copy_(torch.where(torch.arange(255) == 140, 100.0, 0.0))
        net.termination[-1].weight.zero_()
        for logit, end in ((0.5, 1), (-0.5, 0)):
            net.termination[-1].bias.fill_(logit)
            reward, termination = net.outcome(torch.randn(2, 16))
            assert termination.tolist() == [end, end]
    step = (140 - 127) * 40 / 254  # symlog units
    assert reward.tolist() == pytest.approx([torch.expm1(torch.tensor(step)).item()] * 2, rel=1e-4)


def test_frames_are_read_as_shares_of_white() -> None:
    net, data = model().eval(), batch()
    assert torch.allclose(net.embed(data.frames), net.encoder(data.frames.flatten(0, 1) / 255).view(B, T, -1))


def test_latents_are_draws_the_likeliest_classes_or_probabilities() -> None:
    frames = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    for choice in ("sampled", "likeliest", "probabilities"):
        model = WorldModel(preset("debug", {"world_model.latents": choice}).world_model, 3).eval()
        with torch.no_grad():
            observed = model.observe(frames)
        latents = observed.latent.unflatten(-1, observed.posterior.shape[-2:])
        assert torch.equal(latents, observed.posterior.exp()) == (choice == "probabilities")
        assert bool((latents.max(-1).values == 1).all()) == (choice != "probabilities")
        likeliest = (latents.argmax(-1) == observed.posterior.argmax(-1)).all()
        assert bool(likeliest) == (choice != "sampled")
