"""What happened in a run, and whether the model predicted it: scores, lives lost, ends of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from glamkit.analysis.fresh_play import FreshReplay
from glamkit.analysis.open_loop import Curve
from glamkit.analysis.starts import episodes, ordered
from glamkit.analysis.variation.lens import Lens
from glamkit.analysis.variation.metrics import VariationView, variation, view
from glamkit.config import coerce
from glamkit.errors import GlamkitError
from glamkit.notebook import Table
from glamkit.plotting import count
from glamkit.training.load import LoadedRun

KINDS = ("reward", "penalty", "life lost", "episode end")
BEFORE, AFTER = 8, 4  # steps shown around an event: half a second of Atari before it, a quarter after it
LONGEST = 200  # steps looked at unless another length is asked for: thirteen seconds of Atari
MOST = 32  # events of a kind that are averaged, spread over the replay
MEASURES = ("expected", "came")  # sizes of the variation, see `Forecast`


class GameEvent(NamedTuple):
    """A step whose action brought something."""

    step: int
    kind: str  # of KINDS


class Aligned(NamedTuple):
    """The size of the variation around N events of a kind, by steps from the event; NaN in other episodes.

    At lag 0 is the step whose action brought the event, and whose variation leads to the first frame that shows it.
    """

    kind: str
    all: int  # events of this kind in the steps at hand, of which N were looked at
    lags: np.ndarray  # (L,)
    expected: Curve  # (N, L) nats
    came: Curve
    usual: float  # nats: the mean expected size at steps drawn at random

    @property
    def rise(self) -> Curve:
        """(N, 1): how much more was expected at lags -1 and 0 than at the earliest four."""
        late, early = self.expected.values[:, (self.lags >= -1) & (self.lags <= 0)], self.expected.values
        return Curve("rise", "nats", (means(late) - means(early[:, self.lags < -BEFORE // 2]))[:, None])


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
    return view(lens, lens.read([begin], length, seed), ends, source(loaded))


def source(loaded: LoadedRun) -> str:
    """What steps are looked at, in words."""
    if isinstance(loaded.replay, FreshReplay):
        return "steps of fresh play, never trained on"
    return "stored steps, perhaps trained on"


def aligned(loaded: LoadedRun, lens: Lens, kind: str, seed: int = 0) -> Aligned | None:
    """The variation around events of one kind, or None where none of them can be looked at."""
    steps = [event.step for event in events(loaded) if event.kind == kind]
    first, last = loaded.replay.oldest + lens.before + BEFORE, loaded.replay.count - 2 - AFTER
    inside = [step for step in steps if first <= step <= last]
    if not inside:
        return None
    picked = np.array(inside)[np.unique(np.linspace(0, len(inside) - 1, MOST).round().astype(int))]
    lags = np.arange(-BEFORE, AFTER + 1)
    forecasts = variation(lens, lens.read((picked - BEFORE).tolist(), len(lags), seed))
    apart = episode_of(loaded, picked[:, None] + lags) != episode_of(loaded, picked)[:, None]
    sizes = [np.stack([getattr(one, f"size_{name}") for one in forecasts]) for name in MEASURES]
    expected, came = (
        Curve(name, "nats", np.where(apart, np.nan, size)) for name, size in zip(MEASURES, sizes, strict=True)
    )
    return Aligned(kind, len(steps), lags, expected, came, usual(lens, seed))


def usual(lens: Lens, seed: int, stretches: int = 8, length: int = 16) -> float:
    """The mean expected size, in nats, of the variation at steps drawn at random."""
    first, last = lens.replay.oldest + lens.before, lens.replay.count - 1 - length
    starts = np.random.default_rng(seed).integers(first, max(last, first) + 1, stretches).tolist()
    forecasts = variation(lens, lens.read(starts, min(length, lens.replay.count - 1 - first), seed))
    return float(np.mean([one.size_expected for one in forecasts]))


def episode_of(loaded: LoadedRun, steps: np.ndarray) -> np.ndarray:
    """Which episode each step belongs to."""
    return np.searchsorted([last for _, last in episodes(loaded)], steps)


def choose(
    loaded: LoadedRun, lens: Lens, start: int | None = None, episode: int | None = None, length: int | None = None
) -> tuple[int, int]:
    """The stretch to look at: its first step, and its length.

    Args:
        loaded: the run.
        lens: through which it will be seen.
        start: the first step; None leaves it to `episode`.
        episode: one of those at hand, 1 the oldest, -1 the newest; None takes the stretch up to the newest event.
        length: steps; None takes the episode from there on, but at most `LONGEST`.

    Raises:
        GlamkitError: `start` and `episode` at once, an episode that is not stored, or steps that are not.
    """
    if start is not None and episode is not None:
        raise GlamkitError(f"start = {start} and episode = {episode} exclude each other; leave one of them None.")
    first, last = lens.replay.oldest + lens.before, lens.replay.count - 2
    steps = None if length is None else coerce("length", length, int)
    spans = episodes(loaded)
    if start is not None:
        begin = coerce("start", start, int)
        end = next((end for _, end in spans if end >= begin), last)
    elif episode is not None:
        number = coerce("episode", episode, int)
        if not 1 <= abs(number) <= len(spans):
            raise GlamkitError(f"episode = {number} is none of the {len(spans)} stored ones; use 1 to {len(spans)}.")
        seen = [max(begin, first) <= min(end, last) for begin, end in spans]
        place = number - 1 if number > 0 else len(spans) + number
        begin, end = spans[place]
        if not seen[place]:
            raise GlamkitError(
                f"episode = {number}, steps {begin:,} to {end:,}, lies in steps that are only read: the first "
                f"{lens.before} at hand and the last; use {nearest_seen(seen, place)}."
            )
        begin = max(begin, first)
    else:
        marks = [event.step + AFTER for event in events(loaded) if first <= event.step <= last - AFTER]
        end = marks[-1] if marks else last
        begin = max(end - (steps or LONGEST) + 1, first)
    chosen = max(min(end, last) - begin + 1, 1) if steps is None else steps
    chosen = min(chosen, LONGEST) if steps is None else chosen
    lens.check(begin, chosen)
    return begin, chosen


def nearest_seen(seen: Sequence[bool], place: int) -> str:
    """The number of the nearest episode that can be looked at, in words."""
    numbers = sorted((abs(other - place), other + 1) for other, there in enumerate(seen) if there)
    return f"episode = {numbers[0][1]}" if numbers else "more steps: there is none that can be looked at"


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


def means(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaNs; NaN where there is nothing else."""
    kept = ~np.isnan(values)
    total, count = np.where(kept, values, 0).sum(-1), kept.sum(-1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
