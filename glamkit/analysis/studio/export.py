"""A dream to take along: GIF, or one HTML file that plays without a kernel, a network or any other file."""

from __future__ import annotations

import base64
import html as markup
import io
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from glamkit.analysis.studio.compare import Beside, Counterpart
from glamkit.analysis.studio.dream_tree import Node
from glamkit.analysis.studio.studio import Dream
from glamkit.plotting import count
from glamkit.runs import files

SPEED = 15  # frames per second: an Atari game's own, with four of its frames to a step
SIDE = 256  # pixels that an exported picture takes at least
GAP = 8  # pixels between pictures
CAPTION = 16  # pixels below, for the words
LABEL = "the dream"
Line: TypeAlias = Sequence[int]  # numbers of a branch's nodes
Others: TypeAlias = Sequence[Counterpart]  # what stands beside it
Follow: TypeAlias = Callable[[Collection[int]], Iterable[int]]  # passes numbers on, and may say how many are done
FUTURES = 12  # of *what if?* in an HTML file: those with the largest returns


def frames(dream: Dream, line: Line = (), beside: Others = (), follow: Follow = iter) -> Iterator[np.ndarray]:
    """The pictures (height, width, 3) uint8 of a branch, enlarged; each with what stands beside it and its label.

    Without a line it is the whole branch that the present node is on.
    """
    return (frame(dream, number, beside) for number in follow(line or dream.line(dream.here)))


def frame(dream: Dream, number: int, beside: Others) -> np.ndarray:
    """One of these pictures."""
    picture, node = dream.picture(number), dream.nodes[number]
    side = max(1, -(-SIDE // picture.shape[0])) * picture.shape[0]
    name = f"{LABEL}: step {node.depth}, return {node.total:+z.2f}"
    shown = [Beside(name, "", picture, node.over), *(one.at(number) for one in beside)]
    pictures = [np.full_like(picture, 200) if one.picture is None else one.picture for one in shown]
    words = [one.note or one.name + "; nothing stored" * (one.picture is None) for one in shown]
    return np.asarray(labelled(pictures, words, side, ["END" * one.over for one in shown]))


def labelled(pictures: Sequence[np.ndarray], words: Sequence[str], side: int, bars: Sequence[str]) -> Image.Image:
    """Pictures (size, size, 3) uint8 beside each other, enlarged to `side` pixels, each above its words.

    Between each picture and its words there is room for a bar, in white on black; where it is empty it stays white.
    """
    high = side + CAPTION
    canvas = Image.new("RGB", (len(words) * (side + GAP) - GAP, high + CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (picture, word, bar) in enumerate(zip(pictures, words, bars, strict=True)):
        left = place * (side + GAP)
        canvas.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (left, 0))
        draw.text((left + 2, high + 2), word, fill="black")
        if bar:
            draw.rectangle((left, side, left + side - 1, high - 1), fill="black", outline="gray")
            draw.text((left + 2, side + 2), bar, fill="white")
    return canvas


def gif(dream: Dream, path: str | Path, line: Line = (), beside: Others = (), follow: Follow = iter) -> Path:
    """A branch as a GIF that repeats; see `frames`."""
    pictures, buffer = frames(dream, line, beside, follow), io.BytesIO()
    # Pillow's own choice of colours takes eight times as long, and looks no better.
    images = (
        Image.fromarray(one).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for one in pictures
    )
    next(images).save(buffer, "GIF", save_all=True, append_images=images, duration=round(1000 / SPEED), loop=0)
    return write(Path(path), buffer.getvalue())


def html(dream: Dream, path: str | Path, line: Line = (), beside: Others = (), follow: Follow = iter) -> Path:
    """A branch, the other branches and the best futures, as a page of its own; see `frames`."""
    return write(Path(path), page(dream, line, beside, follow).encode())


def page(dream: Dream, line: Line = (), beside: Others = (), follow: Follow = iter) -> str:
    """The text of that page; every value from outside is escaped."""
    ways = lines(dream, line or dream.line(dream.here))
    films: list[dict[bytes, int]] = [{} for _ in range(1 + len(beside))]  # of each figure its pictures, each once
    numbers = dict.fromkeys(node.number for _, way in ways for node in way)
    nodes = {number: entry(dream, dream.nodes[number], beside, films) for number in follow(numbers)}
    data = {
        "speed": SPEED,
        "ways": [[title, [node.number for node in way]] for title, way in ways],
        "nodes": nodes,
        "side": dream.picture().shape[0],
        "films": [packed(list(film)) for film in films],
    }
    title = f"A dream of {dream.run.config.env.game} from step {dream.start:,}"
    # In a script element only "<" could end it or begin a comment.
    plain = json.dumps(data).replace("<", "\\u003c")
    figures = "".join(FIGURE.format(name=markup.escape(name)) for name in (LABEL, *(one.name for one in beside)))
    return PAGE.format(title=markup.escape(title), about=markup.escape(how(dream)), figures=figures, data=plain)


def how(dream: Dream) -> str:
    """How a dream was dreamt, in two sentences."""
    run = dream.run
    return (
        f"GLAM's world model of the run {run.run.folder.name}, after {run.step:,} steps of training, saw "
        f"{dream.context} real steps and imagined the dream shown here ({dream.begun}; seed {dream.seed}). "
        f"Nothing of it was played in the game."
    )


def lines(dream: Dream, first: Sequence[int]) -> list[tuple[str, list[Node]]]:
    """The first branch as a whole, the others that were played, and the futures with the largest returns."""
    ends = sorted(enumerate(dream.branches), key=lambda branch: branch[1] != first[-1])
    named = len(ends) > 1
    ways = [
        (f"{f'branch {letter(place)}' if named else LABEL}: {outcome(dream, dream.nodes[end])}", dream.path(end))
        for place, end in ends
    ]
    futures = sorted(
        (leaf for leaf in dream.leaves() if leaf.number not in dream.branches), key=lambda leaf: -leaf.total
    )
    return ways + [(f"what if: {outcome(dream, leaf)}", dream.path(leaf.number)) for leaf in futures[:FUTURES]]


def letter(place: int) -> str:
    """What a branch is called: A, B, ... Z, A2, B2, ..."""
    return chr(ord("A") + place % 26) + ("" if place < 26 else str(place // 26 + 1))


def outcome(dream: Dream, leaf: Node) -> str:
    """What tells a line of the tree from others: its return, and its first actions that were not played."""
    way = dream.path(leaf.number)[1:]
    new = next((place for place, node in enumerate(way) if node.number not in dream.played), 0)
    actions = [dream.run.actions[node.action] for node in way[new : new + 5]]
    first = f" from step {new}" if new else ""
    rest = " ..." if leaf.depth > new + len(actions) else ""
    text = f"return {leaf.total:+z.2f}, {count(leaf.depth, 'step')}"
    return f"{text}{first}{': ' * bool(actions)}{' '.join(actions)}{rest}"


def entry(dream: Dream, node: Node, beside: Others, films: list[dict[bytes, int]]) -> list[dict[str, Any]]:
    """What the page shows of one node: the dream, then what stands beside it; new pictures are added to `films`."""
    action = dream.run.actions[node.action] if node.action >= 0 else "-"
    text = f"step {node.depth}, action {action}, reward {node.reward:+z.2f}, return {node.total:+z.2f}, "
    text += f"end {node.ended:.0%}" + ("" if node.over else f", value {node.value:+z.2f}")
    text += "" if node.rules == dream.begun else f"\n{node.rules}"  # other rules than at the beginning
    shown = [Beside(LABEL, text, dream.picture(node.number), node.over), *(one.at(node.number) for one in beside)]
    return [
        {
            "picture": None if one.picture is None else film.setdefault(one.picture.tobytes(), len(film)),
            "text": one.caption,
            "note": one.note,
            "over": one.over,
        }
        for one, film in zip(shown, films, strict=True)
    ]


def packed(pictures: Sequence[bytes]) -> str:
    """Pictures of one size as text: the bytes in which each differs from the one before, compressed and in base64.

    Most pixels of a dream are nearly those of the step before: this is half of what a PNG for each would be.
    """
    rows = np.frombuffer(b"".join(pictures), np.uint8).reshape(max(len(pictures), 1), -1)
    apart = np.diff(rows, axis=0, prepend=np.uint8(0))
    coder = zlib.compressobj(strategy=zlib.Z_RLE)  # in noise there is nothing to find again: faster, and smaller
    return base64.b64encode(coder.compress(apart.tobytes()) + coder.flush()).decode()


def write(path: Path, content: bytes) -> Path:
    """Writes a file and the folders it lies in, at once or not at all.

    Raises:
        GlamkitError: it cannot be written there.
    """
    files.make_folder(path.parent)
    files.replace(path, lambda file: file.write(content))
    return path


def data_uri(picture: np.ndarray) -> str:
    """A picture as a PNG inside a text."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


FIGURE = """<figure><b>{name}</b><div><canvas role="img" aria-label="{name}"></canvas></div><strong></strong>
<figcaption></figcaption></figure>
"""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 sans-serif; margin: 24px; max-width: 1200px; }}
h1 {{ font-size: 18px; }}
p {{ max-width: 70em; }}
#shown {{ display: flex; flex-wrap: wrap; gap: 8px 16px; }}
figure {{ margin: 0; flex: 1 1 240px; max-width: 384px; }}
canvas {{ display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; border: 1px solid GrayText;
  box-sizing: border-box; }}
.none {{ visibility: hidden; }}
figure div::after {{ content: ""; display: block; height: 24px; line-height: 24px;
  text-align: center; letter-spacing: 4px; }}
figure .over::after {{ content: "END"; color: #fff; background: #000; outline: 1px solid GrayText; }}
strong {{ display: block; }}
figcaption {{ min-height: 4.5em; white-space: pre-wrap; font-variant-numeric: tabular-nums; }}
output {{ display: inline-block; min-width: 9em; font-variant-numeric: tabular-nums; }}
button, select, input {{ font: inherit; vertical-align: middle; }}
select {{ max-width: 100%; }}
</style>
<body>
<h1>{title}</h1><p>{about}</p>
<p id="choice"><label>Show <select id="ways"></select></label></p>
<div id="shown">{figures}</div>
<p><button id="play">Pause</button> <button id="back">One step back</button> <button id="step">One step</button>
<input id="place" type="range" min="0" value="0" aria-label="Step of the dream"> <output id="of"></output>
<label>speed <select id="rate"><option>1/4<option>1/2<option selected>1<option>2</select></label></p>
<script type="application/json" id="data">{data}</script>
<script>
const find = id => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const rates = {{"1/4": 0.25, "1/2": 0.5, "1": 1, "2": 2}};
const size = data.side * data.side * 3; // bytes of a picture
const hold = 1500; // ms at the end, before it begins again
let timer = null;
let films = [];
data.ways.forEach(([title], number) => find("ways").add(new Option(title, number)));
find("choice").hidden = data.ways.length < 2;
const way = () => data.ways[find("ways").value || 0][1];
const last = () => way().length - 1;
const place = () => Number(find("place").value);
function show(wanted) {{
  find("place").max = last();
  find("place").value = Math.max(0, Math.min(wanted, last()));
  find("of").value = `step ${{place()}} of ${{last()}}`;
  data.nodes[way()[place()]].forEach(({{picture, text, note, over}}, number) => {{
    const [, screen, apart, caption] = find("shown").children[number].children;
    if (picture !== null) paint(screen.firstChild, films[number].subarray(picture * size, (picture + 1) * size));
    apart.textContent = note;
    screen.className = over ? "over" : picture === null ? "none" : "";
    caption.textContent = text;
  }});
}}
function pause() {{ clearTimeout(timer); timer = null; find("play").textContent = "Play"; }}
function wait() {{
  timer = setTimeout(() => {{ show(place() < last() ? place() + 1 : 0); wait(); }},
    1000 / data.speed / rates[find("rate").value] + (place() < last() ? 0 : hold));
}}
function play() {{ pause(); find("play").textContent = "Pause"; wait(); }}
function to(wanted) {{ pause(); show(wanted); }}
find("play").onclick = () => timer ? pause() : play();
find("back").onclick = () => to(place() - 1);
find("step").onclick = () => to(place() + 1);
find("place").oninput = () => to(place());
find("ways").onchange = () => {{ show(0); play(); }};
function paint(canvas, bytes) {{
  canvas.width = canvas.height = data.side;
  const image = canvas.getContext("2d").createImageData(data.side, data.side);
  image.data.fill(255);
  bytes.forEach((byte, from) => (image.data[from + Math.floor(from / 3)] = byte));
  canvas.getContext("2d").putImageData(image, 0, 0);
}}
// Each byte is what differs from the picture before.
async function unpack(text) {{
  const packed = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let place = size; place < bytes.length; place++) bytes[place] += bytes[place - size];
  return bytes;
}}
Promise.all(data.films.map(unpack)).then(
  done => {{ films = done; show(0); play(); }},
  () => document.body.append("This page needs a browser of 2023 or newer."),
);
</script></body></html>
"""
