"""A dream to take along: a film that repeats, as a GIF."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from glamkit.analysis.studio.compare import Beside, Counterpart
from glamkit.analysis.studio.studio import Dream
from glamkit.envs.videos import delays
from glamkit.runs import files

SPEED = 15  # frames per second: an Atari game's own, with four of its frames to a step
SIDE = 256  # pixels that an exported picture takes at least
GAP = 8  # pixels between pictures
CAPTION = 16  # pixels below, for the words


def save(dream: Dream, path: Path, beside: Sequence[Counterpart] = ()) -> None:
    """Writes the present branch as a GIF, and the folders it lies in; at once or not at all."""
    # Pillow's own choice of colours takes eight times as long, and looks no better.
    images = (
        Image.fromarray(one).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for one in frames(dream, beside)
    )
    buffer, shown = io.BytesIO(), delays(len(dream.line()), 1000 / SPEED)
    files.make_folder(path.parent)
    next(images).save(buffer, "GIF", save_all=True, append_images=images, duration=shown, loop=0)
    files.replace(path, lambda file: file.write(buffer.getvalue()))


def frames(dream: Dream, beside: Sequence[Counterpart] = ()) -> Iterator[np.ndarray]:
    """The pictures (height, width, 3) uint8 of the present branch, enlarged; each with what stands beside it."""
    for number in dream.line():
        picture, node = dream.picture(number), dream.nodes[number]
        name = f"the dream: step {node.depth}, return {node.total:+z.2f}"
        shown = [Beside(name, "", picture, node.over), *(one.at(number) for one in beside)]
        side = max(1, -(-SIDE // len(picture))) * len(picture)
        yield np.hstack([framed(one, side) for one in shown])[:, :-GAP]


def framed(shown: Beside, side: int) -> np.ndarray:
    """A picture enlarged to `side` pixels, white where there is none; below it words, which begin with END after it."""
    canvas = Image.new("RGB", (side + GAP, side + CAPTION), "white")
    words = shown.note or shown.name
    if shown.picture is None:
        words += "; nothing stored"
    else:
        canvas.paste(Image.fromarray(shown.picture).resize((side, side), Image.Resampling.NEAREST))
    ImageDraw.Draw(canvas).text((2, side + 2), f"END; {words}" if shown.over else words, fill="black")
    return np.asarray(canvas)
