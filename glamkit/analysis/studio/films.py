"""A moving picture of a world model at work: real, reconstructed and imagined frames of the same steps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from glamkit.analysis.rollouts import looking, pictures, real_steps, replayed
from glamkit.config import ImaginationConfig, coerce
from glamkit.errors import GlamkitError
from glamkit.models.world_model import WorldModel
from glamkit.plotting import count
from glamkit.runs.files import make_folder, replace
from glamkit.runtime import Machine
from glamkit.training.replay import Replay

SIDE = 128  # pixels of a frame, enlarged
GAP = 8  # pixels between frames
CAPTION = 16  # pixels below, for the words
PAUSE = 70  # milliseconds a picture: an agent step of Atari, 4 frames of 60 a second, as near as GIFs can
COLOURS = 48  # of 256, or noise would make the file large
TOGETHER = 32  # dreams at a time


class SideBySide(NamedTuple):
    """The same n steps three times, (n, size, size, 3) uint8 each; a frame is imagined `ahead` steps ahead."""

    real: np.ndarray
    reconstructed: np.ndarray
    imagined: np.ndarray
    ahead: int


def film(
    model: WorldModel,
    replay: Replay,
    machine: Machine,
    config: ImaginationConfig,
    start: int,
    length: int,
    ahead: int = 5,
    seed: int = 0,
) -> SideBySide:
    """Every frame of a stretch of play as it is, as it is reconstructed, and as it was imagined some steps before.

    For each frame a dream of its own sees `config.context_length` real steps, the last of them `ahead` steps before,
    and goes on under the actions that were really taken.

    Args:
        model: the world model.
        replay: where the real steps are.
        machine: where the model computes.
        config: how it imagines: context length and memory.
        start: number of the first step that is shown.
        length: n, steps shown.
        ahead: steps between the last frame that a dream has seen and the one it shows.
        seed: of the draws from the prior.

    Raises:
        GlamkitError: a number is out of range, or these steps, or those before them, are not in the replay.
    """
    for name, value in (("length", length), ("ahead", ahead)):
        if coerce(name, value, int) < 1:
            raise GlamkitError(f"{name} = {value} is outside its range: at least 1.")
    seen = config.context_length
    before = seen + ahead - 1
    frames = real_steps(replay, start - before, before + length).frames[0, before:]
    imagined, reconstructed = [], []
    with looking(model, machine, seed):
        for some in torch.arange(start - before, start - before + length).split(TOGETHER):
            steps = replay.window(some, before + 1)
            context = model.context(steps.frames[:, :seen], steps.actions[:, :seen])
            rollout = replayed(model, context, steps.actions[:, seen:], config.memory)
            imagined.append(pictures(model.decode(rollout.states[:, ahead - 1, : model.latent])))
            reconstructed.append(pictures(model.decode(model.observe(steps.frames[:, -1:]).latent[:, 0])))
    real = frames.permute(0, 2, 3, 1).cpu().numpy()
    return SideBySide(real, np.concatenate(reconstructed), np.concatenate(imagined), ahead)


def write(path: str | Path, shown: SideBySide, pause: int = PAUSE) -> Path:
    """A film as a GIF that repeats: real | reconstructed | imagined.

    Args:
        path: of the file; its folder is made.
        shown: from `film`.
        pause: milliseconds for which each picture stands.

    Raises:
        GlamkitError: it cannot be written there.
    """
    path = Path(path)
    make_folder(path.parent)
    words = ("real", "reconstructed", f"imagined {count(shown.ahead, 'step')} ahead")
    side = SIDE // shown.real.shape[1] * shown.real.shape[1] or shown.real.shape[1]
    images = [
        labelled(trio, words, side).quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for trio in zip(shown.real, shown.reconstructed, shown.imagined, strict=True)
    ]
    settings = {"save_all": True, "append_images": images[1:], "duration": pause, "loop": 0}
    replace(path, lambda file: images[0].save(file, "GIF", **settings))
    return path


def labelled(
    pictures: Sequence[np.ndarray], words: Sequence[str], side: int, bars: Sequence[str] | None = None
) -> Image.Image:
    """Pictures (size, size, 3) uint8 beside each other, enlarged to `side` pixels, each above its words.

    With `bars` there is room for a line in white on black between each picture and its words; empty ones stay white.
    """
    high = side if bars is None else side + CAPTION
    canvas = Image.new("RGB", (len(words) * (side + GAP) - GAP, high + CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        left = place * (side + GAP)
        canvas.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (left, 0))
        draw.text((left + 2, high + 2), word, fill="black")
        if bars and bars[place]:
            draw.rectangle((left, side, left + side - 1, high - 1), fill="black", outline="gray")
            draw.text((left + 2, side + 2), bars[place], fill="white")
    return canvas
