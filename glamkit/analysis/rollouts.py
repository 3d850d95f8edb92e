"""Looking into a world model, also in training: reconstructions, and dreams beside what really happened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.config import TrainerConfig
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.plotting import Picture, films
from glamkit.runtime import Machine, undisturbed
from glamkit.training.load import LoadedRun
from glamkit.training.replay import Replay
from glamkit.training.trainer import Trainer
from glamkit.types import Context, Rollout

RECENT = 2000  # steps searched for a lively scene: enough to find one, and quick
LIVELY = 0.9  # share of windows that are calmer than the one shown


class RolloutComparison(NamedTuple):
    """H real steps, and the same as the model sees and as it dreams them; pictures are (H, size, size, 3) uint8."""

    real: np.ndarray
    reconstructed: np.ndarray  # what the autoencoder keeps of each real frame
    imagined: np.ndarray  # from the real steps before the first one and the actions really taken, nothing else
    rewards: np.ndarray  # (H,) real, of the action at each frame
    predicted: np.ndarray  # (H,) the model's, in the dream


@contextlib.contextmanager
def looking(model: WorldModel, machine: Machine, seed: int) -> Iterator[None]:
    """Context in which a model in training may be looked at: its statistics and the run's random numbers stay."""
    training = model.training
    model.eval()
    try:
        with undisturbed(seed), torch.no_grad(), machine.autocast():
            yield
    finally:
        model.train(training)


def lively(replay: Replay, length: int, recent: int = RECENT) -> int:
    """First step of a lively window of `length` (at least two) of the `recent` newest steps: of ten, nine are calmer.

    The liveliest of all would show something rare. What moves in the middle of the picture counts most. Of each window
    the calmest and the middle step count: one flash must not win. Windows with an end before their last step are taken
    only where there are no others.
    """
    count = min(len(replay), RECENT, recent)
    if count < length:
        raise GlamkitError(f"the replay holds {len(replay)} steps, but {length} are needed for this picture.")
    first = replay.count - count
    steps = replay.window(torch.tensor([first]), count)
    near = 1 - torch.linspace(-1, 1, steps.frames.shape[-1], device=steps.frames.device).abs()  # 0 at the edges
    moving = (steps.frames[0].float().diff(dim=0).abs().mean(1) * near * near[:, None]).mean((1, 2))
    windows = moving.unfold(0, length - 1, 1)
    ended = steps.terminations[0, : count - 1].unfold(0, length - 1, 1).amax(1)
    allowed = (ended == ended.amin()).nonzero().flatten()
    order = allowed[(windows.amin(1) + windows.median(1).values)[allowed].argsort()]
    return first + int(order[round(LIVELY * (len(order) - 1))])


def dream(run: LoadedRun | Trainer, start: int, horizon: int, seed: int = 0) -> RolloutComparison:
    """Dreams `horizon` steps from the real ones `start` .. `start + context_length - 1`, with the recorded actions.

    The first dreamt latent is the prior's guess of the frame right after the context, so picture k of the dream stands
    beside the real frame of step `start + context_length + k`. The seed is of the draws from the prior.
    """
    model, config = run.agent.world_model, run.config.imagination
    length = config.context_length
    first, last = run.replay.oldest, run.replay.count - length - horizon
    if not first <= start <= last:
        raise GlamkitError(f"start = {start} is outside {first} to {last}: other steps are not stored.")
    steps = run.replay.window(torch.tensor([start]), length + horizon)
    with looking(model, run.machine, TrainerConfig(seed=seed).seed):
        observed = model.observe(steps.frames)
        context = Context(observed.latent[:, :length], steps.actions[:, :length])
        rollout = replayed(model, context, steps.actions[:, length:], config.memory)
        imagined = model.decode(rollout.states[:, :-1, : model.latent])
        reconstructed = model.decode(observed.latent[:, length:])
    frames = steps.frames[0].permute(0, 2, 3, 1).cpu().numpy()
    return RolloutComparison(
        frames[length:],
        pictures(reconstructed[0]),
        pictures(imagined[0]),
        steps.rewards[0, length:].cpu().numpy(),
        rollout.rewards[0].float().cpu().numpy(),
    )


def dream_beside_truth(dream: RolloutComparison) -> Picture:
    """Real frames, what the autoencoder keeps of them, and the imagined ones of the same steps, rewards below."""
    rows = {"real": dream.real, "reconstructed": dream.reconstructed, "imagined": dream.imagined}
    pairs = zip(dream.rewards, dream.predicted, strict=True)
    captions = [f"+{ahead}\n{real:+g}\n{guess:+.2f}" for ahead, (real, guess) in enumerate(pairs, 1)]
    title = "Imagined beside real\nthe model sees the frames before these, and the actions"
    return films(rows, captions, "steps ahead\nreal reward\nimagined reward", title)


def replayed(model: WorldModel, context: Context, actions: Tensor, memory: str) -> Rollout:
    """Dreams on from contexts with given actions (N, H), whatever a policy would do."""
    given = iter(actions.unbind(1))
    return model.imagine(lambda _: next(given), context, actions.shape[1], memory)


def pictures(decoded: Tensor) -> np.ndarray:
    """Decoded pictures (n, 3, size, size), about [0, 1] -> (n, size, size, 3) uint8."""
    return (decoded.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
