"""Open loop against the truth: how long a dream stays near what really happened, given the actions really taken.

From many starts at once the model sees a few real steps and dreams on with the recorded actions. At each step ahead
the dream is compared with the real step, and with what easier guesses would have got. Steps after a real termination
are not counted: what comes after an end is a new game, which nobody can foresee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glamkit.analysis.rollouts import looking, pictures, replayed
from glamkit.analysis.starts import Start, find_starts
from glamkit.config import ImaginationConfig, coerce
from glamkit.errors import GlamkitError
from glamkit.ops.functional import kl_categorical
from glamkit.training.load import LoadedRun
from glamkit.types import Context

TOGETHER = 16  # clips dreamt at a time: their decoded frames stay small
HALF = 0.5  # a dream is usable while it knows more than this share of what can be known
DRAWS = 400  # of clips, for the interval of the usable horizon


@dataclass(frozen=True)
class Curve:
    """One measure against the horizon: (N, H) values per clip, NaN where a step is not counted."""

    name: str
    unit: str
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(H,) over the clips; NaN where none is left."""
        kept = ~np.isnan(self.values)
        sums, counts = np.where(kept, self.values, 0).sum(0), kept.sum(0)
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)

    @property
    def reach(self) -> np.ndarray:
        """(H,) half the width of the mean's 95 % interval (normal, over clips)."""
        counts = (~np.isnan(self.values)).sum(0)
        squares = np.nansum((self.values - self.mean) ** 2, 0)
        spread = np.sqrt(np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=counts > 1))
        return 1.96 * np.divide(spread, np.sqrt(np.maximum(counts, 1)))


@dataclass(frozen=True)
class OpenLoop:
    """N clips of H steps: real, reconstructed and imagined, and how far apart they are.

    Pixel errors are root mean squares in % of the full range of a pixel.
    """

    starts: list[Start]
    real: np.ndarray  # (N, H, size, size, 3) uint8
    imagined: np.ndarray
    counted: np.ndarray  # (N, H) bool: the episode has not ended before this step
    pixels: dict[str, Curve]  # imagined, reconstructed, still (the last frame seen), wrong (another clip's frames)
    latents: dict[str, Curve]  # imagined, and looking: with every frame before it seen
    rewards: dict[str, Curve]  # imagined, and never: expecting none
    terminations: dict[str, Curve]  # imagined, and never

    @property
    def horizon(self) -> int:
        """H."""
        return self.real.shape[1]

    def share(self, clips: np.ndarray | None = None) -> np.ndarray:
        """(H,) share of what can be known about the frames that the dreams know, over all clips or these.

        1 is as good as a reconstruction of the real frame, 0 as bad as a dream of some other moment. Errors are
        averaged before they are divided, as single ones may be near zero.
        """
        rows = np.arange(len(self.starts)) if clips is None else clips
        dreamt, best, wrong = (self.pixels[name].values[rows] for name in ("imagined", "reconstructed", "wrong"))
        counts = (~np.isnan(dreamt)).sum(0)
        lost, known = np.nansum(dreamt - best, 0), np.nansum(wrong - best, 0)
        return np.divide(known - lost, known, out=np.full(len(counts), -np.inf), where=(counts > 0) & (known > 0))

    @property
    def usable(self) -> int:
        """The usable horizon: steps ahead up to which the dream knows more than half of what can be known."""
        return _leading(self.share())

    @property
    def usable_range(self) -> tuple[int, int]:
        """95 % interval of the usable horizon: what other clips like these would have given (bootstrap)."""
        rng, number = np.random.default_rng(0), len(self.starts)
        found = [_leading(self.share(rng.integers(number, size=number))) for _ in range(DRAWS)]
        low, high = np.quantile(found, (0.025, 0.975), method="nearest")
        return int(low), int(high)

    @property
    def beyond(self) -> np.ndarray:
        """(N,): each clip's mean error beyond that of its reconstruction; -inf for one of which nothing is counted."""
        beyond = self.pixels["imagined"].values - self.pixels["reconstructed"].values
        return np.array([np.nanmean(row) if (~np.isnan(row)).any() else -np.inf for row in beyond])

    def worst(self, count: int = 4) -> list[int]:
        """Clips whose dreams went wrong most, worst first."""
        return np.argsort(-self.beyond)[:count].tolist()

    def failures(self, count: int = 4) -> list[Start]:
        """The starts of the worst clips, to dream from."""
        steps = [self.starts[clip].step for clip in self.worst(count)]
        return [Start(step, f"worst clip {rank}, step {step:,}") for rank, step in enumerate(steps, 1)]

    def typical(self) -> int:
        """The clip to show for all: the median by what went wrong, of those that are counted as long as most."""
        counts = self.counted.sum(1)
        long = np.flatnonzero(counts >= np.median(counts))
        order = long[np.argsort(self.beyond[long])]
        return int(order[len(order) // 2])


def _leading(share: np.ndarray) -> int:
    below = np.flatnonzero(~(share > HALF))
    return int(below[0]) if len(below) else len(share)


def measure_open_loop(
    opened: LoadedRun,
    horizon: int = 15,
    count: int = 48,
    seed: int = 0,
    context: int | None = None,
    chosen: Sequence[Start] | None = None,
) -> OpenLoop:
    """Dreams from many starts, and compares.

    Args:
        opened: the run.
        horizon: H, steps of each clip.
        count: of random starts.
        seed: of starts and draws.
        context: real steps seen before each; None takes as many as in training.
        chosen: these starts instead of random ones.

    Raises:
        GlamkitError: fewer real steps are stored than this needs.
    """
    steps, count = coerce("horizon", horizon, int), coerce("count", count, int)
    for name, value, least in (("horizon", steps, 1), ("count", count, 2)):
        if value < least:
            raise GlamkitError(f"{name} = {value} is outside its range: at least {least}.")
    length = opened.config.imagination.context_length if context is None else coerce("context", context, int)
    found = list(chosen) if chosen is not None else find_starts(opened, "random", count, seed, length, steps)
    if len(found) < 2:
        raise GlamkitError(f"{len(found)} start is too few to compare dreams with; at least 2 are needed.")
    torn = [found[i : i + TOGETHER] for i in range(0, len(found), TOGETHER)]
    parts = [_clips(opened, [start.step for start in some], steps, length, seed) for some in torn]
    real, imagined, reconstructed, last, kl, looking_kl, rewards, said, ends, ending = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    counted = np.cumsum(ends, 1) - ends == 0
    wrong = np.roll(imagined, 1, 0)

    def curve(name: str, unit: str, values: np.ndarray) -> Curve:
        return Curve(name, unit, np.where(counted, values, np.nan))

    rms = "RMS error, % of full range"
    pixels = {
        "imagined": curve("the dream", rms, far(imagined, real)),
        "reconstructed": curve("reconstruction: the best possible", rms, far(reconstructed, real)),
        "still": curve("the last frame seen, held still", rms, far(last, real)),
        "wrong": curve("a dream of another moment", rms, far(wrong, real)),
    }
    latents = {
        "imagined": curve("the dream", "KL, nats", kl),
        "looking": curve("with every frame before it seen", "KL, nats", looking_kl),
    }
    outcomes = {
        "imagined": curve("the dream", "mean error of the reward", np.abs(said - rewards)),
        "never": curve("expecting none", "mean error of the reward", np.abs(rewards)),
    }
    terminations = {
        "imagined": curve("the dream", "mean squared error (Brier)", (ending - ends) ** 2),
        "never": curve("expecting none", "mean squared error (Brier)", ends**2),
    }
    return OpenLoop(found, real, imagined, counted, pixels, latents, outcomes, terminations)


def far(pictured: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Root mean square difference (N, H) of frames (N, H, size, size, 3), in % of the full range."""
    gap = (pictured.astype(np.float32) - real) / 2.55
    return np.sqrt((gap**2).mean((2, 3, 4)))


def _clips(opened: LoadedRun, begin: list[int], steps: int, length: int, seed: int) -> tuple[np.ndarray, ...]:
    """What is compared, for clips that begin at these steps; (n, steps, ...) each, `last` (n, 1, ...)."""
    model, settings = opened.agent.world_model, opened.config.imagination
    real = opened.replay.window(torch.tensor(begin) - length, length + steps)
    with looking(model, opened.machine, seed + begin[0]):
        observed = model.observe(real.frames)
        context = Context(observed.latent[:, :length], real.actions[:, :length])
        rollout = replayed(model, context, real.actions[:, length:], settings.memory)
        latents, hidden = rollout.states.split([model.latent, model.config.width], -1)
        seen = observed.posterior[:, length:]
        kl = kl_categorical(seen, model.prior(hidden[:, :-1]))
        imagined = [pictures(row) for row in model.decode(latents[:, :-1])]
        reconstructed = [pictures(row) for row in model.decode(observed.latent[:, length:])]
        ending = model.termination(hidden[:, 1:]).squeeze(-1).float().sigmoid()
        looked = _looking(opened, observed.latent, real.actions, length, settings)
        looking_kl = kl_categorical(seen, model.prior(looked))
    frames = real.frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    numbers = (kl, looking_kl, real.rewards[:, length:], rollout.rewards, real.terminations[:, length:], ending)
    plain = (part.float().cpu().numpy() for part in numbers)
    return frames[:, length:], np.stack(imagined), np.stack(reconstructed), frames[:, length - 1 : length], *plain


def _looking(opened: LoadedRun, latents: Tensor, actions: Tensor, length: int, settings: ImaginationConfig) -> Tensor:
    """Hidden states (n, H, D) before each step from `length` on, all real steps before it having been seen."""
    model = opened.agent.world_model
    memory = model.remember(Context(latents[:, :length], actions[:, :length]), settings.memory)
    tokens = model.tokens(latents[:, length:], actions[:, length:]).unbind(1)
    return torch.stack([memory.hidden, *(memory.read(token) for token in tokens[:-1])], 1)
