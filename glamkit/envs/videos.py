"""Episodes played again from their seed and actions, as animated pictures that any browser and notebook shows."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from glamkit.config import EnvConfig
from glamkit.envs.registry import is_atari, make_env
from glamkit.errors import GlamkitError, reason
from glamkit.runs import files

SIDE = 160  # pixels: of Atari's 160 x 210, so sharper than what the agent sees
LONGEST = 600  # pictures in a video: of longer episodes every second, third, .. step is shown
FRAMES = 60  # an Atari console draws a second
logger = logging.getLogger(__name__)


class Episode(NamedTuple):
    """One finished episode, fixed by its seed and actions."""

    score: float  # undiscounted raw return
    seed: int
    actions: np.ndarray  # (length,)
    cut: bool  # stopped before its end

    @property
    def length(self) -> int:
        """Agent steps."""
        return len(self.actions)


def record(config: EnvConfig, no_ops: int, episodes: Sequence[Episode], film: Path) -> dict[str, dict[str, Any]]:
    """Writes ``<film>-best.gif``, ``-median`` and ``-worst``; what is one episode is one file.

    Returns for each its ``file``, beside `film`, and its ``episode``, a place in `episodes`. One that cannot be shown
    is left out: scores must not be lost for want of a picture.
    """
    order = sorted(range(len(episodes)), key=lambda number: episodes[number].score)
    chosen = {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}
    made: dict[int, str | None] = {}  # by episode; None for one that cannot be shown
    for name, number in chosen.items():
        path = film.with_name(f"{film.name}-{name}.gif")
        files.remove(path)  # of an earlier evaluation
        if number in made:
            continue
        made[number] = None
        try:
            write(path, config, no_ops, episodes[number])
        except Exception as error:  # the disk is full, or the game has crashed
            logger.warning("There is no video of an episode of %s: %s.", config.game, reason(error))
        else:
            made[number] = path.name
    return {name: {"file": made[n], "episode": n} for name, n in chosen.items() if made[n]}


def replay(config: EnvConfig, no_ops: int, episode: Episode, side: int = SIDE) -> Iterator[tuple[np.ndarray, float]]:
    """The frames (side, side, 3) uint8 of an episode, each with the return so far; one at a time, to save memory."""
    with contextlib.closing(make_env(replace(config, image_size=side), no_ops)) as env:
        score = 0.0
        yield env.reset(episode.seed), score
        for action in episode.actions.tolist():
            outcome = env.step(action)
            score += outcome.reward
            yield outcome.observation, score


def write(path: Path, config: EnvConfig, no_ops: int, episode: Episode) -> None:
    """An episode as an animated GIF at the game's own speed, or faster if it is long."""
    every = -(-(episode.length + 1) // LONGEST)
    pictures, score = [], 0.0
    for step, (frame, score) in enumerate(replay(config, no_ops, episode)):  # noqa: B007
        if step % every == 0 or step == episode.length:
            picture = Image.fromarray(frame)
            pictures.append(picture.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    if score != episode.score:
        raise GlamkitError(f"its return was {episode.score:g}, and played again it had {score:g}.")
    pause = 1000 * config.frame_skip / FRAMES if is_atari(config.game) else 100.0
    shown = [*delays(len(pictures) - 1, pause), 1500]  # milliseconds; the end is held
    files.make_folder(path.parent)
    options = {"save_all": True, "append_images": pictures[1:], "duration": shown, "loop": 0}
    files.replace(path, lambda file: pictures[0].save(file, "GIF", **options))


def delays(count: int, pause: float) -> list[int]:
    """Milliseconds of each of so many pictures that last `pause` on average; a GIF holds hundredths of a second."""
    ends = [10 * round(pause * number / 10) for number in range(count + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]
