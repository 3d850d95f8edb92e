"""Weights of the released code: in, out, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import Tensor

import glamkit
from glamkit.config import ActorCriticConfig, WorldModelConfig
from glamkit.errors import GlamkitError
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.released import export_released, import_released, import_released_agent
from glamkit.models.world_model import WorldModel
from glamkit.types import Context

DATA = ROOT / "tests" / "data"
SIZES: dict[str, Any] = {"channels": (4, 8), "variables": 3, "classes": 3, "width": 16, "state": 4}


def released_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """What the released code calls its parameters, from a reference file."""
    with np.load(DATA / f"official_{name}.npz") as file:
        shapes = json.loads(file["meta"].tobytes())["shapes"]
    return {key: tuple(shape) for key, shape in shapes.items()}


def pair(actions: int = 5, **sizes: Any) -> tuple[WorldModel, ActorCritic]:
    world_model = WorldModel(WorldModelConfig(**{**SIZES, **sizes}), actions)
    actor_critic = ActorCritic(ActorCriticConfig(layers=1, width=8), world_model.features, actions)
    for module in (world_model, actor_critic):  # nothing may be left at its initial value by chance
        for value in module.state_dict().values():
            value.copy_(torch.randn(value.shape).abs() * 10)
    return world_model, actor_critic


def states(**sizes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    world_model, agent = export_released(*pair(**sizes))
    assert agent is not None
    return world_model, agent


def test_the_published_model_has_the_released_names_and_shapes() -> None:
    actor_critic = ActorCritic(ActorCriticConfig(width=128), 320, 6)
    exported = export_released(WorldModel(WorldModelConfig(), 6), actor_critic)
    for name, state in zip(("world_model", "agent"), exported, strict=True):
        assert state is not None
        assert {key: tuple(value.shape) for key, value in state.items()} == released_shapes(name)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"actions": 18, "channels": (4, 4, 6), "width": 32, "bins": 41},
        {"blocks": 2, "expand": 1, "conv": 3, "state": 8},
        {"actions": 2, "variables": 4, "classes": 4},
        {"foreground_scale": 10.0},  # as in quick and laptop
    ],
)
def test_a_round_trip_infers_the_sizes_and_keeps_every_number(sizes: dict[str, Any]) -> None:
    world_model, actor_critic = pair(**sizes)
    again, agent = import_released(*export_released(world_model, actor_critic))
    assert agent is not None
    assert again.actions == agent.actions == world_model.actions
    for name in (*SIZES, "blocks", "expand", "conv", "bins"):
        assert getattr(again.config, name) == getattr(world_model.config, name), name
    for ours, theirs in ((world_model, again), (actor_critic, agent)):
        stored = theirs.state_dict()
        for name, value in ours.state_dict().items():
            if not name.startswith(("range.", "foreground.")):  # elsewhere in the released code; not in it at all
                assert torch.equal(stored[name], value), name


@pytest.mark.parametrize(
    ("name", "value", "fixed"),
    [("window", 3, 4), ("modules", "gmamba", "'both'"), ("unimix", 0.1, 0.01), ("bin_limit", 5.0, 20.0)],
)
def test_what_the_released_code_has_fixed_is_not_lost(name: str, value: Any, fixed: Any) -> None:
    with pytest.raises(GlamkitError, match=f"^world_model.{name} = {value!r} .* in the released code it is {fixed}.$"):
        export_released(*pair(**{name: value}))
    if name == "bin_limit":
        world_model, agent = pair()[0], ActorCritic(ActorCriticConfig(layers=1, width=8, bin_limit=value), 25, 5)
        with pytest.raises(GlamkitError, match=r"^actor_critic\.bin_limit = 5\.0 .* it is 20\.0\.$"):
            export_released(world_model, agent)


def test_imported_models_are_whole() -> None:
    world_model, actor_critic = import_released(*states())
    assert actor_critic is not None
    context = Context(torch.rand(2, 8, world_model.latent), torch.zeros(2, 8, dtype=torch.int64))
    assert world_model.eval().imagine(actor_critic.act, context, 2).states.shape == (2, 3, world_model.features)
    assert not any(p.requires_grad for p in actor_critic.slow_critic.parameters())


def test_the_agent_alone_and_the_world_model_alone() -> None:
    world_model, agent = states()
    assert import_released(world_model)[1] is None
    assert import_released_agent(agent).actions == 5
    assert export_released(import_released(world_model)[0])[1] is None
    assert glamkit.import_released is import_released


@pytest.mark.parametrize("part", [0, 1])
def test_every_missing_entry_is_named(part: int) -> None:
    whole = states()
    for name in whole[part]:
        broken = [dict(state) for state in whole]
        del broken[part][name]
        with pytest.raises(GlamkitError) as caught:
            import_released(*broken)
        assert f"{name} is missing" in str(caught.value)


def test_plain_cases_are_named_exactly() -> None:
    world_model, agent = states()
    missing = {k: v for k, v in world_model.items() if k != "storm_mamba.stem.3.weight"}
    with pytest.raises(GlamkitError, match=r"released world model: storm_mamba\.stem\.3\.weight is missing\."):
        import_released(missing)
    with pytest.raises(GlamkitError, match=r"released world model: extra\.weight is surplus\."):
        import_released({**world_model, "extra.weight": torch.zeros(1)})
    shape = r"storm_mamba\.stem\.3\.weight has shape \(16, 15\), not \(16, 16\)\."
    with pytest.raises(GlamkitError, match=shape):
        import_released({**world_model, "storm_mamba.stem.3.weight": torch.zeros(16, 15)})
    with pytest.raises(GlamkitError, match=r"released agent: actor\.1\.bias is missing\."):
        import_released(world_model, {k: v for k, v in agent.items() if k != "actor.1.bias"})


def test_many_problems_are_counted() -> None:
    world_model, _ = states()
    extra = {f"x{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(GlamkitError, match=r"x0 is surplus; .*x4 is surplus \(and 4 more\)"):
        import_released({**world_model, **extra})


def test_impossible_sizes_are_refused() -> None:
    world_model, agent = states()
    with pytest.raises(GlamkitError, match=r"released world model: expand = 0 is outside 1 to 8"):
        import_released({**world_model, "storm_mamba.longlayers.0.mixer.A_log": torch.zeros(1, 4)})
    with pytest.raises(GlamkitError, match=r"released agent: bins = 2 is outside"):
        import_released(world_model, {**agent, "critic.3.weight": torch.zeros(2, 8)})


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2, 2)}])
def test_foreign_weights_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(GlamkitError, match="not weights of the released"):
        import_released(state)
    with pytest.raises(GlamkitError, match="not weights of the released"):
        import_released_agent(state)


def test_a_latent_that_is_no_square_is_refused() -> None:
    world_model, _ = states()
    with pytest.raises(GlamkitError, match="10 rows, which is not a square"):
        import_released({**world_model, "dist_head.prior_head.weight": torch.zeros(10, 16)})


def test_parts_of_two_runs_are_refused() -> None:
    world_model, _ = states()
    _, agent = states(width=32)
    with pytest.raises(GlamkitError, match=r"the agent reads 41 features, but the world model's states have 25"):
        import_released(world_model, agent)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1, 1), (2, 3, 4), (1, 1, 1, 1)])
def test_any_misshapen_entry_gives_a_sentence(part: int, shape: tuple[int, ...]) -> None:
    whole = states()
    for name, value in whole[part].items():
        if tuple(value.shape) != shape:
            broken = [dict(state) for state in whole]
            broken[part][name] = torch.zeros(shape)
            with pytest.raises(GlamkitError):
                import_released(*broken)


@pytest.mark.parametrize("value", [None, 3, "x", [1.0]])
def test_an_entry_that_is_no_tensor_gives_a_sentence(value: Any) -> None:
    state, agent = export_released(*pair())
    assert agent is not None
    with pytest.raises(GlamkitError, match=r"prior_head\.weight is no tensor"):
        import_released(state | {"dist_head.prior_head.weight": value}, agent)
    with pytest.raises(GlamkitError, match="is no tensor"):
        import_released(state, dict.fromkeys(agent, value))
