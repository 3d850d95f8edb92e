"""How the nodes of a dream come to be: a tree that grows by one step of many nodes in one batch.

What is drawn at random in a node depends on the dream's seed, on the node's depth and on its `noise_seed` alone. So
going back and acting as before leads to the same node. Two futures of one noise seed differ only by what was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from glamkit.analysis.rollouts import looking
from glamkit.config import Checked, setting
from glamkit.errors import GlamkitError
from glamkit.models.sequence_model import ImaginationMemory
from glamkit.ops.functional import one_hot_likeliest, two_hot_mean
from glamkit.training.load import LoadedRun
from glamkit.types import Batch

MOST = 20_000  # nodes in one dream: about half a gigabyte with the full-size model
OVER = 0.5  # probability of termination from which the model takes the episode to be over, as in training
# The choices of the rules, in words.
MODULES = {"both": "GMamba + LMamba", "gmamba": "GMamba alone", "lmamba": "LMamba alone"}
MEMORY = {"window": "the last steps", "recurrent": "every step"}
LATENTS = {"sampled": "drawn at random", "likeliest": "the most likely", "probabilities": "an average"}


@dataclass(frozen=True)
class Rules(Checked):
    """How a dream is dreamt; they may change from node to node."""

    modules: Literal["both", "gmamba", "lmamba"] = "both"  # what adds to the hidden state
    memory: Literal["window", "recurrent"] = "window"  # what is remembered, as in `ImaginationConfig.memory`
    latents: Literal["sampled", "likeliest", "probabilities"] = "sampled"  # what is taken from the prior
    temperature: float = setting(1.0, "times", "over 1 evens the prior out, under 1 sharpens it", 0.05, 20)

    def __str__(self) -> str:
        modules, memory, latents = MODULES[self.modules], MEMORY[self.memory], LATENTS[self.latents]
        warmth = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        return f"{modules}, remembers {memory}, next picture: {latents}{warmth}"


class Node(NamedTuple):
    """One node of a dream: what the model expects to see, and what it and the policy make of it."""

    number: int
    parent: int  # -1: this is where the dream begins
    depth: int  # steps since then
    noise_seed: int
    action: int  # that led here; -1 at the beginning
    rules: Rules
    reward: float  # predicted, of that action
    ended: float  # probability that the action ended the episode
    value: float  # what the critic expects from here on
    policy: np.ndarray  # (A,) probabilities
    total: float  # rewards since the beginning, up to the end of the episode
    over: bool  # whether the episode has ended here or before
    latent: Tensor  # (Z,)
    token: Tensor  # (D,) that led here
    memory: ImaginationMemory  # of the batch this node was dreamt in,
    row: int  # and its place there

    def __repr__(self) -> str:
        text = f"reward {self.reward:+z.2f}, end {self.ended:.0%}, value {self.value:+z.2f}, return {self.total:+z.2f}"
        return f"Node({self.number}: {self.depth} deep by action {self.action}; {text})"


Step: TypeAlias = tuple[int, int, int, Rules]  # from which node, with which action, noise seed and rules


class Tree:
    """All nodes of a dream, and the only way to new ones: `grow`. Real steps `seen` (1, L, ...) come before it."""

    def __init__(self, run: LoadedRun, seen: Batch, seed: int, rules: Rules) -> None:
        self.run, self.model, self.seed, self.rules = run, run.agent.world_model, seed, rules
        self.nodes: list[Node] = []
        self.children: dict[Step, int] = {}
        # The same modules under different switches; the run's own model is not touched.
        self.sequence = {name: copy(self.model.sequence_model) for name in ("both", "gmamba", "lmamba")}
        for name, module in self.sequence.items():
            module.added = cast(Any, name)  # one of the choices of WorldModelConfig.modules
        with one_thread(), looking(self.model, run.machine, seed):
            latents = self.model.observe(seen.frames).latent
            self.tokens = self.model.tokens(latents, seen.actions)
            memory = self.sequence[rules.modules].memory(self.tokens, rules.memory)
            self._arrive(memory, self.tokens[:, -1], [(-1, -1, 0, rules)])

    def grow(
        self, parents: Sequence[int], actions: Sequence[int], noise_seeds: Sequence[int] | None = None
    ) -> list[int]:
        """One step from several nodes in one batch, none taken twice; returns the numbers of the nodes it leads to."""
        noise_seeds = [self.nodes[parent].noise_seed for parent in parents] if noise_seeds is None else noise_seeds
        steps = [(p, a, noise, self.rules) for p, a, noise in zip(parents, actions, noise_seeds, strict=True)]
        new = [step for step in dict.fromkeys(steps) if step not in self.children]
        if new:
            self.check_size(len(new))
            before = [self.nodes[parent] for parent, *_ in new]
            with self.thinking():
                memory = self._remember(before)
                latents = torch.stack([node.latent for node in before])
                token = self.model.tokens(latents, torch.tensor([step[1] for step in new], device=latents.device))
                memory.read(token)
                self._arrive(memory, token, new)
        return [self.children[step] for step in steps]

    def path(self, number: int) -> list[Node]:
        """The nodes from the beginning to this one."""
        way = [self.nodes[number]]
        while way[-1].parent >= 0:
            way.append(self.nodes[way[-1].parent])
        return way[::-1]

    def _arrive(self, memory: ImaginationMemory, token: Tensor, steps: Sequence[Step]) -> None:
        """Adds the nodes that N steps led to, with what is remembered (N) after them and the last token (N, D)."""
        model, actor_critic, hidden = self.model, self.run.agent.actor_critic, memory.hidden
        depths = [self.nodes[parent].depth + 1 if parent >= 0 else 0 for parent, *_ in steps]
        latent = self._draw(model.prior(hidden), [noise for _, _, noise, _ in steps], depths).flatten(-2)
        states = torch.cat([latent, hidden], -1)
        policy = actor_critic.policy(states).exp().cpu().numpy()
        reward = two_hot_mean(model.reward(hidden).float(), model.bins).tolist()
        ended = model.termination(hidden).squeeze(-1).float().sigmoid().tolist()
        value = actor_critic.value(states).tolist()
        for row, (parent, action, noise, rules) in enumerate(steps):
            outcome, total, over = (reward[row], ended[row]), 0.0, False
            if parent < 0:  # what the last real action brought is no part of the dream
                outcome = (0.0, 0.0)
            else:
                previous = self.nodes[parent]
                total = previous.total + (0.0 if previous.over else reward[row])
                over = previous.over or ended[row] > OVER
            came = (len(self.nodes), parent, depths[row], noise, action, rules)
            self.children[steps[row]] = len(self.nodes)
            self.nodes.append(
                Node(*came, *outcome, value[row], policy[row], total, over, latent[row], token[row], memory, row)
            )

    def _remember(self, nodes: Sequence[Node]) -> ImaginationMemory:
        """A memory (N) of all that led to these nodes, of the kind and with the modules that the rules ask for."""
        kind = self.rules.memory
        memory = gathered(
            [(node.memory, node.row) if node.rules.memory == kind else (self._reread(node), 0) for node in nodes]
        )
        memory.model = self.sequence[self.rules.modules]  # type: ignore[attr-defined]
        return memory

    def _reread(self, node: Node) -> ImaginationMemory:
        """A memory of another kind, from the tokens on the way to a node."""
        way = [step.token for step in self.path(node.number)[1:]]
        tokens = torch.cat([self.tokens, torch.stack(way).unsqueeze(0)], 1) if way else self.tokens
        if self.rules.memory == "window":
            tokens = tokens[:, -self.tokens.shape[1] :]
        return self.sequence[self.rules.modules].memory(tokens, self.rules.memory)

    def _draw(self, prior: Tensor, noise_seeds: Sequence[int], depths: Sequence[int]) -> Tensor:
        """Latents (N, K, C) of log-probabilities (N, K, C), as the rules say."""
        if self.rules.latents == "likeliest":
            return one_hot_likeliest(prior)
        shares = F.softmax(prior / self.rules.temperature, -1) if self.rules.temperature != 1 else prior.exp()
        if self.rules.latents == "probabilities":
            return shares
        drawn = np.stack([self.uniforms(noise, depth)[1:] for noise, depth in zip(noise_seeds, depths, strict=True)])
        cumulated = shares.cumsum(-1)
        place = (cumulated <= torch.from_numpy(drawn).to(shares.device).unsqueeze(-1) * cumulated[..., -1:]).sum(-1)
        return F.one_hot(place.clamp(max=shares.shape[-1] - 1), shares.shape[-1]).to(prior.dtype)

    def uniforms(self, noise_seed: int, depth: int) -> np.ndarray:
        """The random numbers of a node: one for the policy, then one for each categorical variable."""
        stream = np.random.Philox(key=[self.seed, noise_seed], counter=[0, 0, 0, depth])
        return np.random.Generator(stream).random(1 + self.model.config.variables, dtype=np.float32)

    @property
    def full(self) -> bool:
        """Whether it is too large for much more, such as a *what if*."""
        return len(self.nodes) > 0.9 * MOST

    def check_size(self, count: int) -> None:
        """Refuses more nodes than a dream may have."""
        if len(self.nodes) + count > MOST:
            raise GlamkitError(
                f"this dream has {len(self.nodes):,} of at most {MOST:,} steps; no {count:,} more: begin at a start "
                f"again, or ask for fewer or shorter futures."
            )

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Context for the model: no gradient, the run's precision. No random numbers are drawn in it."""
        with one_thread(), torch.no_grad(), self.run.machine.autocast():
            yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Context of one CPU thread: a second gains nothing here, waits on busy machines, and sums in another order."""
    threads = torch.get_num_threads()
    if threads == 1:  # setting it empties caches
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gathered(pieces: Sequence[tuple[ImaginationMemory, int]]) -> ImaginationMemory:
    """One memory of some rows of several memories of one kind, whose tensors are alike in shape."""

    def pick(*values: Any) -> Any:
        if not isinstance(values[0], Tensor):
            return values[0]
        return torch.stack([value[row] for value, (_, row) in zip(values, pieces, strict=True)])

    together = copy(pieces[0][0])
    vars(together).update(tree_map(pick, *(vars(memory) for memory, _ in pieces)))
    return together
