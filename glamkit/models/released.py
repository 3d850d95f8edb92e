"""Weights of the released code, in and out: names and shapes both ways, sizes inferred."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from glamkit.config import ActorCriticConfig, WorldModelConfig
from glamkit.errors import GlamkitError, reason
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel

# Our name -> theirs, by prefix. Layers inside a sequence are numbered alike in both.
WORLD_MODEL_NAMES = {
    "encoder": "encoder.backbone",
    "decoder": "image_decoder.backbone",
    "stem": "storm_mamba.stem",
    "sequence_model.gmamba.blocks": "storm_mamba.longlayers",
    "sequence_model.gmamba.out": "storm_mamba.output_proj",
    "sequence_model.lmamba.blocks": "storm_mamba.shortlayers",
    "sequence_model.lmamba.out": "storm_mamba.short_output_proj.0",
    "posterior": "dist_head.post_head",
    "prior": "dist_head.prior_head",
    "variation_posterior": "delta_dist_head.post_head",
    "variation_prior": "delta_dist_head.prior_head",
    "reward.6": "reward_decoder.head",
    "reward": "reward_decoder.backbone",
    "termination.6": "termination_decoder.head.0",
    "termination": "termination_decoder.backbone",
}
AGENT_NAMES = {"actor": "actor", "critic": "critic", "slow_critic": "slow_critic"}

State = Mapping[str, Tensor]
Model = TypeVar("Model", WorldModel, ActorCritic)


def import_released(
    world_model_state: State, agent_state: State | None = None
) -> tuple[WorldModel, ActorCritic | None]:
    """Our models with the released code's weights.

    Args:
        world_model_state: state dict of the released world model.
        agent_state: state dict of the released actor-critic, if wanted.

    Returns:
        The world model, and the actor-critic or None.

    Raises:
        GlamkitError: an entry is missing, surplus or misshapen; it is named.
    """
    world_model = _build(_new_world_model, world_model_state, WORLD_MODEL_NAMES, "world model")
    if agent_state is None:
        return world_model, None
    actor_critic = import_released_agent(agent_state)
    if actor_critic.features != world_model.features:
        raise GlamkitError(
            f"the agent reads {actor_critic.features} features, "
            f"but the world model's states have {world_model.features}; are they from one run?"
        )
    return world_model, actor_critic


def import_released_agent(agent_state: State) -> ActorCritic:
    """The actor-critic alone; see `import_released`."""
    return _build(_new_actor_critic, agent_state, AGENT_NAMES, "agent")


def export_released(
    world_model: WorldModel, actor_critic: ActorCritic | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Inverse of `import_released`: state dicts under the released code's names.

    What weighs small things is left out: only the training loss reads it, and the released code has none.

    Raises:
        GlamkitError: a latent has not as many variables as classes, which the released code takes for granted, or a
            setting that is fixed there has another value.
    """
    config = world_model.config
    if config.variables != config.classes:
        raise GlamkitError(
            f"world_model.variables = {config.variables} and world_model.classes = {config.classes} differ, and the "
            "released code has one number for both."
        )
    _check_fixed("world_model", config, ("window", "modules", "unimix", "bin_limit"))
    if actor_critic is not None:
        _check_fixed("actor_critic", actor_critic.config, ("bin_limit",))
    agent = None if actor_critic is None else _exported(actor_critic, AGENT_NAMES)
    return _exported(world_model, WORLD_MODEL_NAMES), agent


def _check_fixed(section: str, config: WorldModelConfig | ActorCriticConfig, names: Sequence[str]) -> None:
    """Refuses settings that no weight shows and that the released code has as constants, which are our defaults."""
    for name in names:
        value, fixed = getattr(config, name), getattr(type(config)(), name)
        if value != fixed:
            raise GlamkitError(f"{section}.{name} = {value!r} would be lost: in the released code it is {fixed!r}.")


def released_name(name: str, names: Mapping[str, str]) -> str:
    """The released code's name of one of our parameters."""
    ours = max((prefix for prefix in names if name.startswith(prefix + ".")), key=len)
    return names[ours] + name.removeprefix(ours)


def _exported(model: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """What the released code has as well: neither what weighs small things nor the averages of returns."""
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(("foreground.", "range."))}
    return {released_name(name, names): value for name, value in own.items()}


def _build(new: Callable[[State], Model], state: State, names: Mapping[str, str], what: str) -> Model:
    """A new model of sizes that fit the shapes, with the weights of a state once all of them fit."""
    try:
        model = new(state)
    except (GlamkitError, RuntimeError, ValueError, TypeError, OverflowError) as error:  # no layer has such sizes
        raise GlamkitError(f"these are not weights of the released {what}: {reason(error)}.") from None
    own = _exported(model, names)
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is surplus" for name in state if name not in own]
    for name, value in own.items():
        given = state.get(name, value)
        shape = tuple(given.shape) if isinstance(given, Tensor) else None
        if shape != value.shape:
            problems.append(f"{name} has shape {shape}, not {tuple(value.shape)}")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise GlamkitError(f"these are not weights of the released {what}: {'; '.join(problems[:5])}{more}.")
    for name, value in own.items():
        value.copy_(state[name])
    return model


def _new_world_model(state: State) -> WorldModel:
    convs = range(0, _highest(state, "encoder.backbone") + 1, 3)
    latent, width = _shape(state, "dist_head.prior_head.weight", 2)
    variables = math.isqrt(latent)
    if variables**2 != latent:
        raise GlamkitError(f"dist_head.prior_head.weight has {latent} rows, which is not a square number of classes.")
    mixer = "storm_mamba.longlayers.0.mixer"
    inner, states = _shape(state, f"{mixer}.A_log", 2)
    config = WorldModelConfig(
        channels=tuple(_shape(state, f"encoder.backbone.{i}.weight", 4)[0] for i in convs),
        variables=variables,
        classes=variables,
        width=width,
        blocks=_highest(state, "storm_mamba.longlayers") + 1,
        state=states,
        conv=_shape(state, f"{mixer}.conv1d.weight", 3)[2],
        expand=inner // width,
        bins=_shape(state, "reward_decoder.head.weight", 2)[0],
    )
    return WorldModel(config, _shape(state, "storm_mamba.stem.0.weight", 2)[1] - latent)


def _new_actor_critic(state: State) -> ActorCritic:
    last = _highest(state, "actor")
    width, features = _shape(state, "actor.0.weight", 2)
    actions, bins = (_shape(state, f"{name}.{last}.weight", 2)[0] for name in ("actor", "critic"))
    return ActorCritic(ActorCriticConfig(layers=last // 3, width=width, bins=bins), features, actions)


def _highest(state: State, prefix: str) -> int:
    """The highest number of a layer under a prefix, whichever of its entries are there."""
    matches = (re.match(rf"{re.escape(prefix)}\.(\d{{1,4}})\.", name) for name in state)
    return max((int(match[1]) for match in matches if match), default=0)


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise GlamkitError(f"{name} is missing.")
    value = state[name]
    if not isinstance(value, Tensor) or value.dim() != dimensions or 0 in value.shape:
        raise GlamkitError(f"{name} is no tensor with {dimensions} axes.")
    return tuple(value.shape)
