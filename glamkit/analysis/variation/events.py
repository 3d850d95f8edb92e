"""What happened in a run, which stretch of it to look at, and what the lens shows of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from glamkit.analysis.fresh_play import FreshReplay
from glamkit.analysis.starts import episode_ends, ordered
from glamkit.analysis.variation import metrics
from glamkit.analysis.variation.lens import Lens, Reading
from glamkit.analysis.variation.metrics import Forecast, ScreenForecast
from glamkit.config import coerce
from glamkit.notebook import Table
from glamkit.training.load import LoadedRun

KINDS = ("reward", "penalty", "life lost", "episode end")
AFTER = 4  # steps shown after the event that a stretch is chosen for: a quarter of a second of Atari
LONGEST = 200  # steps looked at unless another length is asked for: thirteen seconds of Atari


class GameEvent(NamedTuple):
    """A step whose action brought something."""

    step: int
    kind: str  # of KINDS


class VariationView(NamedTuple):
    """A stretch of n steps through the lens."""

    numbers: np.ndarray  # (n,) of the steps
    variation: Forecast
    effects: np.ndarray  # (n, 2, 4): of switching off GMamba or LMamba, see `metrics.effects`
    screen: ScreenForecast
    events: Sequence[GameEvent] = ()
    source: str = "steps"  # what they are steps of

    @property
    def counted(self) -> np.ndarray:
        """(n,) bool: the steps on which predictions are measured; those that lead into a new game are left out."""
        return self.screen.counted

    @property
    def about(self) -> str:
        """On which steps figures are measured, in one line."""
        kept, left = int(self.counted.sum()), int((~self.counted).sum())
        out = f"; {left} that lead into a new game are left out" if left else ""
        return f"Measured on {kept} {self.source}{out}."


def events(loaded: LoadedRun) -> list[GameEvent]:
    """Everything that happened in the stored steps, in order."""
    oldest, ends = loaded.replay.oldest, set(episode_ends(loaded))
    rewards, lost = ordered(loaded, "rewards"), set((np.flatnonzero(ordered(loaded, "terminations")) + oldest).tolist())
    marks = [GameEvent(step, "episode end") for step in ends]
    marks += [GameEvent(int(step) + oldest, "reward") for step in np.flatnonzero(rewards > 0)]
    marks += [GameEvent(int(step) + oldest, "penalty") for step in np.flatnonzero(rewards < 0)]
    return sorted([*marks, *(GameEvent(step, "life lost") for step in lost - ends)])


def look(loaded: LoadedRun, lens: Lens, begin: int, length: int, seed: int = 0) -> VariationView:
    """What the lens shows of a stretch, without the steps that lead into a new game; raises what `Lens.read` does."""
    inside = [event for event in events(loaded) if begin <= event.step < begin + length]
    fresh = isinstance(loaded.replay, FreshReplay)
    source = "steps of fresh play, never trained on" if fresh else "stored steps, perhaps trained on"
    return view(lens, lens.read(begin, length, seed), episode_ends(loaded), inside, source)


def view(
    lens: Lens, reading: Reading, ends: Sequence[int] = (), events: Sequence[GameEvent] = (), source: str = "steps"
) -> VariationView:
    """All of it for a reading; `ends` are steps of the run that end a game, and are not counted."""
    numbers = reading.numbers.numpy()
    screen = metrics.screen(lens, reading, ~np.isin(numbers, ends))
    predicted, effects = metrics.variation(lens, reading), metrics.effects(lens, reading)
    return VariationView(numbers, predicted, effects, screen, events, source)


def choose(loaded: LoadedRun, lens: Lens, start: int | None = None, length: int | None = None) -> tuple[int, int]:
    """The stretch to look at: its first step, and its length.

    By default it goes up to the newest event, or from `start` on, and has at most `LONGEST` steps. Whether its steps
    are stored is checked by `Lens.read`.
    """
    first, last = lens.replay.oldest + lens.before, lens.replay.count - 2
    most = LONGEST if length is None else coerce("length", length, int)
    if start is None:
        marks = [event.step + AFTER for event in events(loaded) if first <= event.step <= last - AFTER]
        end = marks[-1] if marks else last
        begin = max(end - most + 1, first)
    else:
        begin, end = coerce("start", start, int), last
    return begin, most if length is not None else min(max(end - begin + 1, 1), most)


def overview(loaded: LoadedRun, view: VariationView) -> Table:
    """What is looked at, in a few rows."""
    model, inside = loaded.config.world_model, [event.kind for event in view.events]
    counts = [f"{inside.count(kind)} x {kind}" for kind in KINDS if kind in inside]
    looked = f"steps {view.numbers[0]:,} to {view.numbers[-1]:,}: {', '.join(counts) or 'nothing happens in them'}"
    rows = [
        ("run", f"{loaded.run.folder}: {loaded.config.env.game}, preset {loaded.config.preset}, step {loaded.step:,}"),
        ("steps at hand", f"{loaded.replay.oldest:,} to {loaded.replay.count - 1:,}: {view.source}"),
        ("looked at", looked),
        ("model", f"branches {model.modules}; window of {model.window}; variation_head {model.variation_head}"),
    ]
    return Table(rows, view.about)
