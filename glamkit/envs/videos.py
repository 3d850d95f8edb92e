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
from PIL import Image, ImageDraw

from glamkit.config import EnvConfig
from glamkit.envs.registry import is_atari, make_env
from glamkit.errors import GlamkitError, reason
from glamkit.runs import files

SIDE = 160  # pixels: of Atari's 160 x 210, so sharper than what the agent sees
CAPTION = 16  # pixels below, for the words
LONGEST = 600  # pictures in a video: of longer episodes every second, third, .. step is shown
FRAMES = 60  # an Atari console draws a second
SHORTEST = 20.0  # milliseconds a picture: browsers show shorter ones for 100
logger = logging.getLogger(__name__)


class Episode(NamedTuple):
    """One finished episode, fixed by its seed and actions.

    Attributes:
        score: undiscounted raw return.
        seed: the game's.
        actions: (length,) taken.
        cut: whether it was stopped before its end.
    """

    score: float
    seed: int
    actions: np.ndarray
    cut: bool

    @property
    def length(self) -> int:
        """Agent steps."""
        return len(self.actions)


def choose(episodes: Sequence[Episode]) -> dict[str, int]:
    """Which episodes to show: the best, the median (the lower of two middle ones) and the worst."""
    order = sorted(range(len(episodes)), key=lambda number: episodes[number].score)
    return {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}


def record(config: EnvConfig, no_ops: int, episodes: Sequence[Episode], film: Path) -> dict[str, dict[str, Any]]:
    """Writes ``<film>-best.gif``, ``-median`` and ``-worst``; what is one episode is one file.

    Returns:
        For each the ``file`` (a name beside `film`) and the ``episode`` it shows, a place in `episodes`. An episode
        that does not come out the same when played again, as in a game with randomness of its own, is left out.
        So is one whose file cannot be written: scores must not be lost for want of a picture.
    """
    made: dict[int, str | None] = {}  # by episode; None for one that cannot be shown
    for name, number in choose(episodes).items():
        path = film.with_name(f"{film.name}-{name}.gif")
        files.remove(path)  # of an earlier evaluation
        if number in made:
            continue
        made[number] = None
        try:
            write(path, config, no_ops, episodes[number], f"{name} of {len(episodes)}")
        except Exception as error:  # the disk is full, or the game has crashed
            logger.warning("There is no video of an episode of %s: %s.", config.game, reason(error))
        else:
            made[number] = path.name
    return {name: {"file": made[n], "episode": n} for name, n in choose(episodes).items() if made[n]}


def replay(config: EnvConfig, no_ops: int, episode: Episode, side: int = SIDE) -> Iterator[tuple[np.ndarray, float]]:
    """The frames (side, side, 3) uint8 of an episode, each with the return so far; one at a time, to save memory."""
    with contextlib.closing(make_env(replace(config, image_size=side), no_ops)) as env:
        score = 0.0
        yield env.reset(episode.seed), score
        for action in episode.actions.tolist():
            outcome = env.step(action)
            score += outcome.reward
            yield outcome.observation, score


def write(path: Path, config: EnvConfig, no_ops: int, episode: Episode, title: str) -> None:
    """An episode as an animated GIF at the game's own speed, or faster if it is long.

    Raises:
        GlamkitError: played again it has another return, or the file cannot be written.
        Exception: whatever the game raises.
    """
    every = -(-(episode.length + 1) // LONGEST)
    speed = f", {every} x speed" if every > 1 else ""
    pictures, score = [], 0.0
    for step, (frame, score) in enumerate(replay(config, no_ops, episode)):
        if step % every == 0 or step == episode.length:
            pictures.append(captioned(frame, f"{title}: {score:g}{speed}"))
    if score != episode.score:
        raise GlamkitError(f"its return was {episode.score:g}, and played again it had {score:g}.")
    pause = max(SHORTEST, 1000 * config.frame_skip / FRAMES) if is_atari(config.game) else 100.0
    shown = [*delays(len(pictures) - 1, pause), 1500]  # milliseconds; the end is held
    files.make_folder(path.parent)
    options = {"save_all": True, "append_images": pictures[1:], "duration": shown, "loop": 0}
    files.replace(path, lambda file: pictures[0].save(file, "GIF", **options))


def delays(count: int, pause: float) -> list[int]:
    """Milliseconds of each of so many pictures that last `pause` on average; a GIF holds hundredths of a second."""
    ends = [10 * round(pause * number / 10) for number in range(count + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def captioned(frame: np.ndarray, words: str) -> Image.Image:
    """A frame with words below, in few colours: what a GIF holds."""
    side = frame.shape[0]
    canvas = Image.new("RGB", (side, side + CAPTION))
    canvas.paste(Image.fromarray(frame), (0, 0))
    ImageDraw.Draw(canvas).text((3, side + 2), words, fill="white")
    return canvas.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
