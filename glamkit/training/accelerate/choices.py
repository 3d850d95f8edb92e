"""Imagined steps on GPUs: latents, tokens and actions by one kernel each."""

from __future__ import annotations

from torch import Tensor, nn

from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel
from glamkit.ops import sampling
from glamkit.ops.functional import one_hot_sample
from glamkit.ops.precision import float32


class SampledStates(WorldModel):
    """`WorldModel` that chooses latents and reads tokens by the operations of `ops.sampling`."""

    def tokens(self, latents: Tensor, actions: Tensor) -> Tensor:
        """As `WorldModel.tokens`."""
        one_hot = self.config.latents != "probabilities"
        if not (one_hot and sampling.supported(latents, self.config.variables * self.config.width)):
            return super().tokens(latents, actions)
        with float32(latents):
            return sampling.tokens(self.stem, latents, actions, self.config.classes)

    def predict_states(self, hidden: Tensor) -> Tensor:
        """As `WorldModel.predict_states`, rounded once, as all products that read the states would do."""
        if self.sample is not one_hot_sample or not sampling.supported(hidden, self.features):
            return super().predict_states(hidden)
        logits = nn.Linear.forward(self.prior, hidden)
        return sampling.states(logits, hidden, self.prior.shape, self.prior.share)


class SampledActions(ActorCritic):
    """`ActorCritic` that chooses actions by the operation of `ops.sampling`."""

    def act(self, states: Tensor) -> Tensor:
        """As `ActorCritic.act`."""
        if sampling.supported(states, self.actions * self.config.width):
            return sampling.actions(self.actor, states)
        return super().act(states)
