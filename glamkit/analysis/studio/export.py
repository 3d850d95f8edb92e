"""A dream to take along: GIF, MP4, or one HTML file that plays without a kernel, a network or any other file."""

from __future__ import annotations

import base64
import html as markup
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from glamkit.analysis.studio.dream_tree import Node
from glamkit.analysis.studio.save import write
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.plotting import count

SPEED = 15  # frames per second, as it is played
SIDE = 256  # pixels that an exported picture takes at least
FUTURES = 12  # of *what if?* in an HTML file: those with the largest returns


def frames(dream: Dream, number: int | None = None) -> np.ndarray:
    """The pictures (n, side, side, 3) uint8 from the beginning to a node (the present one), enlarged."""
    way = dream.path(dream.here if number is None else number)
    return np.stack([enlarged(dream.picture(node.number)) for node in way])


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture (size, size, 3) with each pixel drawn as a square."""
    times = max(1, -(-SIDE // picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)


def gif(dream: Dream, path: str | Path, speed: int = SPEED) -> Path:
    """The way to the present step as a GIF that repeats."""
    images = [Image.fromarray(picture) for picture in frames(dream)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / speed), loop=0)
    return write(Path(path), lambda file: file.write(buffer.getvalue()))


def mp4(dream: Dream, path: str | Path, speed: int = SPEED) -> Path:
    """The way to the present step as an MP4 (VP9, which browsers and common players read)."""
    pictures = frames(dream)
    side = pictures.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "dream.mp4"
        film = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"vp09"), speed, (side, side))
        if not film.isOpened():
            raise GlamkitError("this OpenCV cannot write VP9 into an MP4 file; save the dream as gif or html.")
        for picture in pictures:
            film.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        film.release()
        return write(Path(path), lambda file: file.write(part.read_bytes()))


def html(dream: Dream, path: str | Path) -> Path:
    """The way to the present step, the other branches and the best futures, as a page of its own."""
    return write(Path(path), lambda file: file.write(page(dream).encode()))


def page(dream: Dream) -> str:
    """The text of that page; every value from outside is escaped."""
    names = dream.run.actions
    ways = lines(dream)
    nodes = {node.number: node for _, way in ways for node in way}
    data = {
        "speed": SPEED,
        "ways": [[title, [node.number for node in way]] for title, way in ways],
        "nodes": {number: entry(dream, node, names) for number, node in nodes.items()},
    }
    title = f"A dream of {dream.run.config.env.game} from step {dream.start}"
    # In a script element only "<" could end it or begin a comment.
    plain = json.dumps(data).replace("<", "\\u003c")
    first = data_uri(dream.picture(ways[0][1][0].number))
    return PAGE.format(title=markup.escape(title), about=markup.escape(how(dream)), first=first, data=plain)


def how(dream: Dream) -> str:
    """How a dream was dreamt, in two sentences."""
    run = dream.run
    return (
        f"GLAM's world model of the run {run.run.folder.name}, after {run.step:,} steps of training, saw "
        f"{dream.context} real steps and imagined all that is shown here ({dream.begun}; seed {dream.seed}). "
        f"Nothing of it was played in the game."
    )


def lines(dream: Dream) -> list[tuple[str, list[Node]]]:
    """The way to the present step, the other branches that were played, and the futures with the largest returns."""
    played = [(number, end) for number, end in enumerate(dream.branches) if end != dream.here]
    ways = [(f"the way taken: {outcome(dream, dream.now)}", dream.path(dream.here))]
    ways += [
        (f"branch {letter(number)}: {outcome(dream, dream.nodes[end])}", dream.path(end)) for number, end in played
    ]
    known = {dream.here, *dream.branches}
    futures = sorted((leaf for leaf in dream.leaves() if leaf.number not in known), key=lambda leaf: -leaf.total)
    return ways + [(f"what if: {outcome(dream, leaf)}", dream.path(leaf.number)) for leaf in futures[:FUTURES]]


def letter(place: int) -> str:
    """What a branch is called: A, B, ... Z, A2, B2, ..."""
    return chr(ord("A") + place % 26) + ("" if place < 26 else str(place // 26 + 1))


def outcome(dream: Dream, leaf: Node) -> str:
    """What tells a line of the tree from others: its return, and its first actions."""
    actions = [dream.run.actions[node.action] for node in dream.path(leaf.number)[1:6]]
    return f"return {leaf.total:+.2f}, {count(leaf.depth, 'step')}: {' '.join(actions)} ..."


def entry(dream: Dream, node: Node, names: tuple[str, ...]) -> dict[str, Any]:
    """One node for the page; it says so where other rules hold than at the beginning."""
    action = names[node.action] if node.action >= 0 else "-"
    text = f"step {node.depth}   action {action}   reward {node.reward:+.2f}   return {node.total:+.2f}   "
    text += f"end {node.ended:.0%}   value {node.value:+.2f}"
    text += "" if node.rules == dream.begun else f"\n{node.rules}"
    return {"picture": data_uri(dream.picture(node.number)), "text": text}


def data_uri(picture: np.ndarray) -> str:
    """A picture as a PNG inside a text."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 sans-serif; margin: 24px; max-width: 620px; }}
h1 {{ font-size: 18px; }}
img {{ width: 384px; max-width: 100%; aspect-ratio: 1; image-rendering: pixelated; border: 1px solid GrayText; }}
select {{ max-width: 100%; }}
pre {{ white-space: pre-wrap; min-height: 3em; }}
</style>
<body>
<h1>{title}</h1><p>{about}</p>
<p><label>Show <select id="ways"></select></label></p>
<img id="picture" src="{first}" alt="{title}: an imagined frame">
<pre id="text"></pre>
<p><button id="play">Pause</button> <button id="back">One step back</button> <button id="step">One step</button>
<input id="place" type="range" min="0" value="0" aria-label="Step of the dream"></p>
<script type="application/json" id="data">{data}</script>
<script>
const find = id => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
let timer = null;
data.ways.forEach(([title], number) => find("ways").add(new Option(title, number)));
const way = () => data.ways[find("ways").value || 0][1];
function show(place) {{
  const last = way().length - 1;
  find("place").max = last;
  find("place").value = Math.max(0, Math.min(place, last));
  const node = data.nodes[way()[find("place").value]];
  find("picture").src = node.picture;
  find("text").textContent = node.text;
  if (place >= last) pause();
}}
function pause() {{ clearInterval(timer); timer = null; find("play").textContent = "Play"; }}
const place = () => Number(find("place").value);
function play() {{
  pause();
  if (place() >= way().length - 1) show(0);
  find("play").textContent = "Pause";
  timer = setInterval(() => show(place() + 1), 1000 / data.speed);
}}
find("play").onclick = () => timer ? pause() : play();
find("back").onclick = () => {{ pause(); show(place() - 1); }};
find("step").onclick = () => {{ pause(); show(place() + 1); }};
find("place").oninput = () => {{ pause(); show(place()); }};
find("ways").onchange = () => {{ show(0); play(); }};
show(0);
play();
</script></body></html>
"""
