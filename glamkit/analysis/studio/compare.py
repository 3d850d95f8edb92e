"""What can stand beside a dream, step by step: what really happened, and the same dream with a Mamba module off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from glamkit.analysis.starts import is_last, ordered
from glamkit.analysis.studio.dream_tree import Node
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError

REAL = "real"
NAMES = {REAL: "what really happened", "lmamba": "LMamba off", "gmamba": "GMamba off"}
LEFT: dict[str, Literal["gmamba", "lmamba"]] = {"lmamba": "gmamba", "gmamba": "lmamba"}  # what is left of the two


class Beside(NamedTuple):
    """A picture to compare with, (size, size, 3) uint8; None where there is none."""

    name: str
    caption: str
    picture: np.ndarray | None
    over: bool = False  # whether a life or the game has ended here or before
    note: str = ""  # why it can no longer be compared step by step


class ModuleOff:
    """The same dream with ``lmamba`` or ``gmamba`` off from its start on: the same actions, the same random numbers."""

    def __init__(self, dream: Dream, off: str) -> None:
        if dream.trained != "both":
            raise GlamkitError(f"this run was trained with {dream.trained!r} alone: there is no module to leave out.")
        self.name, self.left, self.dream = NAMES[off], LEFT[off], dream
        rules = replace(dream.begun, modules=self.left)
        self.other = Dream(dream.run, dream.start, dream.seed, dream.context, rules)
        self.numbers = {0: 0}  # node of the dream -> node of the other

    def node(self, number: int) -> Node:
        """What a node of the dream is in the other."""
        missing = [node for node in self.dream.path(number) if node.number not in self.numbers]
        for node in missing:
            self.other.rules = replace(node.rules, modules=self.left)
            (grown,) = self.other.grow([self.numbers[node.parent]], [node.action], [node.noise_seed])
            self.numbers[node.number] = grown
        return self.other.nodes[self.numbers[number]]

    def at(self, number: int) -> Beside:
        """What stands beside this node of the dream."""
        node = self.node(number)
        caption = f"reward {node.reward:+z.2f}, return {node.total:+z.2f}, end {node.ended:.0%}"
        if node.over:
            caption = ended(next(one.depth for one in self.other.path(node.number) if one.over), node.total)
        return Beside(self.name, caption, self.other.picture(node.number), node.over)


class WhatHappened:
    """The real frames of the same steps, and whether the dream took the same actions up to them."""

    def __init__(self, dream: Dream) -> None:
        self.name, self.dream = NAMES[REAL], dream
        first = dream.start - dream.run.replay.oldest
        self.returns = np.insert(ordered(dream.run, "rewards")[first:], 0, 0).cumsum(dtype=float)  # before each step
        ends = np.flatnonzero(is_last(dream.run)[first:])
        self.end = int(ends[0]) + 1 if len(ends) else dream.run.replay.count  # steps to the end of the real game

    def at(self, number: int) -> Beside:
        """What stands beside this node of the dream."""
        dream, depth = self.dream, self.dream.nodes[number].depth
        replay, step = dream.run.replay, dream.start + depth
        if step >= replay.count:
            return Beside(self.name, f"no real step {step:,} is stored: the last is {replay.count - 1:,}", None)
        steps = replay.window(torch.tensor([step - 1]), 2)  # the action before, and the frame
        picture = steps.frames[0, -1].permute(1, 2, 0).cpu().numpy()
        apart = first_difference(dream, number)
        note = "" if apart is None else f"real game: other actions since step {apart}"
        action, reward = dream.run.actions[int(steps.actions[0, 0])], float(steps.rewards[0, 0])
        caption = f"{action}, reward {reward:+z.2f}, return {self.returns[depth]:+z.2f}"
        if depth == 0:
            caption = f"real step {step:,}"
        if depth >= self.end:
            caption = ended(self.end, self.returns[self.end])
        return Beside(self.name, caption, picture, depth >= self.end, note)


Counterpart: TypeAlias = ModuleOff | WhatHappened


def comparisons(dream: Dream, names: Sequence[str]) -> list[Counterpart]:
    """What stands beside a dream, of the `NAMES` given."""
    return [WhatHappened(dream) if name == REAL else ModuleOff(dream, name) for name in names]


def ended(step: int, total: float) -> str:
    """What there is to say after an end, which in many games is that of a life."""
    return f"end of a life or game at step {step}, return {total:+z.2f}"


def first_difference(dream: Dream, number: int) -> int | None:
    """The first step on the way to a node that another action led to than was really taken; None if none did."""
    way = dream.path(number)
    return next((node.depth for node in way[1:] if node.action != dream.recorded(node.depth - 1)), None)
