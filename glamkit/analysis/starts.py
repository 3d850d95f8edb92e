"""Where a dream may start: some steps before a reward or an end, or at random.

Nobody can predict how a new game begins, so random starts are no first frames of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from glamkit.analysis.fresh_play import FreshReplay
from glamkit.config import TrainerConfig, at_least
from glamkit.errors import GlamkitError, nearest
from glamkit.runs import log
from glamkit.training.load import LoadedRun

# Anywhere, evenly; shortly before a reward, the largest first; shortly before a life or an episode ends, the latest.
KINDS = ("random", "reward", "termination")
LEAD = 4  # steps between a start and what it is chosen for: a dream has to predict it
AHEAD, SEEN = 12, 2  # steps to a reward from a good start, and of its game that are seen at least before it


class Start(NamedTuple):
    """A step to dream from: the dream's first picture predicts this step's frame."""

    step: int
    why: str


def find_starts(
    loaded: LoadedRun, by: str = "random", count: int = 8, seed: int = 0, context: int | None = None, ahead: int = 0
) -> list[Start]:
    """Up to `count` starts, all with `context` real steps before them.

    Args:
        loaded: the run.
        by: one of `KINDS`.
        count: how many at most.
        seed: of the random ones.
        context: None takes as many steps as in training.
        ahead: real steps wanted from the start on, to compare with.

    Raises:
        GlamkitError: an unknown kind, too few stored steps, or none of this kind.
    """
    if by not in KINDS:
        raise GlamkitError(f"by = {by!r} is no way to choose starts; {nearest(by, KINDS)}")
    (first, last), count = bounds(loaded, context, ahead), at_least("count", count)
    if by == "random":
        rng, steps = np.random.default_rng(TrainerConfig(seed=seed).seed), np.arange(first, last + 1)
        begins = is_last(loaded)[steps - 1 - loaded.replay.oldest]
        steps = steps if begins.all() else steps[~begins]
        picked = np.sort(rng.choice(steps, min(count, len(steps)), replace=False))
        return [Start(int(step), "chosen at random") for step in picked]
    kept = list[Start]()
    for start in led(loaded, by):
        apart = all(abs(start.step - other.step) > LEAD for other in kept)  # two of the same scene are one to look at
        if len(kept) < count and first <= start.step <= last and apart:
            kept.append(start)
    if not kept:
        raise GlamkitError(f"no stored step is a start by {by!r}; choose them by 'random'.")
    return kept


def good_start(loaded: LoadedRun, context: int | None = None, ahead: int = 0) -> Start:
    """A start to play from, with `ahead` real steps to compare: a few steps before a reward, in a game under way.

    Gains come before penalties, then the largest, then the newest. Without any such reward it is a random start.
    """
    first, last = bounds(loaded, context, ahead)
    good = [start for start in led(loaded, "reward", AHEAD, SEEN) if first <= start.step <= last]
    return good[0] if good else find_starts(loaded, "random", 1, 0, context, ahead)[0]


def bounds(loaded: LoadedRun, context: int | None = None, ahead: int = 0) -> tuple[int, int]:
    """The first and the last step a dream may start from."""
    steps = loaded.config.imagination.context_length if context is None else at_least("context", context, 2)
    replay, ahead = loaded.replay, at_least("horizon", ahead, 0)
    first, last = replay.oldest + steps, replay.count - ahead
    if first > last:
        raise GlamkitError(
            f"{steps} real steps before a dream and {ahead} to compare it with are more than the {len(replay):,} "
            "that are stored; use a smaller horizon or context."
        )
    return first, last


def check_start(loaded: LoadedRun, step: int, context: int | None = None, ahead: int = 0) -> None:
    """Raises a GlamkitError if the real steps before or after a start are not stored."""
    first, last = bounds(loaded, context, ahead)
    if not first <= step <= last:
        wanted = f"{first - loaded.replay.oldest} real steps before it, and {ahead} from it on"
        raise GlamkitError(f"start = {step} is outside {first} to {last}: there must be {wanted}.")


def led(loaded: LoadedRun, by: str, lead: int = LEAD, seen: int = 0) -> list[Start]:
    """Starts before a ``reward``, the largest first, or a ``termination``, in the same life; the latest first.

    They are `lead` steps before it. Where its life began later, they are `seen` steps into it, at least `LEAD` before.
    """
    values, number, oldest = ordered(loaded, f"{by}s"), games(loaded), loaded.replay.oldest
    begins, starts = np.searchsorted(number, number), []
    for place in sorted(map(int, np.flatnonzero(values)), key=lambda place: (-values[place], -place)):
        begin = max(place - lead, int(begins[place]) + seen)
        if begin <= place - LEAD:
            what = f"reward {values[place]:+g}" if by == "reward" else "an end"
            starts.append(Start(oldest + begin, f"{what} at step {oldest + place:,}"))
    return starts


def episode_ends(loaded: LoadedRun) -> list[int]:
    """The stored steps that ended an episode, also by a time limit if the log tells; without a log, terminations do."""
    replay, file = loaded.replay, loaded.run.log_file
    if isinstance(replay, FreshReplay):
        return replay.ends
    if file.exists():
        ends = [entry["step"] - 1 for entry in log.added(file)[0] if entry["kind"] == "episode"]
    else:
        ends = (np.flatnonzero(ordered(loaded, "terminations")) + replay.oldest).tolist()
    return [end for end in ends if replay.oldest <= end < replay.count]


def same_game(loaded: LoadedRun, starts: Sequence[int], steps: int) -> np.ndarray:
    """(N, steps) bool: which of the steps from each start on are of the life or episode that goes on there."""
    number, places = games(loaded), np.subtract(starts, loaded.replay.oldest)[:, None]
    return number[places + np.arange(steps)] == number[places]


def games(loaded: LoadedRun) -> np.ndarray:
    """(n,) oldest first: the number, from 0, of the life or episode that each stored step is of."""
    ends = is_last(loaded).astype(int)
    return np.cumsum(ends) - ends


def is_last(loaded: LoadedRun) -> np.ndarray:
    """(n,) bool, oldest first: whether a stored step ended a life or an episode, by a time limit too."""
    result = ordered(loaded, "terminations") > 0
    result[np.array(episode_ends(loaded), int) - loaded.replay.oldest] = True
    return result


def ordered(loaded: LoadedRun, name: str) -> np.ndarray:
    """All stored ``actions``, ``rewards`` or ``terminations``, oldest first."""
    replay = loaded.replay
    rows = torch.arange(replay.oldest, replay.count) % replay.config.capacity
    return getattr(replay, name)[rows.to(replay.device)].cpu().numpy()
