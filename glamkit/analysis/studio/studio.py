"""Standing inside a run's imagination: act there, go back, try something else.

    dream = Dream(open_run("runs/pong"), start=900)
    dream.step("UP"); dream.step()        # an action of yours, one of the policy's
    dream.rewind(1); dream.futures()      # what if? every action from here, in one batch

How steps are dreamt is in `dream_tree`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.analysis.rollouts import pictures
from glamkit.analysis.starts import check_start, good_start
from glamkit.analysis.studio.dream_tree import Node, Rules, Tree
from glamkit.config import TrainerConfig, at_least, coerce
from glamkit.errors import GlamkitError, nearest
from glamkit.training.load import LoadedRun

HORIZON = 15  # steps of a future: a second of play


class Future(NamedTuple):
    """A way a dream may go on from the node where it was asked."""

    first: int  # its first action; the policy takes the others
    noise_seed: int
    numbers: list[int]  # of its nodes
    gain: float  # rewards from the node asked at
    value: float  # discounted reward expected after its last step; 0 if the episode is over by then


class Dream(Tree):
    """A dream that starts from real steps of a run and is steered from then on.

    Args:
        run: the run.
        start: number of the real step that the dream's first picture predicts; only steps before it are seen. None
            takes a good one, see `starts.good_start`.
        seed: of all that is drawn at random.
        context: real steps that are seen; None takes as many as in training.
        rules: None takes those of training.

    Raises:
        GlamkitError: the start is too close to the beginning of the replay, or behind its end.
    """

    def __init__(
        self,
        run: LoadedRun,
        start: int | None = None,
        seed: int = 0,
        context: int | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.context = run.config.imagination.context_length if context is None else coerce("context", context, int)
        begin = good_start(run, context).step if start is None else start
        self.start, self.begun = coerce("start", begin, int), rules or usual(run)
        check_start(run, self.start, context)
        self.trained, self.here = run.config.world_model.modules, 0
        self.shown: dict[int, np.ndarray] = {}
        self.branches, self.branch = [0], 0  # the last node of each in the order they were begun, and the present one
        seen = run.replay.window(torch.tensor([self.start - self.context]), self.context)
        super().__init__(run, seen, TrainerConfig(seed=seed).seed, self.begun)

    def __repr__(self) -> str:
        node = self.now
        return f"Dream(start={self.start}, {len(self.nodes)} nodes, now {node.depth} deep: {node.total:+z.2f})"

    @property
    def now(self) -> Node:
        """The present node."""
        return self.nodes[self.here]

    def step(self, action: int | str | None = None, noise_seed: int | None = None) -> Node:
        """Takes an action, by its number or name, or the policy's; an action taken here before leads where it led.

        Args:
            action: None takes the policy's.
            noise_seed: of the random numbers from here on; None keeps that of the present node.
        """
        taken = self.choose(self.now, noise_seed) if action is None else self.action(action)
        (number,) = self.grow([self.here], [taken], None if noise_seed is None else [noise_seed])
        return self.go(number)

    def rewind(self, steps: int = 1) -> Node:
        """Goes back; what was dreamt stays, and can be reached again."""
        steps = coerce("steps", steps, int)
        if not 0 <= steps <= self.now.depth:
            raise GlamkitError(f"this is step {self.now.depth} of the dream; it cannot go back by {steps}.")
        return self.go(self.line(self.here)[self.now.depth - steps])

    def go(self, number: int) -> Node:
        """Goes to any node of the dream by its number; a branch goes on to it, or begins here: so none is lost."""
        number = coerce("number", number, int)
        if not 0 <= number < len(self.nodes):
            raise GlamkitError(f"there is no node {number}; this dream has nodes 0 to {len(self.nodes) - 1}.")
        self.here, way = number, self.line(number)
        for place in sorted(range(len(self.branches)), key=lambda place: place != self.branch):  # the present one first
            end = self.branches[place]
            if end in way or number in self.line(end):
                self.branch = place
                if end in way:  # the branch goes on to here
                    self.branches[place] = number
                return self.now
        self.branches.append(self.here)
        self.branch = len(self.branches) - 1
        return self.now

    def futures(
        self, actions: Sequence[int | str] | None = None, draws: int = 1, horizon: int = HORIZON
    ) -> list[Future]:
        """What if? Futures that begin with each of the actions (all by default), dreamt in one batch.

        Args:
            actions: first ones; the policy takes the others.
            draws: futures for each action; those of one noise seed share their random numbers.
            horizon: steps of each.
        """
        draws, horizon = at_least("draws", draws), at_least("horizon", horizon)
        firsts = [self.action(a) for a in (range(self.model.actions) if actions is None else actions)]
        rows = [(first, self.now.noise_seed + draw) for first in firsts for draw in range(draws)]
        self.check_size(len(rows) * horizon)
        paths = [self.grow([self.here] * len(rows), [first for first, _ in rows], [noise for _, noise in rows])]
        for _ in range(horizon - 1):
            paths.append(self.grow(paths[-1], [self.choose(self.nodes[number]) for number in paths[-1]]))
        futures = []
        for (first, noise), *way in zip(rows, *paths, strict=True):
            last = self.nodes[way[-1]]
            value = 0.0 if last.over else last.value
            futures.append(Future(first, noise, way, last.total - self.now.total, value))
        return futures

    def switch(self, **rules: Any) -> Rules:
        """Changes rules from the next step on: ``modules``, ``memory``, ``latents``, ``temperature``.

        Raises:
            GlamkitError: an unknown rule or value, or a module that this run never trained.
        """
        for name in rules:
            if name not in Rules.__dataclass_fields__:
                raise GlamkitError(f"unknown rule {name!r}; {nearest(name, Rules.__dataclass_fields__)}")
        changed = replace(self.rules, **rules)
        if self.trained not in ("both", changed.modules):
            raise GlamkitError(
                f"modules = {changed.modules!r} cannot be used: this run was trained with {self.trained!r} alone."
            )
        self.rules = changed
        return self.rules

    def picture(self, number: int | None = None) -> np.ndarray:
        """What a node (the present one) looks like, (size, size, 3) uint8; decoded alone, so always the same."""
        number = self.here if number is None else number
        if number not in self.shown:
            with self.thinking():
                self.shown[number] = pictures(self.model.decode(self.nodes[number].latent.unsqueeze(0)))[0]
        return self.shown[number]

    def line(self, end: int | None = None) -> list[int]:
        """The numbers of the nodes on the way to one, and it; None takes the last of the present branch."""
        return [node.number for node in self.path(self.branches[self.branch] if end is None else end)]

    def recorded(self, depth: int) -> int | None:
        """The action that was really taken so many steps after the start; None where nothing is stored."""
        step, replay = self.start + depth, self.run.replay
        if not replay.oldest <= step < replay.count:
            return None
        return int(replay.actions[step % replay.config.capacity])

    def action(self, action: int | str) -> int:
        """The number of an action given by number or name."""
        names = self.run.actions
        if isinstance(action, str):
            if action not in names:
                raise GlamkitError(f"unknown action {action!r}; {nearest(action, names)}")
            return names.index(action)
        number = coerce("action", action, int)
        if not 0 <= number < len(names):
            raise GlamkitError(f"action {number} is not one of 0 to {len(names) - 1}: {', '.join(names)}.")
        return number

    def choose(self, node: Node, noise_seed: int | None = None) -> int:
        """The policy's action in a node, drawn by the node's own noise seed or another."""
        drawn = self.uniforms(node.noise_seed if noise_seed is None else noise_seed, node.depth)[0]
        cumulated = np.cumsum(node.policy)
        return min(int((cumulated <= drawn * cumulated[-1]).sum()), len(cumulated) - 1)


def usual(run: LoadedRun) -> Rules:
    """The rules under which a run's agent dreamt in training."""
    model = run.config.world_model
    return Rules(model.modules, run.config.imagination.memory, model.latents)


def mean_returns(answers: Sequence[Future]) -> dict[int, float]:
    """The mean return of the futures by their first action, best first."""
    returns: dict[int, list[float]] = {}
    for answer in answers:
        returns.setdefault(answer.first, []).append(answer.gain + answer.value)
    return dict(sorted(((first, float(np.mean(r))) for first, r in returns.items()), key=lambda pair: -pair[1]))


def asked_at(dream: Dream, answers: Sequence[Future]) -> int:
    """The step of the dream that futures begin at."""
    return dream.nodes[answers[0].numbers[0]].depth - 1
