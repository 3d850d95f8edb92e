"""How the moments of a dream come to be: a tree that grows by one step of many moments in one batch.

What is drawn at random in a moment depends on the dream's seed, on the moment's depth and on its `luck` alone. So going
back and acting as before leads to the same moment, and two futures of one luck differ by what was done in them, not by
chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.analysis.rollouts import looking
from glamkit.config import Checked, setting
from glamkit.errors import GlamkitError
from glamkit.models.sequence_model import ImaginationMemory
from glamkit.ops.functional import one_hot_likeliest, two_hot_mean
from glamkit.training.load import LoadedRun
from glamkit.types import Batch

MOST = 20_000  # moments in one dream: about half a gigabyte with the full-size model
OVER = 0.5  # probability of termination from which the model takes the episode to be over, as in training


@dataclass(frozen=True)
class Rules(Checked):
    """How a dream is dreamt; they may change from moment to moment."""

    modules: Literal["both", "gmamba", "lmamba"] = setting("both", "choice", "what adds to the hidden state")
    memory: Literal["window", "recurrent"] = setting("window", "choice", "what is remembered, as in Imagination.memory")
    latents: Literal["sampled", "likeliest", "probabilities"] = setting(
        "sampled", "choice", "what is taken from the prior: a draw, its likeliest classes, or its probabilities"
    )
    temperature: float = setting(1.0, "times", "over 1 evens the prior out, under 1 sharpens it", 0.05, 20)

    def __str__(self) -> str:
        modules = {"both": "GMamba + LMamba", "gmamba": "GMamba alone", "lmamba": "LMamba alone"}[self.modules]
        warmth = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        return f"{modules}, {self.memory} memory, latents {self.latents}{warmth}"


class Node(NamedTuple):
    """One moment of a dream: what the model expects to see, and what it and the policy make of it."""

    number: int
    parent: int  # -1: this is where the dream begins
    depth: int  # steps since then
    luck: int
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
    memory: ImaginationMemory  # of the batch this moment was dreamt in,
    row: int  # and its place there

    def __repr__(self) -> str:
        said = f"reward {self.reward:+.2f}, end {self.ended:.0%}, value {self.value:+.2f}, return {self.total:+.2f}"
        return f"Moment({self.number}: {self.depth} deep by action {self.action}; {said})"


class Tree:
    """All moments of a dream, and the only way to new ones: `grow`.

    Args:
        opened: the run.
        seen: real steps (1, L, ...) before the dream.
        seed: of all that is drawn at random.
        rules: to begin with.
    """

    def __init__(self, opened: LoadedRun, seen: Batch, seed: int, rules: Rules) -> None:
        self.opened, self.model, self.seen = opened, opened.agent.world_model, seen
        self.seed, self.rules = seed, rules
        self.moments: list[Node] = []
        self.journal: list[tuple[list[int], list[int], list[int], Rules]] = []  # the calls of `grow`
        self.children: dict[tuple[int, int, int, Rules], int] = {}
        # The same modules under different switches; the run's own model is not touched.
        self.sequence = {name: copy(self.model.sequence_model) for name in ("both", "gmamba", "lmamba")}
        for name, module in self.sequence.items():
            module.added = cast(Any, name)  # one of the choices of WorldModelConfig.modules
        with one_thread(), looking(self.model, opened.machine, seed):
            latents = self.model.observe(seen.frames).latent
            self.tokens = self.model.tokens(latents, seen.actions)
            memory = self.sequence[rules.modules].memory(self.tokens, rules.memory)
            self._arrive(memory, self.tokens[:, -1], [-1], [-1], [0])

    def grow(self, parents: Sequence[int], actions: Sequence[int], lucks: Sequence[int] | None = None) -> list[int]:
        """One step from several moments in one batch, and the numbers of the moments it leads to.

        A step that has been taken before under the same rules and luck is not taken again. Nothing else makes moments,
        so the `journal` of these calls is the whole dream.
        """
        lucks = [self.moments[parent].luck for parent in parents] if lucks is None else lucks
        keys = [(p, a, luck, self.rules) for p, a, luck in zip(parents, actions, lucks, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self.children]
        if new:
            self.check_size(len(new))
            mothers = [self.moments[parent] for parent, *_ in new]
            taken = [action for _, action, *_ in new]
            with self.thinking():
                memory = self._remember(mothers)
                latents = torch.stack([mother.latent for mother in mothers])
                token = self.model.tokens(latents, torch.tensor(taken, device=latents.device))
                memory.read(token)
                self._arrive(memory, token, [key[0] for key in new], taken, [key[2] for key in new])
            self.journal.append(([key[0] for key in new], taken, [key[2] for key in new], self.rules))
        return [self.children[key] for key in keys]

    def path(self, number: int) -> list[Node]:
        """The moments from the beginning to this one."""
        found = [self.moments[number]]
        while found[-1].parent >= 0:
            found.append(self.moments[found[-1].parent])
        return found[::-1]

    def _arrive(
        self,
        memory: ImaginationMemory,
        token: Tensor,
        parents: Sequence[int],
        actions: Sequence[int],
        lucks: Sequence[int],
    ) -> None:
        """Adds the moments that a memory (N) has come to."""
        model, actor_critic, hidden = self.model, self.opened.agent.actor_critic, memory.hidden
        depth = [self.moments[parent].depth + 1 if parent >= 0 else 0 for parent in parents]
        latent = self._draw(model.prior(hidden), lucks, depth).flatten(-2)
        states = torch.cat([latent, hidden], -1)
        policy = actor_critic.policy(states).exp().cpu().numpy()
        reward = two_hot_mean(model.reward(hidden).float(), model.bins).tolist()
        ended = model.termination(hidden).squeeze(-1).float().sigmoid().tolist()
        value = actor_critic.value(states).tolist()
        for row, (parent, action, luck) in enumerate(zip(parents, actions, lucks, strict=True)):
            outcome, total, over = (reward[row], ended[row]), 0.0, False
            if parent < 0:  # what the last real action brought is no part of the dream
                outcome = (0.0, 0.0)
            else:
                mother = self.moments[parent]
                total = mother.total + (0.0 if mother.over else outcome[0])
                over = mother.over or outcome[1] > OVER
            number = len(self.moments)
            said = (*outcome, value[row], policy[row], total, over)
            self.moments.append(
                Node(number, parent, depth[row], luck, action, self.rules, *said, latent[row], token[row], memory, row)
            )
            self.children[parent, action, luck, self.rules] = number

    def _remember(self, moments: Sequence[Node]) -> ImaginationMemory:
        """A memory (N) of all that led to these moments, of the kind and with the modules that the rules ask for."""
        if any(moment.rules.memory != self.rules.memory for moment in moments):
            pieces = [(self._reread(moment), 0) for moment in moments]
        else:
            pieces = [(moment.memory, moment.row) for moment in moments]
        whole = [row for _, row in pieces] == list(range(len(pieces[0][0].hidden)))
        alone = all(memory is pieces[0][0] for memory, _ in pieces)
        memory = copy(pieces[0][0]) if whole and alone else gathered(pieces)
        memory.model = self.sequence[self.rules.modules]  # type: ignore[attr-defined]
        return memory

    def _reread(self, moment: Node) -> ImaginationMemory:
        """A memory of another kind, from the tokens on the way to a moment."""
        way = [step.token for step in self.path(moment.number)[1:]]
        tokens = torch.cat([self.tokens, torch.stack(way).unsqueeze(0)], 1) if way else self.tokens
        if self.rules.memory == "window":
            tokens = tokens[:, -self.tokens.shape[1] :]
        return self.sequence[self.rules.modules].memory(tokens, self.rules.memory)

    def _draw(self, prior: Tensor, lucks: Sequence[int], depths: Sequence[int]) -> Tensor:
        """Latents (N, K, C) of log-probabilities (N, K, C), as the rules say."""
        if self.rules.latents == "likeliest":
            return one_hot_likeliest(prior)
        shares = F.softmax(prior / self.rules.temperature, -1) if self.rules.temperature != 1 else prior.exp()
        if self.rules.latents == "probabilities":
            return shares
        drawn = np.stack([self.uniforms(luck, depth)[1:] for luck, depth in zip(lucks, depths, strict=True)])
        cumulated = shares.cumsum(-1)
        place = (cumulated <= torch.from_numpy(drawn).to(shares.device).unsqueeze(-1) * cumulated[..., -1:]).sum(-1)
        return F.one_hot(place.clamp(max=shares.shape[-1] - 1), shares.shape[-1]).to(prior.dtype)

    def uniforms(self, luck: int, depth: int) -> np.ndarray:
        """The random numbers of a moment: one for the policy, then one for each categorical variable."""
        stream = np.random.Philox(key=[self.seed, luck], counter=[0, 0, 0, depth])
        return np.random.Generator(stream).random(1 + self.model.config.variables, dtype=np.float32)

    def check_size(self, count: int) -> None:
        """Refuses more moments than a dream may have."""
        if len(self.moments) + count > MOST:
            raise GlamkitError(
                f"this dream has {len(self.moments):,} of at most {MOST:,} moments; no {count:,} more: start another."
            )

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Context for the model: no gradient, the run's precision. No random numbers are drawn in it."""
        with one_thread(), torch.no_grad(), self.opened.machine.autocast():
            yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch computes with one CPU thread.

    The work of one dream is too small to share: a second thread gains nothing, on a machine that does anything else
    (a browser, say) waiting for it made a step twenty times slower, and sums in another order would make a dream depend
    on the number of cores.
    """
    threads = torch.get_num_threads()
    if threads > 1:  # setting it empties caches
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def gathered(pieces: Sequence[tuple[ImaginationMemory, int]]) -> ImaginationMemory:
    """One memory of some rows of several memories of one kind."""
    memories, rows = [memory for memory, _ in pieces], [row for _, row in pieces]
    together = copy(memories[0])
    for name in vars(together):
        if name != "model":
            setattr(together, name, _rows([getattr(memory, name) for memory in memories], rows))
    return together


def _rows(values: list[Any], rows: list[int]) -> Any:
    """The given row of each value; values are tensors, or lists, tuples and named tuples of such, alike in shape."""
    first = values[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        if all(value is first for value in values):
            return first[rows]
        return torch.cat([value[row : row + 1] for value, row in zip(values, rows, strict=True)])
    parts = [_rows(list(column), rows) for column in zip(*values, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
