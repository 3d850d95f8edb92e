"""What an update computes, phase by phase: functions of tensors alone, compiled on CPUs and GPUs, recorded on GPUs.

Nothing in here draws steps from the replay, moves weights or waits for the device: that is the trainer's. What moves
along with the batches does so in here, as recordings need it: the averages of BatchNorm and of the return's range.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from glamkit.config import Config, OptimizerConfig
from glamkit.models import head_metrics
from glamkit.models.actor_critic import Judging
from glamkit.models.agent import Agent, Choose
from glamkit.models.world_model import Dreaming, Observed
from glamkit.ops.precision import Rounded
from glamkit.ops.scan import has_kernels
from glamkit.runtime import Machine
from glamkit.types import Batch, Context, Rollout


class Gradient(NamedTuple):
    """What is known of a gradient, which itself is left in the model's parameters, clipped."""

    loss: Tensor
    norm: Tensor  # before it was clipped
    metrics: dict[str, Tensor]


class Updates:
    """The phases of `trainer.Trainer.advance`, each `Machine.record`-ed.

    Args:
        config: the experiment.
        agent: on the machine's device.
        machine: where it computes.
    """

    def __init__(self, config: Config, agent: Agent, machine: Machine) -> None:
        self.config, self.agent, self.machine = config, agent, machine
        model, fuse, record = agent.world_model, machine.fuse, machine.record
        looked_up = cast(nn.Linear, model.stem[0]) if has_kernels(machine.device) else None
        unread = model.decoder, model.posterior, model.variation_posterior, model.variation_prior
        critics = agent.actor_critic.critic, agent.actor_critic.slow_critic
        self.dreamer = Rounded(agent, machine.precision, (model.stem, *unread, *critics), looked_up)
        dreamt = self.dreamer.twin.world_model
        self.observe, self.world_model_loss = fuse(model.observe), fuse(model.loss)
        # Dreams get longer as training goes on: what sees whole ones is compiled for any length.
        self.dreaming = Dreaming(fuse(dreamt.begin), fuse(dreamt.step), fuse(dreamt.outcome, dynamic=True))
        self.context, self.held, self.judging, choose = model.context, head_metrics.experience, None, agent.choose
        if machine.device.type != "cpu":
            # On CPUs this saves less than compiling costs; and the slices in which contexts are encoded, so that they
            # stay in the cache, would be written out one by one.
            self.context, self.held, choose = fuse(model.context), fuse(self.held), fuse(agent.choose)
            critic = agent.actor_critic
            self.judging = Judging(fuse(critic.evaluate_states, dynamic=True), fuse(critic.policy_loss, dynamic=True))
        self.learn_world, self.encode = record(self._learn_world), record(self._encode)
        self.usual_choice = record(partial(self._choose, choose))
        self.dream, self.learn_behaviour = record(self._dream), record(self._learn_behaviour)

    def choose(self, now: Tensor, frames: Tensor, actions: Tensor, sampled: bool) -> Tensor:
        """Actions in the real game, see `Agent.choose`; recorded for a past of the full length."""
        usual = actions.shape == (1, self.config.agent.context_length)
        choose = self.usual_choice if usual else partial(self._choose, self.agent.choose)
        return choose(now, frames, actions, sampled)

    @torch.no_grad()
    def _choose(self, choose: Choose, *seen: Any) -> Tensor:
        with self.machine.autocast():
            return choose(*seen)

    def _learn_world(self, batch: Batch) -> tuple[Observed, Gradient, dict[str, Tensor]]:
        """The gradient of the world model; also what it saw, and what the batch holds."""
        model = self.agent.world_model
        model.train()
        with self.machine.autocast():
            observed = self.observe(batch.frames)
            loss, metrics = self.world_model_loss(batch, observed)
        gradient = descent(model, loss, metrics, self.config.world_model_optimizer.clip)
        model.eval()
        return Observed(*(part.detach() for part in observed)), gradient, self.held(batch)

    @torch.no_grad()
    def _encode(self, frames: Tensor, actions: Tensor) -> Context:
        """Real steps, as contexts of dreams."""
        with self.machine.autocast():
            return self.context(frames, actions)

    @torch.no_grad()
    def _dream(self, context: Context, horizon: int) -> Rollout:
        """Dreams of `horizon` steps that follow the policy."""
        dreamer = self.dreamer.renewed()
        with self.machine.autocast():
            memory, policy = self.config.imagination.memory, dreamer.actor_critic.act
            return dreamer.world_model.imagine(policy, context, horizon, memory, self.dreaming)

    def _learn_behaviour(self, rollout: Rollout, progress: Tensor) -> Gradient:
        """The gradient of actor and critic; `progress` as in `ActorCritic.loss`."""
        model = self.agent.actor_critic
        with self.machine.autocast():
            loss, metrics = model.loss(rollout, progress, self.judging)
        return descent(model, loss, metrics, self.config.actor_critic_optimizer.clip)


def descent(model: nn.Module, loss: Tensor, metrics: dict[str, Tensor], clip: float) -> Gradient:
    """Puts the clipped gradient of a loss into the model's parameters."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    told = {**metrics, "gradient_norm": norm, "clipped": (norm > clip).float()}
    return Gradient(loss.detach(), norm, told)


def adam(model: nn.Module, config: OptimizerConfig) -> torch.optim.Adam:
    """Adam over what is trained in `model`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=config.learning_rate, eps=config.epsilon, fused=True)
