"""Standing inside a run's imagination: act there, go back, try something else.

    dream = Dream(open_run("runs/pong"), start=900)
    dream.step("UP"); dream.step()        # an action of yours, one of the policy's
    dream.rewind(1); dream.futures()      # what if? every action from here, in one batch

All logic is here and in `moments`; `widgets` only draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.analysis.rollouts import pictures
from glamkit.analysis.starts import good_start
from glamkit.analysis.studio.dream_tree import Node, Rules, Tree
from glamkit.config import coerce
from glamkit.errors import GlamkitError, nearest
from glamkit.training.load import LoadedRun
from glamkit.types import Batch

HORIZON = 15  # steps of a future: a second of play


class Future(NamedTuple):
    """A way a dream may go on from the moment where it was asked."""

    first: int  # its first action; the policy takes the others
    luck: int
    numbers: list[int]  # of its moments
    gain: float  # rewards from the moment asked at
    value: float  # expected after its last step; 0 if the episode is over by then


class Dream(Tree):
    """A dream that starts from real steps of a run and is steered from then on.

    Args:
        opened: the run.
        start: number of the real step that the dream's first picture predicts; only steps before it are seen. None
            takes a good one, see `starts.good_start`.
        seed: of all that is drawn at random.
        context: real steps that are seen; None takes as many as in training.
        rules: None takes those of training.
        seen: these steps instead of stored ones (1, context, ...), as for a saved dream.

    Raises:
        GlamkitError: the start is too close to the beginning of the replay, or behind its end.
    """

    def __init__(
        self,
        opened: LoadedRun,
        start: int | None = None,
        seed: int = 0,
        context: int | None = None,
        rules: Rules | None = None,
        seen: Batch | None = None,
    ) -> None:
        self.context = length(opened, context)
        begin = good_start(opened, context).step if start is None else start
        self.start, self.begun = coerce("start", begin, int), rules or usual(opened)
        self.trained, self.here = opened.config.world_model.modules, 0
        self.shown: dict[int, np.ndarray] = {}
        seen = before(opened, self.start, self.context) if seen is None else seen
        super().__init__(opened, seen, coerce("seed", seed, int), self.begun)

    def __repr__(self) -> str:
        moment = self.now
        return f"Dream(start={self.start}, {len(self.moments)} moments, now {moment.depth} deep: {moment.total:+.2f})"

    # Moving about ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Node:
        """The present moment."""
        return self.moments[self.here]

    def step(self, action: int | str | None = None) -> Node:
        """Takes an action, by its number or name, or the policy's; an action taken here before leads where it led."""
        taken = self.choose(self.now) if action is None else self.action(action)
        (self.here,) = self.grow([self.here], [taken])
        return self.now

    def rewind(self, steps: int = 1) -> Node:
        """Goes back; what was dreamt stays, and can be reached again."""
        steps = coerce("steps", steps, int)
        if not 0 <= steps <= self.now.depth:
            raise GlamkitError(f"this moment is {self.now.depth} steps deep; it cannot be rewound by {steps}.")
        self.here = self.path(self.here)[self.now.depth - steps].number
        return self.now

    def go(self, number: int) -> Node:
        """Goes to any moment of the dream by its number."""
        if not 0 <= coerce("number", number, int) < len(self.moments):
            raise GlamkitError(f"there is no moment {number}; this dream has 0 to {len(self.moments) - 1}.")
        self.here = int(number)
        return self.now

    def branch(self, action: int | str, horizon: int = HORIZON) -> Future:
        """What if this action here? One future that begins with it; the present stays where it is."""
        return self.futures([action], 1, horizon)[0]

    def futures(
        self, actions: Sequence[int | str] | None = None, lucks: int = 1, horizon: int = HORIZON
    ) -> list[Future]:
        """What if? Futures that begin with each of the actions (all by default), dreamt in one batch.

        Args:
            actions: first ones; the policy takes the others.
            lucks: futures for each action; those of one luck share their random numbers.
            horizon: steps of each.
        """
        for name, number in (("lucks", lucks), ("horizon", horizon)):
            if coerce(name, number, int) < 1:
                raise GlamkitError(f"{name} = {number} is outside its range: at least 1.")
        firsts = [self.action(a) for a in (range(self.model.actions) if actions is None else actions)]
        rows = [(first, self.now.luck + luck) for first in firsts for luck in range(lucks)]
        self.check_size(len(rows) * horizon)
        paths = [self.grow([self.here] * len(rows), [first for first, _ in rows], [luck for _, luck in rows])]
        for _ in range(horizon - 1):
            paths.append(self.grow(paths[-1], [self.choose(self.moments[number]) for number in paths[-1]]))
        ways = [list(way) for way in zip(*paths, strict=True)]
        found = []
        for (first, luck), way in zip(rows, ways, strict=True):
            last = self.moments[way[-1]]
            value = 0.0 if last.over else last.value
            found.append(Future(first, luck, way, last.total - self.now.total, value))
        return found

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

    # Looking ---------------------------------------------------------------------------------------------------------

    def picture(self, number: int | None = None) -> np.ndarray:
        """What a moment (the present one) looks like, (size, size, 3) uint8; decoded alone, so always the same."""
        number = self.here if number is None else number
        if number not in self.shown:
            with self.thinking():
                self.shown[number] = pictures(self.model.decode(self.moments[number].latent.unsqueeze(0)))[0]
        return self.shown[number]

    def leaves(self) -> list[Node]:
        """The last moment of every line of the tree, in the order they were begun."""
        parents = {moment.parent for moment in self.moments}
        return [moment for moment in self.moments if moment.number not in parents]

    def recorded(self, depth: int) -> int | None:
        """The action that was really taken so many steps after the start; None where nothing is stored."""
        step, replay = self.start + depth, self.opened.replay
        if not replay.oldest <= step < replay.count:
            return None
        return int(replay.actions[step % replay.config.capacity])

    def action(self, action: int | str) -> int:
        """The number of an action given by number or name."""
        names = self.opened.actions
        if isinstance(action, str):
            if action not in names:
                raise GlamkitError(f"unknown action {action!r}; {nearest(action, names)}")
            return names.index(action)
        number = coerce("action", action, int)
        if not 0 <= number < len(names):
            raise GlamkitError(f"action {number} is not one of 0 to {len(names) - 1}: {', '.join(names)}.")
        return number

    def choose(self, moment: Node) -> int:
        """The policy's action in a moment, drawn with the moment's own random number."""
        drawn = self.uniforms(moment.luck, moment.depth)[0]
        cumulated = np.cumsum(moment.policy)
        return min(int((cumulated <= drawn * cumulated[-1]).sum()), len(cumulated) - 1)


def usual(opened: LoadedRun) -> Rules:
    """The rules under which a run's agent dreamt in training."""
    model = opened.config.world_model
    return Rules(model.modules, opened.config.imagination.memory, model.latents)


def length(opened: LoadedRun, context: int | None) -> int:
    """How many real steps a dream sees."""
    if context is None:
        return opened.config.imagination.context_length
    steps = coerce("context", context, int)
    if not 2 <= steps <= len(opened.replay):
        raise GlamkitError(f"context = {steps} is outside 2 to {len(opened.replay):,}, the steps that are stored.")
    return steps


def before(opened: LoadedRun, start: int, context: int) -> Batch:
    """The real steps (1, context, ...) that a dream sees which begins at step `start`."""
    replay = opened.replay
    if not replay.oldest + context <= start <= replay.count:
        where = "too close to the beginning" if start < replay.oldest + context else "behind the end"
        raise GlamkitError(
            f"start = {start} is {where}: a dream sees {context} real steps before it, and {replay.oldest} to "
            f"{replay.count - 1} are stored; use {replay.oldest + context} to {replay.count}."
        )
    return replay.window(torch.tensor([start - context]), context)
