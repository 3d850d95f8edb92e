"""Activations are noted by name wherever the model runs, and replaced ones change what follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glamkit.analysis import watch
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent, RecentSteps
from glamkit.models.world_model import WorldModel
from glamkit.training.accelerate import accelerate
from glamkit.training.accelerate.windows import WindowSequenceModel
from glamkit.types import Batch, Context

A, T = 3, 12


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    config = preset("debug")
    world_model = WorldModel(config.world_model, A)
    world_model.sample = torch.exp
    made = Agent(config.agent, world_model, ActorCritic(config.actor_critic, world_model.features, A)).eval()
    accelerate(made, torch.device("cpu"))
    return made


def batch() -> Batch:
    frames = torch.randint(256, (2, T, 3, 32, 32), dtype=torch.uint8)
    return Batch(frames, torch.randint(A, (2, T)), torch.randn(2, T), torch.zeros(2, T))


def context(model: WorldModel) -> Context:
    return model.context(batch().frames, torch.randint(A, (2, T)))


def test_activations_are_seen_in_loss_imagination_and_acting(agent: Agent) -> None:
    model = agent.world_model
    with watch(agent, "gmamba.out", "lmamba", "actor.0", "sequence_model") as seen:
        model.loss(batch())
        assert [x.shape for x in seen["gmamba.out"]] == [(2, T - 1, 16)]
        start = context(model)
        rollout = model.imagine(agent.actor_critic.act, start, 3)
        assert len(seen["gmamba.out"]) == len(seen["lmamba"]) == 1 + 1 + 3
        assert torch.equal(seen["gmamba.out"][-1][:, -1] + seen["lmamba"][-1][:, -1], rollout.states[:, -1, -16:])
        assert len(seen["actor.0"]) == 3 and len(seen["sequence_model"]) == 1
        past = RecentSteps(agent.config, 1, 32, torch.device("cpu"))
        past.add(np.zeros((1, 32, 32, 3), np.uint8), torch.zeros(1, dtype=torch.int64), np.array([False]))
        agent.act(np.zeros((1, 32, 32, 3), np.uint8), past)
    assert len(seen["gmamba.out"]) == 6 and len(seen["actor.0"]) == 4
    assert not any(x.requires_grad for x in seen["gmamba.out"])


@torch.no_grad()
def test_replaced_activations_change_what_follows(agent: Agent) -> None:
    model, start = agent.world_model, context(agent.world_model)
    plain = model.remember(start).hidden
    with watch(model, "gmamba.out", replace={"gmamba.out": torch.zeros_like}) as seen:
        memory = model.remember(start)
        local = model.sequence_model.lmamba(model.tokens(*start)[:, -4:])[:, -1]
        assert torch.equal(memory.hidden, local) and not memory.variation.any() and not seen["gmamba.out"][0].any()
    assert not torch.allclose(memory.hidden, plain, atol=1e-3)
    assert torch.equal(model.remember(start).hidden, plain), "afterwards all is as before"
    with watch(model, replace={"gmamba.out": lambda g: 1 * g}):
        torch.testing.assert_close(model.remember(start).hidden, plain, rtol=1e-4, atol=1e-5)
    assert isinstance(model.sequence_model, WindowSequenceModel)


@pytest.mark.parametrize(
    ("memory", "called"),
    [("window", {"lmamba", "gmamba.out", "gmamba", "gmamba.blocks.0"}), ("recurrent", {"lmamba", "gmamba.out"})],
)
def test_what_is_not_called_is_told_of(
    agent: Agent, memory: str, called: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, names = agent.world_model, ("lmamba", "gmamba.out", "gmamba", "gmamba.blocks.0", "sequence_model")
    with torch.no_grad(), watch(agent, *names[:3], replace=dict.fromkeys(names[2:], lambda x: x)) as seen:
        model.imagine(agent.actor_critic.act, context(model), 2, memory)
        assert not caplog.messages
    told = [f"{name!r} was not called: " for name in names if name not in called]
    assert [text[: len(start)] for text, start in zip(caplog.messages, told, strict=True)] == told
    assert all(text.endswith("every memory calls gmamba.out.") for text in caplog.messages)
    assert {name for name, outputs in seen.items() if outputs} == called & set(seen)


def test_mistaken_names_and_shapes_get_a_sentence(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    with (
        pytest.raises(GlamkitError, match=r"'gmamba\.outt' is no module.*did you mean.*gmamba\.out"),
        watch(agent, "gmamba.outt"),
    ):
        pass
    with pytest.raises(GlamkitError, match=r"'out' is the name of 2 modules; "), watch(agent, "out"):
        pass
    with (
        pytest.raises(GlamkitError, match=r"replacement of 'gmamba\.out' gives \(2,\); use shape \(2, 11, 16\)"),
        watch(agent, "actor", replace={"gmamba.out": lambda g: g[:, 0, 0]}),
    ):
        agent.world_model.loss(batch())
    assert not caplog.messages, "what goes wrong inside is told of once"
    assert not agent.world_model.sequence_model.gmamba.out._forward_hooks
    assert isinstance(agent.world_model.sequence_model, WindowSequenceModel)
