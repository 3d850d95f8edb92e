"""What an update computes, phase by phase: functions of tensors alone, compiled on CPUs and GPUs, recorded on GPUs.

Nothing in here draws steps from the replay, moves weights or waits for the device: that is the trainer's. What moves
along with the batches does so in here, as recordings need it: the averages of BatchNorm and of the return's range.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from glamkit.config import Config, OptimizerConfig
from glamkit.models import head_metrics
from glamkit.models.agent import Agent
from glamkit.models.world_model import Observed
from glamkit.runtime import Machine
from glamkit.training.accelerate.rounded import Rounded
from glamkit.training.accelerate.rules import WEIGHTS, foreign
from glamkit.types import Batch, Context, Rollout

Module = TypeVar("Module", bound=nn.Module)


class Updates:
    """The phases of `trainer.Trainer.advance`, each `Machine.record`-ed; `off` names acceleration rules left out."""

    def __init__(self, config: Config, agent: Agent, machine: Machine, off: Collection[str] = ()) -> None:
        self.config, self.agent, self.machine = config, agent, machine
        model, critic = agent.world_model, agent.actor_critic
        fuse, record = machine.fuse, machine.record

        unread = model.decoder, model.posterior, model.variation_posterior, model.variation_prior
        exact = model.stem, *unread, critic.critic, critic.slow_critic
        plain = WEIGHTS in off or foreign(agent)  # whose layers may be read without autocast
        self.imaginer = Rounded(agent, torch.float32 if plain else machine.precision, exact)
        twin = self.imaginer.twin.world_model
        # Rollouts get longer as training goes on: what sees whole ones is compiled for any length.
        outcome = fuse(twin.outcome, dynamic=True)
        begin, imagine_step = fuse(twin.begin), fuse(twin.imagine_step)
        self.imagining = with_methods(twin, begin=begin, imagine_step=imagine_step, outcome=outcome)

        self.observe, self.world_model_loss = fuse(model.observe), fuse(model.loss)
        self.context, self.held = model.context, head_metrics.experience
        self.critic, choose = critic, agent.choose
        if machine.device.type != "cpu":
            # On CPUs this saves less than compiling costs; and the slices in which contexts are encoded, so that they
            # stay in the cache, would be written out one by one.
            self.context, self.held = fuse(model.context), fuse(head_metrics.experience)
            judged, loss = fuse(critic.evaluate_states, dynamic=True), fuse(critic.policy_loss, dynamic=True)
            self.critic = with_methods(critic, evaluate_states=judged, policy_loss=loss)
            choose = fuse(agent.choose)

        self.usual_choice = record(partial(self._choose, choose))
        self.player = with_methods(agent, choose=self.choose)
        self.learn_world, self.encode = record(self._learn_world), record(self._encode)
        self.imagine, self.learn_behaviour = record(self._imagine), record(self._learn_behaviour)

    def choose(self, now: Tensor, frames: Tensor, actions: Tensor, sampled: bool) -> Tensor:
        """Actions in the real game, see `Agent.choose`; recorded for a past of the full length."""
        usual = actions.shape == (1, self.config.agent.context_length)
        choose = self.usual_choice if usual else partial(self._choose, self.agent.choose)
        return choose(now, frames, actions, sampled)

    @torch.no_grad()
    def _choose(self, choose: Callable[..., Tensor], *seen: Any) -> Tensor:
        with self.machine.autocast():
            return choose(*seen)

    def _learn_world(self, batch: Batch) -> tuple[Observed, dict[str, Tensor], dict[str, Tensor]]:
        """Puts the gradient into the world model; returns what it saw, its metrics, and what the batch holds."""
        model = self.agent.world_model
        model.train()
        with self.machine.autocast():
            observed = self.observe(batch.frames)
            loss, metrics = self.world_model_loss(batch, observed)
        metrics = backward_and_clip(model, loss, metrics, self.config.world_model_optimizer.clip)
        model.eval()
        return Observed(*(part.detach() for part in observed)), metrics, self.held(batch)

    @torch.no_grad()
    def _encode(self, frames: Tensor, actions: Tensor) -> Context:
        """Real steps, as contexts of imagined rollouts."""
        with self.machine.autocast():
            return self.context(frames, actions)

    @torch.no_grad()
    def _imagine(self, context: Context, horizon: int) -> Rollout:
        """Imagined rollouts of `horizon` steps that follow the policy."""
        policy = self.imaginer.renewed().actor_critic.act
        with self.machine.autocast():
            return self.imagining.imagine(policy, context, horizon, self.config.imagination.memory)

    def _learn_behaviour(self, rollout: Rollout, progress: Tensor) -> dict[str, Tensor]:
        """Puts the gradient into actor and critic; `progress` as in `ActorCritic.loss`."""
        with self.machine.autocast():
            loss, metrics = self.critic.loss(rollout, progress)
        return backward_and_clip(self.agent.actor_critic, loss, metrics, self.config.actor_critic_optimizer.clip)


def with_methods(module: Module, **methods: Callable[..., Any]) -> Module:
    """A module that shares everything with another, but for some methods, such as compiled ones."""
    view = copy.copy(module)
    vars(view).update(methods)
    return view


def backward_and_clip(model: nn.Module, loss: Tensor, metrics: dict[str, Tensor], clip: float) -> dict[str, Tensor]:
    """Puts the clipped gradient of a loss into the model's parameters; returns its metrics, with the norm before."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    return {**metrics, "gradient_norm": norm, "clipped": (norm > clip).float()}


def adam(model: nn.Module, config: OptimizerConfig) -> torch.optim.Adam:
    """Adam over what is trained in `model`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate, eps=config.epsilon, fused=True)
    # Fused steps leave the weights' version numbers as they are, by which caches know their weights.
    optimizer.register_step_post_hook(lambda *_: increment_version(trained))
    return optimizer
