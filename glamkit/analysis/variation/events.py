"""What happened in a run, and whether the model predicted it: scores, lives lost, ends of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from glamkit.analysis.fresh_play import FreshReplay
from glamkit.analysis.starts import episodes, ordered
from glamkit.analysis.variation.lens import Lens
from glamkit.analysis.variation.metrics import VariationView, view
from glamkit.config import coerce
from glamkit.notebook import Table
from glamkit.plotting import count
from glamkit.training.load import LoadedRun

KINDS = ("reward", "penalty", "life lost", "episode end")
AFTER = 4  # steps shown after the event that a stretch is chosen for: a quarter of a second of Atari
LONGEST = 200  # steps looked at unless another length is asked for: thirteen seconds of Atari


class GameEvent(NamedTuple):
    """A step whose action brought something."""

    step: int
    kind: str  # of KINDS


def events(loaded: LoadedRun) -> list[GameEvent]:
    """Everything that happened in the stored steps, in order."""
    oldest, ends = loaded.replay.oldest, {last for _, last in episodes(loaded)[:-1]}
    marks = [GameEvent(step, "episode end") for step in ends]
    for place, reward in enumerate(ordered(loaded, "rewards")):
        if reward:
            marks.append(GameEvent(oldest + place, "reward" if reward > 0 else "penalty"))
    lost = np.flatnonzero(ordered(loaded, "terminations")) + oldest
    marks += [GameEvent(int(step), "life lost") for step in lost if int(step) not in ends]
    return sorted(marks)


def look(loaded: LoadedRun, lens: Lens, begin: int, length: int, seed: int = 0) -> VariationView:
    """What the lens shows of a stretch, without the steps that lead into a new game.

    Raises:
        GlamkitError: some of its steps are not stored.
    """
    ends = [last for _, last in episodes(loaded)[:-1]]
    return view(lens, lens.read(begin, length, seed), ends, source(loaded))


def source(loaded: LoadedRun) -> str:
    """What steps are looked at, in words."""
    if isinstance(loaded.replay, FreshReplay):
        return "steps of fresh play, never trained on"
    return "stored steps, perhaps trained on"


def choose(loaded: LoadedRun, lens: Lens, start: int | None = None, length: int | None = None) -> tuple[int, int]:
    """The stretch to look at: its first step, and its length.

    Args:
        loaded: the run.
        lens: through which it will be seen.
        start: the first step; None takes the stretch up to the newest event.
        length: steps; None takes the episode from there on, but at most `LONGEST`.

    Raises:
        GlamkitError: some of these steps are not stored.
    """
    first, last = lens.replay.oldest + lens.before, lens.replay.count - 2
    steps = None if length is None else coerce("length", length, int)
    if start is not None:
        begin = coerce("start", start, int)
        end = next((end for _, end in episodes(loaded) if end >= begin), last)
    else:
        marks = [event.step + AFTER for event in events(loaded) if first <= event.step <= last - AFTER]
        end = marks[-1] if marks else last
        begin = max(end - (steps or LONGEST) + 1, first)
    chosen = min(max(min(end, last) - begin + 1, 1), LONGEST) if steps is None else steps
    lens.check(begin, chosen)
    return begin, chosen


def overview(loaded: LoadedRun, view: VariationView, marks: Sequence[GameEvent]) -> Table:
    """What is looked at, in a few rows."""
    begin, end = int(view.numbers[0]), int(view.numbers[-1])
    model, inside = loaded.config.world_model, [e.kind for e in marks if begin <= e.step <= end]
    counts = [f"{inside.count(kind)} x {kind}" for kind in KINDS if kind in inside]
    branches = {"both": "GMamba + LMamba", "gmamba": "GMamba alone", "lmamba": "LMamba alone"}
    rows = [
        ("run", f"{loaded.run.folder}: {loaded.config.env.game}, preset {loaded.config.preset}"),
        ("checkpoint", f"of step {loaded.step:,}"),
        ("steps at hand", f"{loaded.replay.oldest:,} to {loaded.replay.count - 1:,}: {source(loaded)}"),
        ("looked at", f"steps {begin:,} to {end:,}: {', '.join(counts) or 'nothing happens in them'}"),
        ("measured on", view.about.removeprefix("Measured on ")),
        (
            "hidden state",
            f"{branches[model.modules]}; window of {model.window} tokens, {count(model.blocks, 'Mamba block')}",
        ),
        ("variation", f"{model.variables} variables of {model.classes} classes; posterior head {model.variation_head}"),
    ]
    return Table(rows)
