"""A dream to take along: GIF, or one HTML file that plays without a kernel, a network or any other file."""

from __future__ import annotations

import base64
import html as markup
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from glamkit.analysis.studio.compare import Beside, Counterpart
from glamkit.analysis.studio.dream_tree import Node
from glamkit.analysis.studio.studio import Dream
from glamkit.envs.videos import delays
from glamkit.errors import GlamkitError
from glamkit.plotting import count
from glamkit.runs import files

SPEED = 15  # frames per second: an Atari game's own, with four of its frames to a step
SIDE = 256  # pixels that an exported picture takes at least
GAP = 8  # pixels between pictures
CAPTION = 16  # pixels below, for the words
LABEL = "the dream"
PAGE = Path(__file__).parent / "page.html"
FIGURE = '<figure><b>{name}</b><div><img alt="{name}"></div><strong></strong><figcaption></figcaption></figure>'
Others: TypeAlias = Sequence[Counterpart]  # what stands beside a dream
Follow: TypeAlias = Callable[[Collection[int]], Iterable[int]]  # passes numbers on, and may say how many are done
FUTURES = 12  # of *what if?* in an HTML file: those with the largest returns


def save(dream: Dream, path: str | Path, beside: Others = (), follow: Follow = iter) -> Path:
    """Writes a dream as ``.gif`` or ``.html``, see there, and the folders it lies in; at once or not at all.

    Raises:
        GlamkitError: the name ends otherwise, or it cannot be written there.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".gif", ".html"):
        raise GlamkitError(f"{str(path)!r} is no file for a dream; let its name end in .gif or .html.")
    files.make_folder(path.parent)
    content = gif(dream, beside, follow) if kind == ".gif" else html(dream, beside, follow).encode()
    files.replace(path, lambda file: file.write(content))
    return path


def gif(dream: Dream, beside: Others = (), follow: Follow = iter) -> bytes:
    """The present branch as a film that repeats; see `frames`."""
    buffer = io.BytesIO()
    # Pillow's own choice of colours takes eight times as long, and looks no better.
    images = (
        Image.fromarray(one).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for one in frames(dream, beside, follow)
    )
    shown = delays(len(dream.line()), 1000 / SPEED)
    next(images).save(buffer, "GIF", save_all=True, append_images=images, duration=shown, loop=0)
    return buffer.getvalue()


def frames(dream: Dream, beside: Others = (), follow: Follow = iter) -> Iterator[np.ndarray]:
    """The pictures (height, width, 3) uint8 of the present branch, enlarged; each with what stands beside it."""
    for number in follow(dream.line()):
        picture, node = dream.picture(number), dream.nodes[number]
        name = f"{LABEL}: step {node.depth}, return {node.total:+z.2f}"
        shown = [Beside(name, "", picture, node.over), *(one.at(number) for one in beside)]
        side = max(1, -(-SIDE // len(picture))) * len(picture)
        yield np.hstack([framed(one, side) for one in shown])[:, :-GAP]


def framed(shown: Beside, side: int) -> np.ndarray:
    """A picture enlarged to `side` pixels, grey where there is none; below it room for END, and words."""
    canvas = Image.new("RGB", (side + GAP, side + 2 * CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    if shown.picture is None:
        draw.rectangle((0, 0, side - 1, side - 1), fill=(200, 200, 200))
    else:
        canvas.paste(Image.fromarray(shown.picture).resize((side, side), Image.Resampling.NEAREST))
    if shown.over:
        draw.rectangle((0, side, side - 1, side + CAPTION - 1), fill="black", outline="gray")
        draw.text((2, side + 2), "END", fill="white")
    words = shown.note or shown.name + "; nothing stored" * (shown.picture is None)
    draw.text((2, side + CAPTION + 2), words, fill="black")
    return np.asarray(canvas)


def html(dream: Dream, beside: Others = (), follow: Follow = iter) -> str:
    """The present branch, the other branches and the best futures as one page; what comes from outside is escaped."""
    ways = lines(dream)
    numbers = dict.fromkeys(number for _, way in ways for number in way)
    pictures: dict[str, int] = {}  # each once
    nodes = {number: entry(dream, dream.nodes[number], beside, pictures) for number in follow(numbers)}
    data = {"speed": SPEED, "ways": ways, "nodes": nodes, "pictures": list(pictures)}
    run = dream.run
    title = f"A dream of {run.config.env.game} from step {dream.start:,}"
    about = (
        f"GLAM's world model of the run {run.run.name}, after {run.step:,} steps of training, saw "
        f"{dream.context} real steps and imagined the dream shown here ({dream.begun}; seed {dream.seed}). "
        f"Nothing of it was played in the game."
    )
    names = [markup.escape(name) for name in (LABEL, *(one.name for one in beside))]
    parts = {
        "title": markup.escape(title),
        "about": markup.escape(about),
        "figures": "".join(FIGURE.format(name=name) for name in names),
        "data": json.dumps(data).replace("<", "\\u003c"),  # in a script only "<" could end it or begin a comment
    }
    return re.sub("{{([a-z]+)}}", lambda name: parts[name[1]], PAGE.read_text(encoding="utf-8"))


def lines(dream: Dream) -> list[tuple[str, list[int]]]:
    """The present branch, the others that were played, and the futures with the largest returns: title and nodes."""
    present, parents = set(dream.line()), {node.parent for node in dream.nodes}
    played = {number for end in dream.branches for number in dream.line(end)}
    leaves = [node for node in dream.nodes if node.number not in parents and node.number not in played]
    best = sorted(leaves, key=lambda leaf: -leaf.total)[:FUTURES]
    ways = [(f"branch {place}", end, present) for place, end in enumerate(dream.branches, 1)]
    ways.insert(0, ways.pop(dream.branch))
    ways += [("what if", leaf.number, played) for leaf in best]
    result = []
    for name, end, known in ways:
        leaf, new = dream.nodes[end], [node for node in dream.path(end) if node.number not in known]
        title = f"{name}: return {leaf.total:+z.2f}, {count(leaf.depth, 'step')}"
        if new:  # the first actions that tell it from others
            actions = " ".join(dream.run.actions[node.action] for node in new[:5])
            title += f", from step {new[0].depth - 1}: {actions}{' ...' * (len(new) > 5)}"
        result.append((title, dream.line(end)))
    return result


def entry(dream: Dream, node: Node, beside: Others, pictures: dict[str, int]) -> list[dict[str, Any]]:
    """What the page shows of one node: the dream, then what stands beside it; new pictures are added."""
    action = dream.run.actions[node.action] if node.action >= 0 else "-"
    text = f"step {node.depth}, action {action}, reward {node.reward:+z.2f}, return {node.total:+z.2f}, "
    text += f"end {node.ended:.0%}" + ("" if node.over else f", value {node.value:+z.2f}")
    text += "" if node.rules == dream.begun else f"\n{node.rules}"  # other rules than at the beginning
    shown = [Beside(LABEL, text, dream.picture(node.number), node.over), *(one.at(node.number) for one in beside)]
    entries = list[dict[str, Any]]()
    for one in shown:
        picture = None if one.picture is None else pictures.setdefault(data_uri(one.picture), len(pictures))
        entries.append({"picture": picture, "text": one.caption, "note": one.note, "over": one.over})
    return entries


def data_uri(picture: np.ndarray) -> str:
    """A picture as a PNG inside a text."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
