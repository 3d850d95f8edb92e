"""Open loop against the truth: how long a dream stays near what really happened, given the actions really taken.

Frames are compared where something moves, in the real clip or in the dream: a dream in which nothing plays would look
nearly right. Steps after a real end are not counted: nobody can predict a new game.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from glamkit.analysis.rollouts import looking, pictures, replayed
from glamkit.analysis.starts import Start, find_starts, same_game
from glamkit.config import at_least, coerce
from glamkit.errors import GlamkitError
from glamkit.ops.functional import kl_categorical
from glamkit.plotting import student
from glamkit.training.load import LoadedRun
from glamkit.types import Context

TOGETHER = 16  # clips dreamt at a time: their decoded frames stay small
HALF = 0.5  # a dream is usable while it knows more than this share of what can be known
WORST = 3  # clips shown as those that went wrong most, and offered as starts
DRAWS = 400  # of clips, for the interval of the usable horizon
MOVES = 20  # of 255: a pixel moves if it varies by more within a clip; less is a faint glow
SEEN = 0.25  # share of the movement that reconstructions must show, or dreams have nothing to be right about


@dataclass(frozen=True)
class Curve:
    """One measure against the horizon: (N, H) values per clip, NaN where a step is not counted."""

    name: str
    unit: str
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(H,) over the clips; NaN where none is left."""
        return np.ma.masked_invalid(self.values).mean(0).filled(np.nan)

    @property
    def reach(self) -> np.ndarray:
        """(H,) half the width of the mean's 95 % interval (Student's, over clips as if none overlapped)."""
        kept = np.ma.masked_invalid(self.values)
        points = [student(max(count - 1, 1)) for count in kept.count(0).tolist()]
        return (points * kept.std(0, ddof=1) / np.sqrt(kept.count(0))).filled(np.nan)


@dataclass(frozen=True)
class OpenLoop:
    """N clips of H steps: real, reconstructed and imagined, and how far apart they are.

    Pixel errors are root mean squares over the moving pixels of a clip, in % of the full range of a pixel.
    """

    starts: list[Start]
    real: np.ndarray  # (N, H, size, size, 3) uint8
    imagined: np.ndarray
    counted: np.ndarray  # (N, H) bool: the episode has not ended before this step
    seen: float  # share of what moves (squared) that reconstructions show; NaN where nothing moves
    pixels: dict[str, Curve]  # imagined, reconstructed, still (the last frame seen), wrong (another clip's frames)
    latents: dict[str, Curve]  # imagined, and looking: with every frame before it seen
    rewards: dict[str, Curve]  # imagined, and never: expecting none
    terminations: dict[str, Curve]  # imagined, and never

    @property
    def horizon(self) -> int:
        """H."""
        return self.real.shape[1]

    def share(self, clips: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(H,): 1 is as good as a reconstruction of the real frame, 0 as bad as a dream of some other moment.

        NaN where no clip is left. Errors are averaged before they are divided, as single ones may be near zero.
        """
        dreamt, best, wrong = (self.pixels[name].values[clips] for name in ("imagined", "reconstructed", "wrong"))
        lost, known = np.nansum(dreamt - best, 0), np.nansum(wrong - best, 0)
        unknown = np.where(np.isnan(dreamt).all(0), np.nan, -np.inf)
        return np.divide(known - lost, known, out=unknown, where=known > 0)

    def leading(self, clips: np.ndarray | slice = slice(None)) -> int:
        """Steps ahead up to which the share is above `HALF`, over all clips or these."""
        below = np.flatnonzero(self.share(clips) <= HALF)
        followed = int(self.counted[clips].any(0).sum())  # further ahead none of these clips is left
        return min(int(below[0]), followed) if len(below) else followed

    @property
    def followed(self) -> int:
        """Steps ahead at which a clip is left; the others have come to a real end."""
        return int(self.counted.any(0).sum())

    @property
    def usable(self) -> int:
        """Steps ahead up to which dreams know over half of what can be known; 0 if reconstructions lack what moves."""
        return self.leading() if self.seen > SEEN else 0

    @property
    def finding(self) -> str:
        """The usable horizon in words, or why there is none."""
        if not self.seen > SEEN:
            return "Reconstructions show next to nothing that moves: no usable horizon"
        low, high = self.usable_range
        span = f"{self.usable} of {self.horizon} steps (95 % interval {low} to {high})"
        if self.usable == self.followed < self.horizon:
            span = f"at least {self.usable} steps (95 % sure of {low}), as no clip is longer before a real end"
        return f"Usable horizon: {span}. Reconstructions show {self.seen:.0%} of the movement"

    @property
    def usable_range(self) -> tuple[int, int]:
        """Its 95 % interval, by a bootstrap of blocks of neighbours: clips that overlap err alike."""
        rng, number = np.random.default_rng(0), len(self.starts)
        order = np.argsort([start.step for start in self.starts])
        block = np.arange(max(1, min(self.overlapping, number // 8)))
        firsts = rng.integers(number, size=(DRAWS, -(-number // len(block)), 1))
        clips = order[((firsts + block) % number).reshape(DRAWS, -1)[:, :number]]
        low, high = np.quantile([self.leading(drawn) for drawn in clips], (0.025, 0.975), method="nearest")
        return int(low), int(high)

    @property
    def overlapping(self) -> int:
        """How many neighbouring clips have steps in common, typically; 1 for none."""
        gap = np.median(np.diff(np.sort([start.step for start in self.starts])))
        return math.ceil(self.horizon / max(gap, 1))

    def worst(self, count: int = WORST) -> list[int]:
        """Clips whose dreams went wrong most, worst first; those that end before half the horizon come last."""
        beyond = self.pixels["imagined"].values - self.pixels["reconstructed"].values
        short = self.counted.sum(1) < self.horizon / 2  # two or three pictures show little
        return np.lexsort((-np.ma.masked_invalid(beyond).mean(1).filled(-np.inf), short))[:count].tolist()

    def failures(self) -> list[Start]:
        """The starts of the worst clips, to dream from."""
        why, clips = "dream went wrong: rank", enumerate(self.worst(), 1)
        return [Start(self.starts[clip].step, f"{why} {rank} of {len(self.starts)}") for rank, clip in clips]


def measure_open_loop(
    loaded: LoadedRun, horizon: int = 15, count: int = 48, seed: int = 0, context: int | None = None
) -> OpenLoop:
    """Dreams from many starts, and compares.

    Args:
        loaded: the run.
        horizon: H, steps of each clip.
        count: of random starts.
        seed: of starts and draws.
        context: real steps seen before each; None takes as many as in training.

    Raises:
        GlamkitError: fewer real steps are stored than this needs, or a number is out of its range.
    """
    steps, count = at_least("horizon", horizon), at_least("count", count, 2)
    length = loaded.config.imagination.context_length if context is None else coerce("context", context, int)
    begun, seed = find_starts(loaded, "random", count, seed, length, steps), coerce("seed", seed, int)
    if len(begun) < 2:
        raise GlamkitError(f"horizon = {steps} leaves one start, and comparing takes two; use a smaller horizon.")
    batches = [begun[i : i + TOGETHER] for i in range(0, len(begun), TOGETHER)]
    parts = [_clips(loaded, [start.step for start in some], steps, length, seed) for some in batches]
    real, imagined, reconstructed, last, kl, looking_kl, rewards, predicted, ends, ending = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    counted = same_game(loaded, [start.step for start in begun], steps)
    wrong = np.roll(imagined, len(begun) // 2, 0)  # random starts are in order: neighbours may share their scene

    def curve(name: str, unit: str, values: np.ndarray) -> Curve:
        return Curve(name, unit, np.where(counted, values, np.nan))

    rms = "RMS error where things move,\n% of full range"
    where = moving(np.concatenate([last, real], 1), np.insert(counted, 0, True, 1)) | moving(imagined, counted)
    pixels = {
        "imagined": curve("the dream", rms, far(imagined, real, where)),
        "reconstructed": curve("reconstruction: the best possible", rms, far(reconstructed, real, where)),
        "still": curve("the last frame seen, held still", rms, far(last, real, where)),
        "wrong": curve("a dream of another moment", rms, far(wrong, real, where)),
    }
    seen = movement_seen(real, reconstructed, where, counted)
    latents = {
        "imagined": curve("the dream", "surprise (KL, in nats)", kl),
        "looking": curve("with every frame before it seen", "surprise (KL, in nats)", looking_kl),
    }

    def against_never(expected: np.ndarray, came: np.ndarray) -> dict[str, Curve]:
        return {
            "imagined": curve("the dream", "mean squared error", (expected - came) ** 2),
            "never": curve("expecting none", "mean squared error", came**2),
        }

    outcomes, terminations = against_never(predicted, rewards), against_never(ending, ends)
    return OpenLoop(begun, real, imagined, counted, seen, pixels, latents, outcomes, terminations)


def moving(frames: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Where something moves in clips of frames (N, H, size, size, 3): (N, size, size) bool, by their counted steps."""
    kept = counted[..., None, None, None]
    most, least = np.where(kept, frames, 0).max(1), np.where(kept, frames, 255).min(1)
    return (most.astype(np.int16) - least > MOVES).any(-1)


def far(pictured: np.ndarray, real: np.ndarray, where: np.ndarray) -> np.ndarray:
    """RMS difference (N, H) of frames (N, H, size, size, 3) on pixels (N, size, size) bool, in %; NaN without any."""
    squares = (((pictured.astype(np.float32) - real) / 2.55) ** 2).mean(-1)
    sums, counts = (squares * where[:, None]).sum((2, 3)), where.sum((1, 2))[:, None]
    return np.sqrt(np.divide(sums, counts, out=np.full(sums.shape, np.nan, np.float32), where=counts > 0))


def movement_seen(real: np.ndarray, reconstructed: np.ndarray, where: np.ndarray, counted: np.ndarray) -> float:
    """Share of what moves (squared) that reconstructions show, 0 as much as one still picture of each clip."""
    kept = (where[:, None] & counted[..., None, None])[..., None]
    mean = real.mean(1, keepdims=True, where=np.broadcast_to(counted[..., None, None, None], real.shape))
    whole, lost = ((((other - real.astype(np.float32)) ** 2) * kept).sum() for other in (mean, reconstructed))
    return float(1 - lost / whole) if whole else float("nan")


def _clips(loaded: LoadedRun, begin: list[int], steps: int, length: int, seed: int) -> tuple[np.ndarray, ...]:
    """What is compared, for clips that begin at these steps; (n, steps, ...) each, `last` (n, 1, ...)."""
    model, settings = loaded.agent.world_model, loaded.config.imagination
    real = loaded.replay.window(torch.tensor(begin) - length, length + steps)
    with looking(model, loaded.machine, seed + begin[0]):
        observed = model.observe(real.frames)
        context = Context(observed.latent[:, :length], real.actions[:, :length])
        rollout = replayed(model, context, real.actions[:, length:], settings.memory)
        latents, hidden = rollout.states.split([model.latent, model.config.width], -1)
        seen = observed.posterior[:, length:]
        kl = kl_categorical(seen, model.prior(hidden[:, :-1]))
        imagined = [pictures(row) for row in model.decode(latents[:, :-1])]
        reconstructed = [pictures(row) for row in model.decode(observed.latent[:, length:])]
        ending = model.termination(hidden[:, 1:]).squeeze(-1).float().sigmoid()
        memory = model.remember(context, settings.memory)  # of which every real step is read before the next one
        tokens = model.tokens(observed.latent[:, length:], real.actions[:, length:]).unbind(1)
        looked = torch.stack([memory.hidden, *(memory.read(token) for token in tokens[:-1])], 1)
        looking_kl = kl_categorical(seen, model.prior(looked))
    frames = real.frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    numbers = (kl, looking_kl, real.rewards[:, length:], rollout.rewards, real.terminations[:, length:], ending)
    plain = (part.float().cpu().numpy() for part in numbers)
    return frames[:, length:], np.stack(imagined), np.stack(reconstructed), frames[:, length - 1 : length], *plain
