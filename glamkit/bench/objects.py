"""Looks for a small object of an Atari game in the reconstructions and imagined rollouts of a world model.

Many games keep the position of an object in two bytes of their memory: Pong's ball in 49 and 54. From the frames of new
random play these bytes are calibrated to pixels. An object counts as visible within `NEAR` pixels of its true position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.analysis.rollouts import looking, replayed
from glamkit.config import Config, EnvConfig, at_least, coerce
from glamkit.envs.pixel_env import Atari
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.runtime import Machine
from glamkit.types import Context

NEAR = 2.0  # pixels: an object this near to its true position counts as visible
FAINT = 0.5  # of the object's usual strength: what is fainter does not count
NOISE = 20  # of 255: pixels that differ by less from the usual picture show nothing
AROUND = 3  # pixels around the object in which everything counts as the object
SCREEN = (160, 210)  # the console's pixels across and down
STEPS = (1.0, -1.0, 2.0, 0.5)  # of the console's pixels, that a byte may count in
ENOUGH = 0.5  # share of the positions that the bytes give at which frames must show something
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16  # neighbouring pixels count too
TOGETHER = 64  # clips imagined at a time


class RecordedPlay(NamedTuple):
    """N steps of random play: frames (N, size, size, 3) uint8, actions (N,), ends (N,) bool and memory (N, 128)."""

    frames: np.ndarray
    actions: np.ndarray
    ends: np.ndarray
    memory: np.ndarray


class ObjectCalibration(NamedTuple):
    """How two bytes of memory give a position in pixels, and what the object there looks like."""

    ram: tuple[int, int]  # addresses of x and y
    scale: np.ndarray  # (2,): column and row in pixels of a frame are scale * (x, y) + offset
    offset: np.ndarray  # (2,)
    usual: np.ndarray  # (size, size, 3) float32: the usual picture, the median of all frames
    colour: np.ndarray  # (3,) float32, length 1: how the object differs from it
    strength: float  # how far, in shades of 255, averaged as `BLUR` says; the median over the frames

    def places(self, memory: np.ndarray) -> np.ndarray:
        """Memory (..., 128) -> columns and rows in pixels (..., 2), which may be outside the picture."""
        return memory[..., list(self.ram)] * self.scale + self.offset

    def inside(self, memory: np.ndarray) -> np.ndarray:
        """Memory (..., 128) -> whether the position is inside the picture, (...) bool."""
        places = self.places(memory)
        return np.asarray(((places > 0) & (places < len(self.usual) - 1)).all(-1))


class VisibleShares(NamedTuple):
    """Shares of the frames with the object in play in which it is visible at its position, 0 to 1."""

    reconstructed: float
    imagined: np.ndarray  # (H,): k + 1 steps ahead, under the real actions
    counts: np.ndarray  # (1 + H,): frames that the shares are of, reconstructed ones first
    real: float  # the same measure of the real frames: what a perfect model would get


def object_seen(
    model: WorldModel,
    config: Config,
    machine: Machine,
    ram: Sequence[int] = (49, 54),
    steps: int = 2000,
    horizon: int = 5,
    seed: int = 1000,
) -> VisibleShares:
    """How often a world model shows an object of its game at its true position, on new random play.

    Args:
        model: the world model, trained on the game.
        config: of its run: the game, and how rollouts are imagined.
        machine: where it computes.
        ram: two addresses, 0 to 127, of the object's x and y in the game's memory; (49, 54) is the ball of Pong.
        steps: agent steps of random play.
        horizon: H, imagined steps.
        seed: of the random play; take another one than the training's.

    Returns:
        Shares from 0 to 1. A frame counts if the object is in play: its position is in the picture, and the real
        frame shows something there.

    Raises:
        GlamkitError: the game has no memory to read, a number is out of range, or no object follows the bytes.
    """
    length = config.imagination.context_length
    played = play(config.env, at_least("steps", steps, 2 * (length + at_least("horizon", horizon))), seed)
    return measure(model, config, machine, played, calibrate(played, ram), horizon)


def play(env: EnvConfig, steps: int, seed: int) -> RecordedPlay:
    """Plays random actions in an Atari game, and records its memory at each frame."""
    game, random, kept = make_env(env), np.random.default_rng(seed), []
    if not isinstance(game, Atari):
        raise GlamkitError(f"{env.game} has no memory to read; only Atari games have.")
    frame = game.reset(seed)
    for _ in range(steps):
        action, memory = int(random.integers(game.num_actions)), game.memory()
        outcome = game.step(action)
        kept.append((frame, action, outcome.ended, memory))
        frame = game.reset() if outcome.ended else outcome.observation
    game.close()
    return RecordedPlay(*(np.stack(column) for column in zip(*kept, strict=True)))


def calibrate(played: RecordedPlay, ram: Sequence[int]) -> ObjectCalibration:
    """Calibrates two bytes of memory to positions in pixels, or raises a GlamkitError.

    Every frame is shifted so that the object would stay in place; with the right scales their sum has the highest peak.
    """
    if len(ram) != 2 or not all(0 <= coerce("ram", address, int) < played.memory.shape[1] for address in ram):
        raise GlamkitError(f"ram = {ram} is not two addresses from 0 to {played.memory.shape[1] - 1}.")
    usual = np.median(played.frames, 0).astype(np.float32)
    gaps = played.frames - usual
    size, bytes_ = played.frames.shape[1], played.memory[:, list(ram)].astype(np.float64)
    _, first = np.unique(bytes_, axis=0, return_index=True)  # a place once, or where it is parked would count most
    moving, placed = np.abs(gaps[first]).sum(-1), bytes_[first]
    moving[moving < NOISE] = 0
    scales = [[step * size / side for step in STEPS] for side in SCREEN]
    found = [(np.array(pair), *_aligned(moving, placed, np.array(pair))) for pair in product(*scales)]
    scale, offset, _ = max(found, key=lambda one: one[2])
    calibration = ObjectCalibration((int(ram[0]), int(ram[1])), scale, offset, usual, np.ones(3, np.float32), 0.0)
    there, inside = in_play_frames(played, calibration), calibration.inside(played.memory)
    if not inside.any() or there.sum() < ENOUGH * inside.sum():
        raise GlamkitError(f"nothing on the frames follows the bytes {ram[0]} and {ram[1]} of the game's memory.")
    column, row = calibration.places(played.memory[there]).round().astype(int).T
    colour = gaps[there, row, column].mean(0)
    calibration = calibration._replace(colour=(colour / np.linalg.norm(colour)).astype(np.float32))
    result = F.max_pool2d(similarity(torch.from_numpy(played.frames[there]), calibration).unsqueeze(1), 3, 1, 1)
    return calibration._replace(strength=float(result[torch.arange(len(row)), 0, row, column].median()))


def _aligned(moving: np.ndarray, placed: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums frames, shifted so that the object stays in place: the offset (2,) of its place, and the sum's maximum."""
    shifts = np.round(placed * scale).astype(int)
    last, size = shifts.max(0), moving.shape[1]
    wide, high = last - shifts.min(0) + size
    canvas = np.zeros((high, wide), np.float32)
    for frame, (x, y) in zip(moving, last - shifts, strict=True):
        canvas[y : y + size, x : x + size] += frame
    row, column = np.unravel_index(int(canvas.argmax()), canvas.shape)
    top, left = max(0, row - AROUND), max(0, column - AROUND)
    near = canvas[top : row + AROUND + 1, left : column + AROUND + 1]
    rows, columns = np.indices(near.shape)
    weights = near - near.min() + 1e-6  # above 0 even where nothing moves
    centre = np.average(columns, weights=weights) + left, np.average(rows, weights=weights) + top
    return np.array(centre) - last, float(canvas.max())


def similarity(frames: Tensor, calibration: ObjectCalibration) -> Tensor:
    """How much the 3 x 3 pixels around each pixel of frames (n, size, size, 3) look like the object, 0 to 255."""
    gaps = frames.float() - torch.from_numpy(calibration.usual)
    along = (gaps @ torch.from_numpy(calibration.colour)).clamp(min=0)
    return F.conv2d(along.unsqueeze(1), BLUR, padding=1).squeeze(1)


def is_visible(pictured: Tensor, real: Tensor, places: Tensor, calibration: ObjectCalibration) -> Tensor:
    """Whether pictures (n, size, size, 3) of 0 to 255 show the object near its true columns and rows (n, 2), (n,) bool.

    It is where 3 x 3 pixels look most like it. Pixels where the `real` frames of the same steps show other objects are
    left out.
    """
    size = real.shape[1]
    grid = torch.arange(size)
    far = (grid.view(1, 1, -1) - places[:, :1, None]).square() + (grid.view(1, -1, 1) - places[:, 1:, None]).square()
    other = ((real.float() - torch.from_numpy(calibration.usual)).abs().amax(-1) > NOISE) & (far > AROUND**2)
    hidden = F.max_pool2d(other.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0
    strength, peak = similarity(pictured, calibration).masked_fill(hidden, 0).flatten(1).max(1)
    at = torch.stack([peak % size, peak // size], 1)
    return (strength > FAINT * calibration.strength) & ((at - places).square().sum(1) <= NEAR**2)


def measure(
    model: WorldModel, config: Config, machine: Machine, played: RecordedPlay, known: ObjectCalibration, horizon: int
) -> VisibleShares:
    """As `object_seen`, on random play that is already recorded and calibrated."""
    length, count = config.imagination.context_length, len(played.actions)
    frames, actions, ends = (torch.from_numpy(part) for part in (played.frames, played.actions, played.ends))
    places = torch.from_numpy(known.places(played.memory)).float()
    in_play = torch.from_numpy(in_play_frames(played, known))
    episode = ends.long().cumsum(0) - ends.long()
    hits, counts = torch.zeros(2, horizon), torch.zeros(2, horizon)  # reconstructed, imagined
    for starts in torch.arange(length, count - horizon + 1, horizon).split(TOGETHER):
        steps = starts[:, None] + torch.arange(-length, horizon)
        at, given = steps[:, length:], actions[steps].to(machine.device)
        with looking(model, machine, int(starts[0])):
            latents = model.observe(frames[steps].permute(0, 1, 4, 2, 3).to(machine.device)).latent
            context = Context(latents[:, :length], given[:, :length])
            rollout = replayed(model, context, given[:, length:], config.imagination.memory)
            imagined = model.decode(rollout.states[:, :-1, : model.latent])
            reconstructed = model.decode(latents[:, length:])
        same = episode[at] == episode[steps[:, :1]]  # nobody can predict a new game
        kinds = (reconstructed, in_play[at]), (imagined, in_play[at] & same)
        for kind, (pictures, wanted) in enumerate(kinds):
            shades = 255 * pictures.float().clamp(0, 1).cpu().permute(0, 1, 3, 4, 2)[wanted]
            right = torch.zeros(at.shape)
            right[wanted] = is_visible(shades, frames[at[wanted]], places[at[wanted]], known).float()
            hits[kind] += right.sum(0)
            counts[kind] += wanted.sum(0)
    real = is_visible(frames[in_play].float(), frames[in_play], places[in_play], known).float().mean()
    kept = hits[0].sum() / counts[0].sum().clamp(min=1)
    all_counts = torch.cat([counts[0].sum(0, keepdim=True), counts[1]]).long()
    return VisibleShares(float(kept), (hits[1] / counts[1].clamp(min=1)).numpy(), all_counts.numpy(), float(real))


def in_play_frames(played: RecordedPlay, calibration: ObjectCalibration) -> np.ndarray:
    """Which frames (N,) have the object inside the picture, and differ from the usual picture there."""
    places, size = calibration.places(played.memory), played.frames.shape[1]
    column, row = places.round().astype(int).clip(0, size - 1).T
    there = played.frames[np.arange(len(row)), row, column] - calibration.usual[row, column]
    return calibration.inside(played.memory) & (np.abs(there).max(-1) > NOISE)
