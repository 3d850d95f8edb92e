"""Is it there? A small object of an Atari game looked for in what a world model sees and dreams.

Many games keep where a thing is in two bytes of their memory: Pong's ball in 49 and 54. Fresh random play is recorded
with that memory beside the frames. On these frames the bytes are calibrated to pixels; then the object is looked for in
reconstructions, and in dreams under the actions that were taken. It counts as seen within `NEAR` pixels of the truth.
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
from glamkit.config import Config, EnvConfig, ReplayConfig, coerce
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.runtime import Machine
from glamkit.training.replay import Replay
from glamkit.types import Context

NEAR = 2.0  # pixels: a decoded object this near to the truth is seen
FAINT = 0.5  # of the object's usual strength: what is fainter does not count
NOISE = 20  # of 255: pixels that depart by less from the usual picture show nothing
AROUND = 3  # pixels about the object in which other things count as it
SCREEN = (160, 210)  # the console's pixels across and down
STEPS = (1.0, -1.0, 2.0, 0.5)  # of the console's pixels, that a byte may count in
ENOUGH = 0.5  # of the places that the bytes tell, where the frames must show something
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16  # what is about a pixel counts too
TOGETHER = 64  # clips dreamt at a time


class Play(NamedTuple):
    """N steps of random play: frames (N, size, size, 3) uint8, actions (N,), ends (N,) bool and memory (N, 128)."""

    frames: np.ndarray
    actions: np.ndarray
    ends: np.ndarray
    memory: np.ndarray


class Whereabouts(NamedTuple):
    """How two bytes of memory become a place, and what the object there looks like."""

    ram: tuple[int, int]  # addresses of x and y
    across: tuple[float, float]  # column = across[0] * x + across[1], in pixels of a frame
    down: tuple[float, float]  # row, likewise from y
    usual: np.ndarray  # (size, size, 3) float32: the usual picture, the median of all frames
    colour: np.ndarray  # (3,) float32, length 1: how the object departs from it
    strength: float  # how far, in shades of 255, averaged as `BLUR` says; the median over the frames

    def places(self, memory: np.ndarray) -> np.ndarray:
        """Memory (..., 128) -> columns and rows (..., 2), which may be outside the picture."""
        x, y = (memory[..., address].astype(np.float64) for address in self.ram)
        return np.stack([self.across[0] * x + self.across[1], self.down[0] * y + self.down[1]], -1)

    def inside(self, memory: np.ndarray, size: int) -> np.ndarray:
        """Whether that place is inside a picture of `size` pixels, (...) bool."""
        places = self.places(memory)
        return np.asarray(((places > 0) & (places < size - 1)).all(-1))


class Seen(NamedTuple):
    """Shares of frames with the object in play in which it is seen where it is."""

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
) -> Seen:
    """How often a world model shows an object of its game where it is, on fresh random play.

    Args:
        model: the world model, trained on the game.
        config: its run's config: the game, and how it dreams.
        machine: where it computes.
        ram: two addresses, 0 to 127, of the object's x and y in the game's memory; (49, 54) is the ball of Pong.
        steps: of random play, agent steps.
        horizon: H, steps that are dreamt.
        seed: of the play; not the training's.

    Returns:
        Shares from 0 to 1. A frame counts if the object is in play: its place is in the picture and the real frame
        shows something there.

    Raises:
        GlamkitError: the game has no memory to read, a number is out of range, or nothing on the frames follows the
            bytes.
    """
    length = config.imagination.context_length
    for name, value, least in (("horizon", horizon, 1), ("steps", steps, 2 * (length + horizon))):
        if coerce(name, value, int) < least:
            raise GlamkitError(f"{name} = {value} is outside its range: at least {least}.")
    played = play(config.env, steps, seed)
    known = calibrate(played, ram)
    return measure(model, config, machine, played, known, horizon)


def play(env: EnvConfig, steps: int, seed: int) -> Play:
    """Random play of an Atari game, with its memory as it is at each frame.

    Raises:
        GlamkitError: the game has no memory to read.
    """
    game, random = make_env(env), np.random.default_rng(seed)
    frame, kept = game.reset(seed), []
    for _ in range(steps):
        action, memory = int(random.integers(game.num_actions)), game.memory()
        outcome = game.step(action)
        kept.append((frame, action, outcome.ended, memory))
        frame = game.reset() if outcome.ended else outcome.observation
    game.close()
    return Play(*(np.stack(column) for column in zip(*kept, strict=True)))


def calibrate(played: Play, ram: Sequence[int]) -> Whereabouts:
    """Which place on the frames two bytes mean, by moving every frame so that the object would lie still.

    Raises:
        GlamkitError: these are not two addresses, or nothing on the frames follows the bytes.
    """
    if len(ram) != 2 or not all(0 <= coerce("ram", address, int) < played.memory.shape[1] for address in ram):
        raise GlamkitError(f"ram = {ram} is not two addresses from 0 to {played.memory.shape[1] - 1}.")
    usual = np.median(played.frames, 0).astype(np.float32)
    gaps = played.frames - usual
    size, bytes_ = played.frames.shape[1], played.memory[:, list(ram)].astype(np.float64)
    _, first = np.unique(bytes_, axis=0, return_index=True)  # a place once, or where it is parked would count most
    moving, placed = np.abs(gaps[first]).sum(-1), bytes_[first]
    moving[moving < NOISE] = 0
    pairs = product(*([step * size / side for step in STEPS] for side in SCREEN))
    (_, offsets), scales = max(
        ((_still(moving, placed, pair), pair) for pair in pairs), key=lambda result: result[0][0]
    )
    lines = [(scale, offset) for scale, offset in zip(scales, offsets, strict=True)]
    for _ in range(3):
        lines = _refined(moving, placed, lines)
    known = Whereabouts((int(ram[0]), int(ram[1])), lines[0], lines[1], usual, np.ones(3, np.float32), 0.0)
    there, inside = shown(played, known), known.inside(played.memory, size)
    if not inside.any() or there.sum() < ENOUGH * inside.sum():
        raise GlamkitError(f"nothing on the frames follows the bytes {ram[0]} and {ram[1]} of the game's memory.")
    column, row = known.places(played.memory[there]).round().astype(int).T
    colour = gaps[there, row, column].mean(0)
    known = known._replace(colour=(colour / np.linalg.norm(colour)).astype(np.float32))
    result = F.max_pool2d(strengths(torch.from_numpy(played.frames[there]), known).unsqueeze(1), 3, 1, 1)
    return known._replace(strength=float(result[torch.arange(len(row)), 0, row, column].median()))


def _still(moving: np.ndarray, placed: np.ndarray, scales: tuple[float, float]) -> tuple[float, tuple[float, float]]:
    """Sums frames up, moved so that the object lies still: how bright it gets, and where that is (column, row)."""
    shifts = np.round(placed * scales).astype(int)
    low, size = shifts.min(0), moving.shape[1]
    wide, high = (shifts - low).max(0) + size
    canvas = np.zeros((high, wide), np.float32)
    for frame, (x, y) in zip(moving, shifts.max(0) - shifts, strict=True):
        canvas[y : y + size, x : x + size] += frame
    row, column = np.unravel_index(int(canvas.argmax()), canvas.shape)
    top = shifts.max(0)
    return float(canvas.max()), (float(column - top[0]), float(row - top[1]))


def _refined(moving: np.ndarray, placed: np.ndarray, lines: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lines fitted again by least squares to the centres of what is near the places they tell."""
    size, centres, kept = moving.shape[1], [], []
    for frame, at in zip(moving, placed, strict=True):
        column, row = (round(scale * value + offset) for (scale, offset), value in zip(lines, at, strict=True))
        if not (AROUND <= column < size - AROUND and AROUND <= row < size - AROUND):
            continue
        part = frame[row - AROUND : row + AROUND + 1, column - AROUND : column + AROUND + 1]
        if part.any():
            rows, columns = np.indices(part.shape)
            centres.append([(part * n).sum() / part.sum() - AROUND + at for n, at in ((columns, column), (rows, row))])
            kept.append(at)
    if len(kept) < 2:
        return list(lines)
    fitted = []
    for axis, line in enumerate(lines):
        bytes_, centre = np.array(kept)[:, axis], np.array(centres)[:, axis]
        near = np.abs(line[0] * bytes_ + line[1] - centre) < 1
        if near.sum() < 2 or np.ptp(bytes_[near]) == 0:
            fitted.append(line)
            continue
        scale, offset = np.polyfit(bytes_[near], centre[near], 1)
        fitted.append((float(scale), float(offset)))
    return fitted


def strengths(frames: Tensor, known: Whereabouts) -> Tensor:
    """How strongly 3 x 3 pixels of frames (n, size, size, 3) look like the object, in shades: (n, size, size)."""
    gaps = frames.float() - torch.from_numpy(known.usual)
    along = (gaps @ torch.from_numpy(known.colour)).clamp(min=0)
    return F.conv2d(along.unsqueeze(1), BLUR, padding=1).squeeze(1)


def sighted(pictured: Tensor, real: Tensor, places: Tensor, known: Whereabouts) -> Tensor:
    """Whether pictures show the object within `NEAR` pixels of where it is, (n,) bool.

    The object is where 3 x 3 pixels look most like it, leaving out where the real frame shows other things.

    Args:
        pictured: (n, size, size, 3), in shades of 255.
        real: (n, size, size, 3) uint8, the frames that they are of.
        places: (n, 2) true columns and rows.
        known: from `calibrate`.
    """
    size = real.shape[1]
    grid = torch.arange(size)
    far = (grid.view(1, 1, -1) - places[:, :1, None]).square() + (grid.view(1, -1, 1) - places[:, 1:, None]).square()
    other = ((real.float() - torch.from_numpy(known.usual)).abs().amax(-1) > NOISE) & (far > AROUND**2)
    hidden = F.max_pool2d(other.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0
    strength, peak = strengths(pictured, known).masked_fill(hidden, 0).flatten(1).max(1)
    at = torch.stack([peak % size, peak // size], 1)
    return (strength > FAINT * known.strength) & ((at - places).square().sum(1) <= NEAR**2)


def measure(
    model: WorldModel, config: Config, machine: Machine, played: Play, known: Whereabouts, horizon: int
) -> Seen:
    """As `object_seen`, on play that is there already."""
    length, count = config.imagination.context_length, len(played.actions)
    frames, places = torch.from_numpy(played.frames), torch.from_numpy(known.places(played.memory)).float()
    in_play = torch.from_numpy(shown(played, known))
    replay = Replay(ReplayConfig(capacity=max(count, 64)), frames.shape[1], machine.device)
    for frame, action, end in zip(played.frames, played.actions, played.ends, strict=True):
        replay.add(frame, int(action), 0.0, bool(end))
    episode = torch.from_numpy(played.ends).long().cumsum(0) - torch.from_numpy(played.ends).long()
    hits, counts = torch.zeros(1 + horizon), torch.zeros(1 + horizon)
    for starts in torch.arange(length, count - horizon + 1, horizon).split(TOGETHER):
        steps = replay.window(starts - length, length + horizon)
        with looking(model, machine, int(starts[0])):
            latents = model.observe(steps.frames).latent
            context = Context(latents[:, :length], steps.actions[:, :length])
            rollout = replayed(model, context, steps.actions[:, length:], config.imagination.memory)
            imagined = model.decode(rollout.states[:, :-1, : model.latent])
            reconstructed = model.decode(latents[:, length:])
        at = starts[:, None] + torch.arange(horizon)
        same = episode[at] == episode[starts - length, None]  # nobody can predict a new game
        for pictures, wanted in ((reconstructed, in_play[at]), (imagined, in_play[at] & same)):
            shades = 255 * pictures.float().clamp(0, 1).cpu().permute(0, 1, 3, 4, 2)[wanted]
            right = torch.zeros(at.shape)
            right[wanted] = sighted(shades, frames[at[wanted]], places[at[wanted]], known).float()
            if pictures is imagined:
                hits[1:], counts[1:] = hits[1:] + right.sum(0), counts[1:] + wanted.sum(0)
            else:
                hits[0], counts[0] = hits[0] + right.sum(), counts[0] + wanted.sum()
    real = sighted(frames[in_play].float(), frames[in_play], places[in_play], known).float().mean()
    shares = (hits / counts.clamp(min=1)).numpy()
    return Seen(float(shares[0]), shares[1:], counts.long().numpy(), float(real))


def shown(played: Play, known: Whereabouts) -> np.ndarray:
    """Frames with the object in play, (N,) bool: its place is inside the picture, and something is seen there."""
    places, size = known.places(played.memory), played.frames.shape[1]
    column, row = places.round().astype(int).clip(0, size - 1).T
    there = played.frames[np.arange(len(row)), row, column] - known.usual[row, column]
    return known.inside(played.memory, size) & (np.abs(there).max(-1) > NOISE)
