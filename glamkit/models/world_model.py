"""The world model: encode, loss, imagine (GLAM, section 3).

| here | paper | |
|---|---|---|
| `frames`, `embedding` | x_t, E_t | a frame, and what the encoder makes of it |
| `posterior`, `latent` | q(z_t given x_t), z_t | K categorical variables with C classes; a sample of them |
| `prior` | p(z_t+1 given h_t) | the same, predicted from the hidden state |
| `tokens` | e_t | latent z_t and action a_t in one vector |
| `hidden`, `variation` | h_t, g_t | h_t has seen frame and action t; g_t is GMamba's part of it |
| `varied`, `expected` | variation heads | E_t+1 - E_t as a categorical: that came, and predicted from g_t |
| `rewards`, `ends` | r_t, c_t | reward and termination of action t |

Shapes: B windows of T steps, N contexts of L steps or imagined rollouts of H, S steps of LMamba's window; Z = K * C
latent, E embedding, D hidden state, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.config import WorldModelConfig
from glamkit.models import head_metrics
from glamkit.models.foreground import Foreground, errors
from glamkit.models.networks import MLP, CategoricalHead, Decoder, Encoder
from glamkit.models.sequence_model import ImaginationMemory, SequenceModel
from glamkit.ops.device import float32
from glamkit.ops.functional import (
    free_nats,
    kl_categorical,
    one_hot_likeliest,
    one_hot_sample,
    two_hot_loss,
    two_hot_mean,
)
from glamkit.types import Batch, Context, Float, Int, Rollout, UInt8

Policy = Callable[[Tensor], Tensor]

LATENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sampled": one_hot_sample,
    "likeliest": one_hot_likeliest,
    "probabilities": torch.exp,
}


class Observed(NamedTuple):
    """Encoded frames: embedding (B, T, E), posterior log-probabilities (B, T, K, C), latent (B, T, Z)."""

    embedding: Tensor
    posterior: Tensor
    latent: Tensor


class WorldModel(nn.Module):
    """Categorical autoencoder, GMamba + LMamba, and heads for latent, variation, reward and termination.

    Args:
        config: the section `WorldModelConfig`.
        actions: number of actions A.
    """

    bins: Tensor

    def __init__(self, config: WorldModelConfig, actions: int) -> None:
        super().__init__()
        self.config, self.actions, width = config, actions, config.width
        self.latent = config.variables * config.classes
        self.features = self.latent + width

        def head(inputs: int) -> CategoricalHead:
            return CategoricalHead(inputs, config.variables, config.classes, config.unimix)

        self.encoder = Encoder(config.channels)
        self.posterior = head(self.encoder.features)
        self.decoder = Decoder(self.latent, config.channels)
        scale, size = config.foreground_scale, 4 * 2 ** len(config.channels)
        self.foreground = Foreground(size, scale, config.foreground_threshold) if scale else None
        self.stem = nn.Sequential(
            nn.Linear(self.latent + actions, width, bias=False),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.sequence_model = SequenceModel(config)
        self.prior = head(width)
        self.variation_posterior = head(self.encoder.features)
        self.variation_prior = head(width)
        self.reward = MLP(width, width, 2, config.bins)
        self.termination = MLP(width, width, 2, 1)
        self.register_buffer("bins", torch.linspace(-config.bin_limit, config.bin_limit, config.bins), persistent=False)
        self.sample = LATENTS[config.latents]
        self.variation_posterior.requires_grad_(config.variation_head == "learned")

    def extra_repr(self) -> str:
        """Parameter count, shown by repr beside the architecture."""
        return f"{sum(p.numel() for p in self.parameters()):,} parameters, latent {self.latent}, actions {self.actions}"

    def forward(self, frames: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, 3, size, size) and actions (B, T) -> h and g, both (B, T - S, D), as in training."""
        return self.sequence_model(self.tokens(self.observe(frames).latent, actions))

    # What is seen -----------------------------------------------------------------------------------------------------

    def embed(self, frames: UInt8[Tensor, "*n 3 size size"]) -> Float[Tensor, "*n E"]:
        """Frames (..., 3, size, size) uint8 -> embeddings (..., E)."""
        return self.encoder(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])

    def observe(self, frames: UInt8[Tensor, "B T 3 size size"]) -> Observed:
        """Encodes frames (B, T, 3, size, size) and samples their latents."""
        embedding = self.embed(frames)
        posterior = self.posterior(embedding)
        return Observed(embedding, posterior, self.sample(posterior).flatten(-2))

    def decode(self, latent: Float[Tensor, "*n Z"]) -> Float[Tensor, "*n 3 size size"]:
        """Latents (..., Z) -> pictures (..., 3, size, size), about [0, 1]."""
        return self.decoder(latent.flatten(0, -2)).unflatten(0, latent.shape[:-1])

    def tokens(self, latents: Float[Tensor, "*n Z"], actions: Int[Tensor, "*n"]) -> Float[Tensor, "*n D"]:
        """Latents (..., Z) and the actions taken there (...) -> tokens (..., D), float32."""
        with float32(latents):  # GMamba reads differences of tokens: of rounded ones noise would be left
            return self.stem(torch.cat([latents.float(), F.one_hot(actions, self.actions).float()], -1))

    # What is learned --------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, observed: Observed | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The world-model loss of a batch, and its parts (paper eq. 10; weights from the config).

        `observed` is `observe` of the batch's frames, if the caller needs it as well.
        """
        config, first = self.config, self.config.window  # h exists from step S on
        embedding, posterior, latents = observed or self.observe(batch.frames)
        hidden, variation = self.sequence_model(self.tokens(latents, batch.actions))
        seen, predicted = posterior[:, first + 1 :], self.prior(hidden[:, :-1])
        varied, expected = self.varied(embedding[:, first:]), self.variation_prior(variation[:, :-1])
        dynamics = kl_categorical(seen.detach(), predicted)
        change = kl_categorical(varied.detach(), expected)
        rewards, ends = self.reward(hidden).float(), self.termination(hidden).squeeze(-1).float()
        parts = {
            **self.reconstruction(latents, batch.frames),
            "reward": two_hot_loss(rewards, batch.rewards[:, first:], self.bins).mean(),
            "termination": F.binary_cross_entropy_with_logits(ends, batch.terminations[:, first:]),
            "dynamics": free_nats(dynamics, config.free_nats),
            "representation": free_nats(kl_categorical(seen, predicted.detach()), config.free_nats),
            "variation": free_nats(change, config.variation_free_nats),
        }
        scales = {
            "reward": config.reward_scale,
            "dynamics": config.dynamics_scale,
            "representation": config.representation_scale,
            "variation": config.variation_scale,
        }
        if config.variation_head == "learned":
            learned = kl_categorical(varied, expected.detach())
            parts["variation_representation"] = free_nats(learned, config.variation_free_nats)
            scales["variation_representation"] = config.representation_scale
        total = torch.stack([scales.get(name, 1.0) * part for name, part in parts.items()]).sum()
        parts |= {"total": total, "dynamics_kl": dynamics.mean(), "variation_kl": change.mean()}
        parts["dynamics_free"] = (dynamics.mean() < config.free_nats).float()
        parts |= head_metrics.heads(rewards, batch.rewards[:, first:], self.bins, ends, batch.terminations[:, first:])
        return total, {name: part.detach() for name, part in parts.items()}

    def reconstruction(
        self, latents: Float[Tensor, "B T Z"], frames: UInt8[Tensor, "B T 3 size size"]
    ) -> dict[str, Tensor]:
        """Mean squared error of the pictures, summed over a picture; with a scale, also the foreground's part."""
        real, flat = frames.flatten(0, 1), latents.flatten(0, 1)
        if self.foreground is None:
            return {"reconstruction": self.decoder.error(flat, real).mean()}
        plain, stressed = errors(self.decoder(flat), real, self.foreground(frames).flatten(0, 1))
        return {"reconstruction": plain.mean(), "foreground": stressed.mean()}

    def varied(self, embedding: Float[Tensor, "B T E"]) -> Float[Tensor, "B T-1 K C"]:
        """The variation that came, embedding_{t+1} - embedding_t: (B, T, E) -> log-probabilities (B, T - 1, K, C)."""
        if self.config.variation_head == "frozen":  # nothing here is trained, so the encoder is not either
            embedding = embedding.detach()
        return self.variation_posterior(embedding[:, 1:] - embedding[:, :-1])

    # What is imagined -------------------------------------------------------------------------------------------------

    def context(self, frames: Tensor, actions: Tensor) -> Context:
        """Real frames (N, L, 3, size, size) and actions (N, L), encoded."""
        return Context(self.observe(frames).latent, actions)

    def remember(self, context: Context, kind: str = "window") -> ImaginationMemory:
        """A memory that has read the context; its `hidden` is h of the last real step."""
        return self.sequence_model.memory(self.tokens(*context), kind)

    def predict(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N Z"]:
        """A latent (N, Z) drawn from the prior of hidden states (N, D)."""
        return self.sample(self.prior(hidden)).flatten(-2)

    def predict_states(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """States [z, h] (N, Z + D) whose latents are predicted from their hidden states (N, D)."""
        return torch.cat([self.predict(hidden), hidden], -1)

    def imagine(self, policy: Policy, context: Context, horizon: int, memory: str = "window") -> Rollout:
        """Imagined rollouts of `horizon` steps (paper Algorithm 1, lines of "imagination").

        Args:
            policy: states [z, h] (N, Z + D) -> actions (N,).
            context: N contexts of L steps.
            horizon: H.
            memory: ``window`` or ``recurrent``.
        """
        past, state = self.begin(context, memory)
        trail, actions = [state], []
        for _ in range(horizon):
            action, state = self.imagine_step(policy, past, state)
            trail.append(state)
            actions.append(action)
        states = torch.stack(trail, 1)  # (N, H + 1, Z + D)
        # What the actions brought changes no rollout: it is read off all of them at once.
        rewards, terminations = self.outcome(states[:, 1:, self.latent :])
        return Rollout(states, torch.stack(actions, 1), rewards, terminations)

    def begin(self, context: Context, kind: str) -> tuple[ImaginationMemory, Tensor]:
        """A memory that has read the context, and the first imagined states [z, h] (N, Z + D)."""
        past = self.remember(context, kind)
        return past, self.predict_states(past.hidden)

    def imagine_step(self, policy: Policy, past: ImaginationMemory, state: Tensor) -> tuple[Tensor, Tensor]:
        """One imagined step from states (N, Z + D): the actions (N,) taken there, and the next states."""
        action = policy(state)
        hidden = past.read(self.tokens(state[:, : self.latent], action))
        return action, self.predict_states(hidden)

    def outcome(self, hidden: Float[Tensor, "*n D"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Expected reward and termination (0 or 1), both (...), of the action just seen by hidden states (..., D)."""
        reward = two_hot_mean(self.reward(hidden).float(), self.bins)
        return reward, (self.termination(hidden).squeeze(-1) > 0).float()
