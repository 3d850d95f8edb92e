"""Every fast path equals the plain one, forward and gradient, in float32; in bfloat16 it stays as near as said here."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from glamkit.config import preset
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import Context, WorldModel
from glamkit.training.accelerate import accelerate
from glamkit.training.replay import Batch
from glamkit.types import Rollout


def batch(size: int, length: int, pixels: int = 32, actions: int = 5) -> Batch:
    return Batch(
        torch.randint(0, 256, (size, length, 3, pixels, pixels), dtype=torch.uint8),
        torch.randint(actions, (size, length)),
        torch.randn(size, length),
        (torch.rand(size, length) < 0.1).float(),
    )


def plain_copy(model: WorldModel) -> WorldModel:
    """A world model with the same weights and without acceleration."""
    plain = WorldModel(model.config, model.actions)
    plain.load_state_dict(model.state_dict())
    return plain.train(model.training)


CASES = {
    "one block": "world_model.blocks=1",
    "two blocks": "world_model.blocks=2",
    "gmamba": "world_model.modules=gmamba",
    "lmamba": "world_model.modules=lmamba",
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def model(request: pytest.FixtureRequest) -> WorldModel:
    torch.manual_seed(0)
    config = preset("debug", f"world_model.width=32 {request.param}")
    model = WorldModel(config.world_model, 5)
    accelerate(model, torch.device("cpu"))
    return model


def test_the_loss_and_its_gradients(model: WorldModel) -> None:
    plain, data = plain_copy(model), batch(3, 14)
    model.sample = plain.sample = torch.exp  # probabilities for latents: the two draw no random numbers
    fast_loss, _ = model.loss(data)
    plain_loss, _ = plain.loss(data)
    torch.testing.assert_close(fast_loss, plain_loss, rtol=1e-5, atol=0)
    fast_loss.backward()
    plain_loss.backward()
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            scale = float(theirs.grad.abs().max()) + 1e-6
            torch.testing.assert_close(mine.grad / scale, theirs.grad / scale, rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
def test_dreams_of_the_same_actions(model: WorldModel) -> None:
    model.eval()
    plain, data = plain_copy(model), batch(6, 8)
    model.sample = plain.sample = torch.exp
    context = Context(model.observe(data.frames).latent, data.actions)
    fast, slow = (m.imagine(lambda s: (s[:, 0] > 0.25).long(), context, 12) for m in (model, plain))
    torch.testing.assert_close(fast.states, slow.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.rewards, slow.rewards, rtol=1e-3, atol=1e-3)


def test_bfloat16_stays_near(model: WorldModel) -> None:
    plain, data = plain_copy(model), batch(3, 14)
    model.sample = plain.sample = torch.exp
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, fast = model.loss(data)
    _, slow = plain.loss(data)
    for name in ("reconstruction", "reward", "termination", "dynamics_kl", "variation_kl"):
        torch.testing.assert_close(fast[name], slow[name], rtol=2e-2, atol=5e-3, msg=name)
        assert fast[name].dtype == torch.float32


def test_bfloat16_goes_the_same_way(model: WorldModel) -> None:
    """Each parameter's gradient has a cosine of 0.9 with the plain one, all together 0.999 and the same size."""
    plain, data = plain_copy(model), batch(8, 14)
    model.sample = plain.sample = torch.exp
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast_loss, _ = model.loss(data)
    fast_loss.backward()
    plain.loss(data)[0].backward()
    mine, theirs = [], []
    for (name, fast), slow in zip(model.named_parameters(), plain.parameters(), strict=True):
        if slow.grad is not None and slow.grad.norm() > 0:
            assert F.cosine_similarity(fast.grad.flatten(), slow.grad.flatten(), 0) > 0.9, name
            mine, theirs = [*mine, fast.grad.flatten()], [*theirs, slow.grad.flatten()]
    one, other = torch.cat(mine), torch.cat(theirs)
    assert F.cosine_similarity(one, other, 0) > 0.999
    assert one.norm() == pytest.approx(float(other.norm()), rel=1e-2)


@torch.no_grad()
def test_bfloat16_dreams_the_same(model: WorldModel) -> None:
    """Untrained latents hardly change from step to step: GMamba's differences would be noise if tokens were rounded."""
    model.eval()
    plain, data = plain_copy(model), batch(6, 8)
    model.sample = plain.sample = torch.exp
    context = Context(plain.observe(data.frames).latent, data.actions)
    slow = plain.imagine(lambda s: (s[:, 0] > 0.25).long(), context, 12)
    taken = iter(slow.actions.unbind(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = model.imagine(lambda _: next(taken), context, 12)
    assert fast.states.dtype == fast.rewards.dtype == torch.float32
    hidden, expected = (rollout.states[..., model.latent :] for rollout in (fast, slow))
    assert (hidden - expected).norm() < 0.12 * expected.norm()  # 0.16 to 0.36 with rounded tokens
    torch.testing.assert_close(fast.rewards, slow.rewards, rtol=0, atol=0.2)


def test_an_actor_and_critic_learn_the_same_in_bfloat16() -> None:
    torch.manual_seed(0)
    fast = ActorCritic(preset("debug").actor_critic, 24, 5)
    slow = copy.deepcopy(fast)
    sizes, ends = (8, 6), (torch.rand(8, 6) < 0.1).float()
    rollout = Rollout(torch.randn(8, 7, 24), torch.randint(5, sizes), torch.randn(sizes), ends)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = fast.loss(rollout)
    loss.backward()
    slow.loss(rollout)[0].backward()
    one, other = (
        torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) for model in (fast, slow)
    )
    assert loss.dtype == torch.float32 and F.cosine_similarity(one, other, 0) > 0.99
