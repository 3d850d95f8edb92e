"""Actor and critic that learn from imagined states alone (GLAM section 3.4, STORM's settings)."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.config import ActorCritic as ActorCriticConfig
from glamkit.config import falling
from glamkit.experience import Rollout
from glamkit.functional import lambda_return, percentile, sample_categorical, two_hot_loss, two_hot_mean
from glamkit.networks import MLP, symlog_bins
from glamkit.shapes import Float, Int


class ReturnRange(nn.Module):
    """Scale of advantages: the spread between a low and a high percentile of returns, averaged over updates.

    The averages start at 0 and take in the present batch before they are used; the scale is never below 1, so that
    small returns are not blown up into noise.
    """

    low: Tensor
    high: Tensor

    def __init__(self, share: float, decay: float) -> None:
        super().__init__()
        self.share, self.decay = share, decay
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, returns: Tensor) -> Tensor:
        """Takes in returns (any shape) and gives the scale, a scalar."""
        for average, share in ((self.low, self.share), (self.high, 1 - self.share)):
            average.lerp_(percentile(returns, share), 1 - self.decay)
        return (self.high - self.low).clamp(min=1.0)


class ActorCritic(nn.Module):
    """Actor, critic, slow critic and return range on states (..., features).

    Args:
        config: the section `config.ActorCritic`.
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
        self.register_buffer("bins", symlog_bins(config.bins, config.bin_limit), persistent=False)

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
        """REINFORCE with a scaled advantage, entropy, and the critic's two-hot losses (DESIGN section 1).

        Args:
            rollout: N dreams of H steps; no gradient flows into the world model.
            progress: how much of the training is done, 0 to 1; a scalar tensor in recordings.
        """
        states, actions, rewards, terminations = (part.detach() for part in rollout)
        config = self.config
        logits = self.critic(states).float()
        values = two_hot_mean(logits.detach(), self.bins)
        slow_values = two_hot_mean(self.slow_critic(states).float(), self.bins)
        returns, slow_returns = (
            lambda_return(rewards, terminations, v, config.discount, config.trace, config.bootstrap)
            for v in (values, slow_values)
        )
        scale = self.range(returns)
        advantages = (returns - values[:, :-1]) / scale
        policy = self.policy(states[:, :-1])
        chosen = policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        entropy = -(policy.exp() * policy).sum(-1).mean()
        parts = {
            "policy": -(advantages * chosen).mean(),
            "value": two_hot_loss(logits[:, :-1], returns, self.bins).mean(),
            "slow_value": two_hot_loss(logits[:, :-1], slow_returns, self.bins).mean(),
        }
        weight = falling(config.entropy, config.final_entropy, progress)
        total = torch.stack(list(parts.values())).sum() - weight * entropy
        spread = {"entropy": entropy, "return": returns.mean(), "range": self.range.high - self.range.low}
        spread |= {
            "entropy_share": entropy / math.log(self.actions),
            "scale": scale,
            "advantage": advantages.abs().mean(),
        }
        return total, {name: part.detach() for name, part in (parts | spread | {"total": total}).items()}

    @torch.no_grad()
    def move_slow_critic(self) -> None:
        """One step of the slow critic towards the critic; after each optimiser step."""
        slow: list[Tensor] = list(self.slow_critic.parameters())
        fast: list[Tensor] = list(self.critic.parameters())
        torch._foreach_lerp_(slow, fast, 1 - self.config.slow_decay)
