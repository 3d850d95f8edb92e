"""What can stand beside a dream, step by step: what really happened, and the same dream with a Mamba module off."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch

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


class ModuleOff:
    """The same dream with one module off from its start on: the same actions, the same random numbers.

    Args:
        dream: to compare with.
        off: ``lmamba`` or ``gmamba``.

    Raises:
        GlamkitError: the run was trained with one module alone.
    """

    def __init__(self, dream: Dream, off: str) -> None:
        if dream.trained != "both":
            raise GlamkitError(f"this run was trained with {dream.trained!r} alone: there is no module to leave out.")
        self.name, self.left, self.dream = off, LEFT[off], dream
        rules = replace(dream.begun, modules=self.left)
        self.other = Dream(dream.run, dream.start, dream.seed, dream.context, rules, dream.seen)
        self.counterpart = {0: 0}  # node of the dream -> node of the other

    def node(self, number: int) -> Node:
        """What a node of the dream is in the other."""
        missing, node = list[Node](), self.dream.nodes[number]
        while node.number not in self.counterpart:
            missing.append(node)
            node = self.dream.nodes[node.parent]
        for node in reversed(missing):
            self.other.rules = replace(node.rules, modules=self.left)
            (grown,) = self.other.grow([self.counterpart[node.parent]], [node.action], [node.noise_seed])
            self.counterpart[node.number] = grown
        return self.other.nodes[self.counterpart[number]]

    def beside(self) -> Beside:
        """What stands beside the present node."""
        node = self.node(self.dream.here)
        caption = f"reward {node.reward:+.2f}, return {node.total:+.2f}, end {node.ended:.0%}"
        return Beside(NAMES[self.name], caption, self.other.picture(node.number))


def what_happened(dream: Dream) -> Beside:
    """The real frame of the present node's step, and whether the dream took the same actions up to it."""
    replay, depth = dream.run.replay, dream.now.depth
    step = dream.start + depth
    if step >= replay.count:
        return Beside(NAMES[REAL], f"no real step {step:,} is stored: the last is {replay.count - 1:,}", None)
    steps = replay.window(torch.tensor([dream.start - 1]), depth + 2)
    picture = steps.frames[0, -1].permute(1, 2, 0).cpu().numpy()
    if not depth:
        return Beside(NAMES[REAL], f"real step {step:,}", picture)
    if steps.terminations[0, 1:-1].any():
        return Beside(NAMES[REAL], "the real game has ended before this step", picture)
    action, reward = int(steps.actions[0, -2]), float(steps.rewards[0, -2])
    caption = f"{dream.run.actions[action]}, reward {reward:+.2f}"
    other = first_difference(dream)
    return Beside(NAMES[REAL], caption + ("" if other is None else f"; other actions since step {other}"), picture)


def first_difference(dream: Dream) -> int | None:
    """The step at which the dream first took another action than was really taken; None if it never did."""
    way = dream.path(dream.here)
    return next((node.depth - 1 for node in way[1:] if node.action != dream.recorded(node.depth - 1)), None)
