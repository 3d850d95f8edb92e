"""The reference implementation: the models as they are written, trained as the released code trains them.

Everything is float32, on GPUs with TF32 in products, where the released code has bfloat16. Nothing is compiled, and the
scan is a Python loop. Every LMamba window is built explicitly and read in full. At each step of an imagined rollout its
window is read again from the start. Nothing is shared between windows or steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glamkit.config import OptimizerConfig
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel
from glamkit.training.trainer import Trainer
from glamkit.types import Batch, Context, Rollout


def plain_copy(world_model: WorldModel) -> WorldModel:
    """A world model with the same weights and without acceleration."""
    plain = WorldModel(world_model.config, world_model.actions)
    plain.load_state_dict(world_model.state_dict())
    plain.to(next(world_model.parameters()).device)
    return plain.train(world_model.training)


class PlainTrainer:
    """The training step as the released code does it: it starts with the weights of a `Trainer` and uses its replay.

    Everything is float32 and contiguous, and Adam is torch's default. The contexts of imagined rollouts are new random
    windows of the replay, encoded in full.

    Args:
        trainer: its weights are copied; its replay and its horizon are used as they are.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, config = trainer, trainer.config
        self.world_model = plain_copy(trainer.agent.world_model).eval()
        fast = trainer.agent.actor_critic
        self.actor_critic = ActorCritic(fast.config, fast.features, fast.actions).to(trainer.machine.device).eval()
        self.actor_critic.load_state_dict(fast.state_dict())
        self.world_model_optimizer = adam(self.world_model, config.world_model_optimizer)
        self.actor_critic_optimizer = adam(self.actor_critic, config.actor_critic_optimizer)

    def update(self) -> None:
        """A whole step: sample, update the world model, imagine, update the actor-critic."""
        self.train_world_model(self.trainer.replay.sample())
        self.train_actor_critic(self.imagine())

    def train_world_model(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the world model; returns the parts of its loss."""
        self.world_model.train()
        loss, metrics = self.world_model.loss(batch._replace(frames=batch.frames.contiguous()))
        self.optimizer_step(
            self.world_model_optimizer, loss, self.world_model, self.trainer.config.world_model_optimizer
        )
        self.world_model.eval()
        return metrics

    @torch.no_grad()
    def contexts(self) -> Context:
        """New random windows of the replay, encoded: latents and actions of (starts, context_length) steps."""
        settings = self.trainer.config.imagination
        real = self.trainer.replay.sample(settings.starts, settings.context_length)
        return self.world_model.context(real.frames.contiguous(), real.actions)

    @torch.no_grad()
    def imagine(self, context: Context | None = None) -> Rollout:
        """Imagined rollouts from the given contexts; None takes new ones."""
        return self.world_model.imagine(self.actor_critic.act, context or self.contexts(), self.trainer.horizon)

    def train_actor_critic(self, rollout: Rollout) -> dict[str, Tensor]:
        """One update of actor and critic; returns the parts of their loss."""
        loss, metrics = self.actor_critic.loss(rollout, self.progress)
        self.optimizer_step(
            self.actor_critic_optimizer, loss, self.actor_critic, self.trainer.config.actor_critic_optimizer
        )
        self.actor_critic.move_slow_critic()
        return metrics

    @property
    def progress(self) -> float:
        """How much of the trainer's run is done, 0 to 1."""
        return self.trainer.config.trainer.progress(self.trainer.step)

    def optimizer_step(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, model: nn.Module, config: OptimizerConfig
    ) -> None:
        """One optimiser step, with the gradient clipped to the norm `config.clip`."""
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.param_groups[0]["lr"] = config.rate(self.progress)
        optimizer.step()


def adam(model: nn.Module, config: OptimizerConfig) -> torch.optim.Adam:
    """Torch's default Adam over the parameters that are trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=config.learning_rate, eps=config.epsilon)
