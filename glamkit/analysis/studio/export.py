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

SPEED = 15  # frames per second, as it is played
SIDE = 256  # pixels that an exported picture takes at least
WAYS = 12  # other lines of the tree in an HTML file: those with the largest returns


def frames(dream: Dream, number: int | None = None) -> np.ndarray:
    """The pictures (n, side, side, 3) uint8 from the beginning to a moment (the present one), enlarged."""
    way = dream.path(dream.here if number is None else number)
    return np.stack([enlarged(dream.picture(moment.number)) for moment in way])


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture (size, size, 3) with each pixel drawn as a square."""
    times = max(1, -(-SIDE // picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)


def gif(dream: Dream, path: str | Path, speed: int = SPEED) -> Path:
    """The way to the present moment as a GIF that repeats."""
    images = [Image.fromarray(picture) for picture in frames(dream)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / speed), loop=0)
    return write(Path(path), lambda file: file.write(buffer.getvalue()))


def mp4(dream: Dream, path: str | Path, speed: int = SPEED) -> Path:
    """The way to the present moment as an MP4 (VP9, which browsers and common players read)."""
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
    """The way to the present moment and the other lines of the tree, as a page of its own."""
    return write(Path(path), lambda file: file.write(page(dream).encode()))


def page(dream: Dream) -> str:
    """The text of that page; every value from outside is escaped."""
    names = dream.opened.actions
    leaves = sorted(dream.leaves(), key=lambda leaf: -leaf.total)[:WAYS]
    ways = [("the way taken", dream.path(dream.here))]
    ways += [(f"{line(dream, leaf)}", dream.path(leaf.number)) for leaf in leaves if leaf.number != dream.here]
    moments = {moment.number: moment for _, way in ways for moment in way}
    data = {
        "speed": SPEED,
        "ways": [[title, [moment.number for moment in way]] for title, way in ways],
        "moments": {number: said(dream, moment, names) for number, moment in moments.items()},
    }
    title = f"A dream of {dream.opened.config.env.game} from step {dream.start}"
    about = f"{dream.opened.run.folder.name} after {dream.opened.step:,} steps; nothing here was played in the game."
    # In a script element only "<" could end it or begin a comment.
    plain = json.dumps(data).replace("<", "\\u003c")
    first = data_uri(dream.picture(ways[0][1][0].number))
    return PAGE.format(title=markup.escape(title), about=markup.escape(about), first=first, data=plain)


def line(dream: Dream, leaf: Node) -> str:
    """What tells a line of the tree from others: its first actions, and its return."""
    actions = [dream.opened.actions[moment.action] for moment in dream.path(leaf.number)[1:6]]
    return f"return {leaf.total:+.2f}, {leaf.depth} steps: {' '.join(actions)} ..."


def said(dream: Dream, moment: Node, names: tuple[str, ...]) -> dict[str, Any]:
    """One moment for the page."""
    action = names[moment.action] if moment.action >= 0 else "-"
    text = f"step {moment.depth}   action {action}   reward {moment.reward:+.2f}   return {moment.total:+.2f}   "
    text += f"end {moment.ended:.0%}   value {moment.value:+.2f}"
    return {"picture": data_uri(dream.picture(moment.number)), "text": text}


def data_uri(picture: np.ndarray) -> str:
    """A picture as a PNG inside a text."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="font:14px sans-serif;margin:24px;color:#333">
<h1 style="font-size:18px">{title}</h1><p>{about}</p>
<p><label>Line of the dream <select id="ways"></select></label></p>
<img id="picture" src="{first}" alt="{title}" style="width:384px;height:384px;image-rendering:pixelated">
<pre id="text"></pre>
<p><button id="play">Play</button> <button id="back">Back</button> <button id="step">Step</button>
<input id="place" type="range" min="0" value="0" style="width:220px"></p>
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
  const moment = data.moments[way()[find("place").value]];
  find("picture").src = moment.picture;
  find("text").textContent = moment.text;
  if (place >= last) pause();
}}
function pause() {{ clearInterval(timer); timer = null; find("play").textContent = "Play"; }}
const place = () => Number(find("place").value);
find("play").onclick = () => {{
  if (timer) return pause();
  if (place() >= way().length - 1) show(0);
  find("play").textContent = "Pause";
  timer = setInterval(() => show(place() + 1), 1000 / data.speed);
}};
find("back").onclick = () => {{ pause(); show(place() - 1); }};
find("step").onclick = () => {{ pause(); show(place() + 1); }};
find("place").oninput = () => {{ pause(); show(place()); }};
find("ways").onchange = () => {{ pause(); show(0); }};
show(0);
</script></body></html>
"""
