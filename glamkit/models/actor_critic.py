"""Actor and critic that learn from imagined states alone (GLAM section 3.4, STORM's settings).

| here | paper | |
|---|---|---|
| `states` | s_t = [z_t, h_t] | latent and hidden state |
| `policy`, `value` | pi(a_t given s_t), V(s_t) | actor and critic |
| `returns` | G_t | lambda-return |
| `scale`, `advantages` | S, (G_t - V(s_t)) / S | S is the spread of returns, at least 1 |

Shapes: N rollouts of H steps; T = H + 1 states of each; F features of a state, A actions.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.config import ActorCriticConfig, falling
from glamkit.models.networks import MLP
from glamkit.ops.functional import lambda_return, percentiles, sample_categorical, two_hot_loss, two_hot_mean
from glamkit.types import Float, Int, Rollout


class ReturnRange(nn.Module):
    """Scale of advantages: the spread between two percentiles of returns, averaged over updates from 0 on."""

    low: Tensor
    high: Tensor

    def __init__(self, share: float, decay: float) -> None:
        super().__init__()
        self.share, self.decay = share, decay
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, returns: Tensor) -> Tensor:
        """Takes in returns (any shape) and gives the scale, a scalar."""
        for average, now in zip((self.low, self.high), percentiles(returns, self.share, 1 - self.share), strict=True):
            average.lerp_(now, 1 - self.decay)
        return (self.high - self.low).clamp(min=1.0)


class ActorCritic(nn.Module):
    """Actor, critic, slow critic and return range on states (..., features).

    Args:
        config: the section `ActorCriticConfig`.
        features: Z + D of the world model.
        actions: number of actions A.
    """

    bins: Tensor

    def __init__(self, config: ActorCriticConfig, features: int, actions: int) -> None:
        super().__init__()
        self.config, self.features, self.actions = config, features, actions
        self.actor = MLP(features, config.width, config.layers, actions)
        self.critic = MLP(features, config.width, config.layers, config.bins)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.range = ReturnRange(config.range_percentile, config.range_decay)
        self.register_buffer("bins", torch.linspace(-config.bin_limit, config.bin_limit, config.bins), persistent=False)

    def extra_repr(self) -> str:
        """Parameter count, shown by repr beside the architecture."""
        return f"{sum(p.numel() for p in self.parameters() if p.requires_grad):,} trained parameters"

    def policy(self, states: Float[Tensor, "*n F"]) -> Float[Tensor, "*n A"]:
        """Log-probabilities (..., A) of the actions."""
        return F.log_softmax(self.actor(states).float(), -1)

    def act(self, states: Float[Tensor, "*n F"]) -> Int[Tensor, "*n"]:
        """Sampled actions (...)."""
        return sample_categorical(self.policy(states))

    def value(self, states: Float[Tensor, "*n F"]) -> Float[Tensor, "*n"]:
        """Expected return (...) in reward units."""
        return two_hot_mean(self.critic(states).float(), self.bins)

    def loss(self, rollout: Rollout, progress: float | Tensor = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """REINFORCE with a scaled advantage, entropy, and the critic's two-hot losses.

        Args:
            rollout: N of H steps; no gradient flows into the world model.
            progress: how much of the training is done, 0 to 1; a scalar tensor in recordings.
        """
        states, actions, rewards, terminations = (part.detach() for part in rollout)
        config = self.config
        policy, logits, values = self.evaluate_states(states)
        returns = lambda_return(rewards, terminations, values, config.discount, config.trace, config.bootstrap)
        scale = self.range(returns[0])
        advantages = (returns[0] - values[0, :, :-1]) / scale
        loss, metrics = self.policy_loss(policy, logits, actions, advantages, returns, progress)
        spread = {"return": returns[0].mean(), "range": self.range.high - self.range.low, "scale": scale}
        return loss, {name: part.detach() for name, part in (metrics | spread | {"total": loss}).items()}

    # `loss` in two halves, before and after the returns, so that each can be compiled as one.
    def evaluate_states(self, states: Float[Tensor, "N T F"]) -> tuple[Tensor, Tensor, Tensor]:
        """Policy (N, T - 1, A), the critic's logits (N, T - 1, bins), and both critics' values (2, N, T), detached."""
        logits = self.critic(states).float()
        with torch.no_grad():
            values = [two_hot_mean(bins, self.bins) for bins in (logits, self.slow_critic(states).float())]
        return self.policy(states)[:, :-1], logits[:, :-1], torch.stack(values)

    def policy_loss(
        self,
        policy: Float[Tensor, "N H A"],
        logits: Float[Tensor, "N H bins"],
        actions: Int[Tensor, "N H"],
        advantages: Float[Tensor, "N H"],
        returns: Float[Tensor, "2 N H"],
        progress: float | Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts, once the lambda-returns by the critic's and the slow critic's values are known."""
        chosen = policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        entropy = -(policy.exp() * policy).sum(-1).mean()
        parts = {
            "policy": -(advantages * chosen).mean(),
            "value": two_hot_loss(logits, returns[0], self.bins).mean(),
            "slow_value": two_hot_loss(logits, returns[1], self.bins).mean(),
        }
        weight = falling(self.config.entropy, self.config.final_entropy, progress)
        share = entropy / math.log(max(self.actions, 2))
        metrics = {"entropy": entropy, "entropy_share": share, "advantage": advantages.abs().mean()}
        return torch.stack(list(parts.values())).sum() - weight * entropy, parts | metrics

    @torch.no_grad()
    def move_slow_critic(self) -> None:
        """One step of the slow critic towards the critic; after each optimiser step."""
        slow: list[Tensor] = list(self.slow_critic.parameters())
        fast: list[Tensor] = list(self.critic.parameters())
        torch._foreach_lerp_(slow, fast, 1 - self.config.slow_decay)
