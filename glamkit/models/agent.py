"""The agent: world model, actor-critic and the recent past it acts on (GLAM, section 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glamkit.config import AgentConfig, Config
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel


class RecentSteps:
    """The last steps of `count` games played side by side, with frames of a side in pixels: what acting looks at."""

    def __init__(self, config: AgentConfig, count: int, image_size: int, device: torch.device) -> None:
        length = config.context_length
        self.resets = config.context == "reset"
        self.frames = torch.zeros(count, length, image_size, image_size, 3, dtype=torch.uint8, device=device)
        self.actions = torch.zeros(count, length, dtype=torch.int64, device=device)
        self.lengths = np.zeros(count, dtype=np.int64)

    def add(self, frames: np.ndarray, actions: Tensor, ended: np.ndarray) -> None:
        """Takes in a step: frames (count, size, size, 3) seen, actions (count,) taken, and which games ended by it."""
        self.frames, self.actions = self.frames.roll(-1, 1), self.actions.roll(-1, 1)
        self.frames[:, -1] = torch.from_numpy(frames).to(self.frames.device)
        self.actions[:, -1] = actions
        self.lengths = np.minimum(self.lengths + 1, self.frames.shape[1])
        if self.resets:
            self.lengths = np.where(ended, 0, self.lengths)

    def forget(self) -> None:
        """Takes in that all games were broken off."""
        if self.resets:
            self.lengths = np.zeros_like(self.lengths)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"frames": self.frames.cpu(), "actions": self.actions.cpu(), "lengths": self.lengths.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.frames, self.actions = state["frames"].to(self.frames.device), state["actions"].to(self.actions.device)
        self.lengths = np.asarray(state["lengths"], dtype=np.int64)


class Agent(nn.Module):
    """Acts on the hidden state of the past and on a latent: the predicted one, or that of the current frame."""

    def __init__(self, config: AgentConfig, world_model: WorldModel, actor_critic: ActorCritic) -> None:
        super().__init__()
        self.config, self.world_model, self.actor_critic = config, world_model, actor_critic

    @classmethod
    def build(cls, config: Config, actions: int) -> Agent:
        """A new agent with its models, for a game of so many actions."""
        world_model = WorldModel(config.world_model, actions)
        return cls(config.agent, world_model, ActorCritic(config.actor_critic, world_model.features, actions))

    @torch.no_grad()
    def act(self, frames: np.ndarray, past: RecentSteps, sampled: bool = True) -> Tensor:
        """Actions (N,) for the frames (N, size, size, 3) now on the screens of N games.

        A game without a past, as at the very start, gets a uniformly random action. Without `sampled` actions are the
        most likely ones. The frames count only when ``acting`` is ``posterior``.
        """
        device = past.frames.device
        actions = torch.randint(self.world_model.actions, (len(frames),), device=device)
        now = torch.from_numpy(frames).to(device)
        for length in np.unique(past.lengths[past.lengths > 0]):
            # Games of one length together: all of them, unless contexts are reset at each episode's end.
            games = torch.from_numpy(np.flatnonzero(past.lengths == length)).to(device)
            seen = past.frames[games, -length:], past.actions[games, -length:]
            actions[games] = self.choose(now[games], *seen, sampled)
        return actions

    def choose(self, now: Tensor, frames: Tensor, actions: Tensor, sampled: bool) -> Tensor:
        """Actions (n,) of games with `now` (n, size, size, 3) on their screens after L frames and actions (n, L)."""
        states, actor = self.states(now, frames, actions), self.actor_critic
        return actor.act(states) if sampled else actor.policy(states).argmax(-1)

    def states(self, now: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """States [z, h] (n, Z + D) of these games."""
        context = self.world_model.context(frames.permute(0, 1, 4, 2, 3), actions)
        hidden = self.world_model.remember(context).hidden
        if self.config.acting == "prior":
            return self.world_model.predict_states(hidden)
        latent = self.world_model.observe(now.permute(0, 3, 1, 2).unsqueeze(1)).latent
        return torch.cat([latent.squeeze(1), hidden], -1)
