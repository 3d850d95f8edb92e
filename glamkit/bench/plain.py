"""The plain way: what every fast path is tested equal to and timed against.

The same mathematics as the library's, without any of its savings, as in the released code: float32, a Python loop for
the scan, every LMamba window built explicitly and read in full, every dream's window of steps read again from the
start at each step, nothing shared between windows or steps. Whatever becomes of the library, this stays as it is; what
it takes from there are the parts (convolutions, MLPs, actor and critic) and the pure functions of losses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.config import OptimizerConfig, WorldModelConfig
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.mamba import Mamba
from glamkit.models.sequence_model import Blocks, ImaginationMemory, SequenceModel
from glamkit.models.world_model import Dreaming, Observed, Policy, WorldModel
from glamkit.ops.functional import free_nats, kl_categorical, sample_categorical, two_hot_loss
from glamkit.training.trainer import Trainer
from glamkit.types import Batch, Context, Rollout


def plain_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`scan.selective_scan` as its definition reads, one step after the other, left to autograd."""
    state, outputs = u.new_zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        state = torch.exp(dt[:, t, :, None] * A) * state + (dt[:, t] * u[:, t]).unsqueeze(-1) * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1)


def plain_mamba(mixer: Mamba, x: Tensor) -> Tensor:
    """All outputs of a Mamba block for sequences (B, T, width)."""
    inputs, gate = mixer.in_proj(x).chunk(2, -1)
    u = F.silu(mixer.conv1d(inputs.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    dt, B, C = mixer.x_proj(u).split(mixer.sizes, -1)
    y = plain_scan(u, F.softplus(mixer.dt_proj(dt)), -torch.exp(mixer.A_log), B, C)
    return mixer.out_proj((y + mixer.D * u) * F.silu(gate))


def plain_blocks(blocks: Blocks, x: Tensor) -> Tensor:
    """All outputs of a stack of residual blocks."""
    for block in blocks.stack:
        x = x + plain_mamba(block.mixer, block.norm(x))
    return x


def plain_sample(log_probabilities: Tensor) -> Tensor:
    """`functional.one_hot_sample` by torch's own sampler, from probabilities that are written out."""
    probabilities = log_probabilities.exp()
    draw = torch.multinomial(probabilities.detach().flatten(0, -2), 1).view(probabilities.shape[:-1])
    return F.one_hot(draw, probabilities.shape[-1]).to(probabilities.dtype) + probabilities - probabilities.detach()


class PlainSequenceModel(SequenceModel):
    """`SequenceModel` with explicit windows, read in full."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `SequenceModel.forward`."""
        size, count = self.lmamba.window, tokens.shape[1] - self.lmamba.window
        g = self.gmamba.out(plain_blocks(self.gmamba.blocks, tokens[:, 1:] - tokens[:, :-1]))[:, -count:]
        windows = tokens.unfold(1, size, 1)[:, -count:].transpose(-2, -1).flatten(0, 1)
        last = plain_blocks(self.lmamba.blocks, windows)[:, -1]
        return self.hidden(g, self.lmamba.out(last).unflatten(0, (len(tokens), count))), g

    def memory(self, tokens: Tensor, kind: str = "window", apart: bool = False) -> ImaginationMemory:  # noqa: ARG002
        """As `SequenceModel.memory`, for windows: there is one plain way only."""
        return PlainWindow(self, tokens)


class PlainWindow(ImaginationMemory):
    """A window of tokens, read from the start at each step."""

    def __init__(self, model: SequenceModel, tokens: Tensor) -> None:
        self.model, self.window = model, tokens
        self._look()

    def read(self, token: Tensor) -> Tensor:
        """Slides the window by one token and reads all of it."""
        self.window = torch.cat([self.window[:, 1:], token.unsqueeze(1)], 1)
        return self._look()

    def _look(self) -> Tensor:
        model, window = self.model, self.window
        g = plain_blocks(model.gmamba.blocks, window[:, 1:] - window[:, :-1])[:, -1]
        return self._sum(model, g, plain_blocks(model.lmamba.blocks, window[:, -model.lmamba.window :])[:, -1])


class PlainWorldModel(WorldModel):
    """`WorldModel` with the plain sequence model and torch's own convolutions, its loss and its dreams spelt out."""

    def __init__(self, config: WorldModelConfig, actions: int) -> None:
        super().__init__(config, actions)
        self.sequence_model = PlainSequenceModel(config)
        self.encoder[0] = nn.Conv2d(3, config.channels[0], 4, stride=2, padding=1, bias=False)
        self.decoder[0] = nn.Linear(self.latent, 16 * config.channels[-1], bias=False)
        self.stem[0] = nn.Linear(self.latent + actions, config.width, bias=False)
        self.decoder[-1] = nn.ConvTranspose2d(config.channels[0], 3, 4, stride=2, padding=1)
        if config.latents == "sampled":
            self.sample = plain_sample

    def embed(self, frames: Tensor) -> Tensor:
        """As `WorldModel.embed`."""
        return self.encoder(frames.flatten(0, -4).float() / 255).unflatten(0, frames.shape[:-3])

    def tokens(self, latents: Tensor, actions: Tensor) -> Tensor:
        """As `WorldModel.tokens`."""
        return self.stem(torch.cat([latents, F.one_hot(actions, self.actions).to(latents.dtype)], -1))

    def loss(self, batch: Batch, observed: Observed | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """As `WorldModel.loss` (DESIGN section 1)."""
        config, first = self.config, self.config.window
        embedding, posterior, latents = observed or self.observe(batch.frames)
        hidden, variation = self.sequence_model(self.tokens(latents, batch.actions))
        error = self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]) - batch.frames.float() / 255
        seen, predicted = posterior[:, first + 1 :], self.prior(hidden[:, :-1])
        varied, expected = self.varied(embedding[:, first:]), self.variation_prior(variation[:, :-1])
        dynamics, change = kl_categorical(seen.detach(), predicted), kl_categorical(varied.detach(), expected)
        parts = {
            "reconstruction": error.square().sum((-3, -2, -1)).mean(),
            "reward": two_hot_loss(self.reward(hidden), batch.rewards[:, first:], self.bins).mean(),
            "termination": F.binary_cross_entropy_with_logits(
                self.termination(hidden).squeeze(-1), batch.terminations[:, first:]
            ),
            "dynamics": free_nats(dynamics, config.free_nats),
            "representation": free_nats(kl_categorical(seen, predicted.detach()), config.free_nats),
            "variation": free_nats(change, config.variation_free_nats),
        }
        if self.foreground is not None:
            stressed = self.foreground(batch.frames) * error.square()
            parts["foreground"] = stressed.sum((-3, -2, -1)).mean()
        if config.variation_head == "learned":
            pulled = kl_categorical(varied, expected.detach())
            parts["variation_representation"] = free_nats(pulled, config.variation_free_nats)
        weights = {
            "reward": config.reward_scale,
            "dynamics": config.dynamics_scale,
            "representation": config.representation_scale,
            "variation": config.variation_scale,
            "variation_representation": config.representation_scale,
        }
        total = torch.stack([weights.get(name, 1.0) * part for name, part in parts.items()]).sum()
        metrics = parts | {"total": total, "dynamics_kl": dynamics.mean(), "variation_kl": change.mean()}
        return total, {name: part.detach() for name, part in metrics.items()}

    def imagine(
        self,
        policy: Policy,
        context: Context,
        horizon: int,
        memory: str = "window",
        by: Dreaming | None = None,  # noqa: ARG002 - there is one plain way only
    ) -> Rollout:
        """As `WorldModel.imagine` with a window; it holds latents and actions, and all is read again at each step."""
        (latents, actions), hidden = context, self.remember(context, memory).hidden
        latent = self.predict(hidden)
        states, taken, rewards, terminations = [torch.cat([latent, hidden], -1)], [], [], []
        for _ in range(horizon):
            action = policy(states[-1])
            latents = torch.cat([latents[:, 1:], latent.unsqueeze(1)], 1)
            actions = torch.cat([actions[:, 1:], action.unsqueeze(1)], 1)
            hidden = self.remember(Context(latents, actions), memory).hidden
            reward, termination = self.outcome(hidden)
            latent = self.predict(hidden)
            states.append(torch.cat([latent, hidden], -1))
            taken.append(action)
            rewards.append(reward)
            terminations.append(termination)
        return Rollout(*(torch.stack(parts, 1) for parts in (states, taken, rewards, terminations)))


class PlainActorCritic(ActorCritic):
    """`ActorCritic` whose actions are drawn from probabilities that are written out."""

    def act(self, states: Tensor) -> Tensor:
        """As `ActorCritic.act`."""
        return sample_categorical(self.policy(states))


def plain_copy(world_model: WorldModel) -> PlainWorldModel:
    """A world model with the same weights that does everything the plain way."""
    plain = PlainWorldModel(world_model.config, world_model.actions)
    plain.load_state_dict(world_model.state_dict())
    plain.to(next(world_model.parameters()).device)
    return plain.train(world_model.training)


class PlainTrainer:
    """The training step as the released code does it, beside a `Trainer`: same weights at first, same replay.

    Everything is float32 and contiguous, Adam is the ordinary one, and the contexts of dreams are fresh random windows
    of the replay, encoded in full.

    Args:
        trainer: whose weights are copied; its replay and its horizon are used as they are.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, config = trainer, trainer.config
        self.world_model = plain_copy(trainer.agent.world_model).eval()
        fast = trainer.agent.actor_critic
        self.actor_critic = PlainActorCritic(fast.config, fast.features, fast.actions).to(trainer.machine.device).eval()
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
        self.descend(self.world_model_optimizer, loss, self.world_model, self.trainer.config.world_model_optimizer)
        self.world_model.eval()
        return metrics

    @torch.no_grad()
    def contexts(self) -> Context:
        """Fresh random windows, encoded."""
        settings = self.trainer.config.imagination
        real = self.trainer.replay.sample(settings.starts, settings.context_length)
        return self.world_model.context(real.frames.contiguous(), real.actions)

    @torch.no_grad()
    def imagine(self, context: Context | None = None) -> Rollout:
        """Dreams from the given contexts, or from fresh ones."""
        return self.world_model.imagine(self.actor_critic.act, context or self.contexts(), self.trainer.horizon)

    def train_actor_critic(self, rollout: Rollout) -> dict[str, Tensor]:
        """One update of actor and critic; returns the parts of their loss."""
        loss, metrics = self.actor_critic.loss(rollout, self.progress)
        self.descend(self.actor_critic_optimizer, loss, self.actor_critic, self.trainer.config.actor_critic_optimizer)
        self.actor_critic.move_slow_critic()
        return metrics

    @property
    def progress(self) -> float:
        """How much of the trainer's run is done, 0 to 1."""
        return self.trainer.config.trainer.progress(self.trainer.step)

    def descend(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, model: nn.Module, config: OptimizerConfig
    ) -> None:
        """One clipped step down the gradient."""
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.param_groups[0]["lr"] = config.rate(self.progress)
        optimizer.step()


def adam(model: nn.Module, config: OptimizerConfig) -> torch.optim.Adam:
    """Adam as torch has it by default."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=config.learning_rate, eps=config.epsilon)
