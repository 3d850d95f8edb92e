"""The player does what buttons and keys ask; the canvas keeps to its contract; exports play by themselves."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_runs import finished, short

from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.starts import Start, find_starts
from glamkit.analysis.studio import export, player, plots, widget
from glamkit.analysis.studio.player import Player, keys_of
from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.studio.widget import DreamCanvas, StudioWidget
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun, open_run

CATCH = {"game": "glamkit/Catch-v0"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    settings = "world_model.latents=probabilities trainer.env_steps=80"
    return open_run(finished(short(settings, **CATCH), tmp_path_factory.mktemp("player") / "catch").run.folder)


@pytest.fixture
def playing(opened: LoadedRun) -> Any:
    shown = Player(opened, Dream(opened, 40))
    yield shown
    shown.close()


def done(shown: Player, command: str, *values: Any, **named: Any) -> Player:
    shown.do(command, *values, **named)
    shown.wait()
    return shown


def test_commands_move_the_dream(playing: Player, opened: LoadedRun) -> None:
    plain = Dream(opened, 40)
    for command, values, step in (("act", (2,), 2), ("act", ("LEFT",), 0), ("follow", (), None)):
        done(playing, command, *values)
        plain.step(step)
        assert playing.dream.now.reward == plain.now.reward
    assert (playing.view().place, playing.view().last) == (3, 3)
    done(playing, "back", 2)
    assert playing.dream.now.depth == 1 and (playing.view().place, playing.view().last) == (1, 3)
    done(playing, "scrub", 3)
    assert playing.dream.here == 3
    done(playing, "scrub", 0)
    done(playing, "act", 0)  # another way: a line of its own
    assert (playing.view().place, playing.view().last) == (1, 1)
    done(playing, "back", 99)
    assert playing.dream.here == 0
    done(playing, "switch", modules="gmamba", temperature=2.0)
    assert playing.dream.rules.modules == "gmamba"
    done(playing, "begin", 50)
    assert playing.dream.start == 50 and playing.dream.rules.modules == "gmamba"


def test_a_mistake_is_said_and_the_player_goes_on(playing: Player) -> None:
    done(playing, "begin", 3)
    assert "start = 3 is too close to the beginning" in playing.view().note
    assert playing.dream.start == 40
    done(playing, "follow")
    assert playing.view().note == "" and playing.dream.now.depth == 1
    done(playing, "act", 1.5)
    assert playing.view().note == "action = 1.5 is not a whole number."
    done(playing, "nonsense")  # a fault of ours must not end the thread, nor be swallowed
    assert "has no attribute 'nonsense'" in playing.view().note
    assert done(playing, "follow").dream.now.depth == 2


def test_keys_step_while_paused_and_steer_while_playing(playing: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    done(playing, "keys", ["ArrowLeft"])
    assert playing.dream.now.action == 0
    done(playing, "keys", ["ArrowLeft"])  # still held: no second step
    done(playing, "keys", [])
    assert playing.dream.now.depth == 1
    done(playing, "keys", ["Digit3"])
    assert playing.dream.now.action == 2
    done(playing, "keys", ["Period"]), done(playing, "keys", [])
    assert playing.dream.now.depth == 3
    done(playing, "keys", ["Backspace"]), done(playing, "keys", [])
    assert playing.dream.now.depth == 2
    done(playing, "keys", ["KeyB"]), done(playing, "keys", [])
    assert len(playing.futures) == 63 and playing.dream.now.depth == 2
    monkeypatch.setattr(player, "SPEED", 200)
    done(playing, "keys", ["Enter"])
    done(playing, "keys", ["ArrowRight"])
    assert playing.playing and not playing.policy_plays
    first, deadline = playing.dream.now.depth, time.monotonic() + 20  # the policy may have played before
    while playing.dream.now.depth < first + 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    done(playing, "keys", [])
    done(playing, "toggle")
    way = [moment.action for moment in playing.dream.path(playing.dream.here)][first + 1 :]
    assert set(way[:8]) == {2} and set(way) <= {1, 2}  # held, then STAY
    assert not playing.playing


def test_the_clock_keeps_its_pace(playing: Player) -> None:
    began = time.monotonic()
    done(playing, "toggle")
    while len(playing.ticks) < 10 and time.monotonic() - began < 20:
        time.sleep(0.01)
    took, speed = time.monotonic() - began, playing.speed
    done(playing, "toggle")
    assert took > 8 / player.SPEED and 1 < speed < 1.3 * player.SPEED
    assert playing.view().lines[-1].endswith("paused")


def test_action_names_become_keys() -> None:
    atari = ["NOOP", "FIRE", "UP", "RIGHTFIRE", "DOWNLEFT", "UPRIGHTFIRE"]
    found = {action: codes for codes, action in keys_of(atari).items() if not any("Digit" in code for code in codes)}
    assert found == {
        1: {"Space"},
        2: {"ArrowUp"},
        3: {"ArrowRight", "Space"},
        4: {"ArrowDown", "ArrowLeft"},
        5: {"ArrowUp", "ArrowRight", "Space"},
    }
    assert keys_of(["action 0", "action 1"]) == {frozenset({"Digit1"}): 0, frozenset({"Digit2"}): 1}
    assert len(keys_of([f"action {i}" for i in range(18)])) == 10


class Page:
    """Stands for the page: takes what a canvas sends."""

    def __init__(self, canvas: DreamCanvas) -> None:
        self.canvas, self.got = canvas, list[tuple[dict[str, Any], list[bytes]]]()
        canvas.send = lambda message, buffers=None: self.got.append((message, buffers or []))

    def says(self, **message: Any) -> None:
        self.canvas._handle_custom_msg(message, [])

    @property
    def numbers(self) -> list[int]:
        return [message["n"] for message, _ in self.got if message["t"] == "f"]


def test_the_canvas_never_queues_frames() -> None:
    keys: list[list[str]] = []
    canvas = DreamCanvas(keys.append)
    page, picture = Page(canvas), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for _ in range(5):
        canvas.push(picture, {"lines": ["x"]})
    assert page.numbers == [1, 2]
    page.says(t="ack", n=1)
    assert page.numbers == [1, 2, 5]  # the newest; those between are dropped
    page.says(t="ack", n=2)
    assert page.numbers == [1, 2, 5]
    assert page.got[0] == ({"t": "f", "n": 1, "w": 4, "h": 4, "lines": ["x"]}, [picture.tobytes()])
    page.says(t="ready")  # the page was closed and comes back
    assert page.numbers == [1, 2, 5, 5]
    page.says(t="k", down=["ArrowUp"]), page.says(t="k", down=[])
    assert keys == [["ArrowUp"], []]
    page.says(t="ping")
    assert page.got[-1] == ({"t": "pong"}, [])
    page.says(t="nonsense")
    assert not [name for name in canvas.keys if "pixel" in name or "frame" in name]  # no pixels among what is saved


def test_every_key_has_a_button_and_every_button_works(opened: LoadedRun) -> None:
    studio = StudioWidget(opened, Dream(opened, 40), clips=[Start(44, "worst"), Start(50, "next")])
    page, shown = Page(studio.canvas), studio.player

    def press(name: str) -> None:
        def inside(box: Any) -> Any:
            for child in getattr(box, "children", []):
                yield child
                yield from inside(child)

        (button,) = [w for w in inside(studio) if f"glamkit-{name}" in getattr(w, "_dom_classes", ())]
        button.click()
        shown.wait()
        for message, _ in page.got:
            page.says(t="ack", n=message.get("n", 0))

    for name in [*(f"action-{number}" for number in range(3)), "step"]:
        press(name)
    assert shown.dream.now.depth == 4 and studio.place.value == studio.place.max == 4
    message, pixels = page.got[-1]
    assert message["lines"] == shown.view().lines and pixels[0] == shown.dream.picture().tobytes()
    press("back")
    assert shown.dream.now.depth == 3 and (studio.place.value, studio.place.max) == (3, 4)
    press("ask")
    assert bytes(studio.what_if.value[:4]) == b"\x89PNG" and studio.what_if.layout.display == ""
    studio.lmamba.value = False
    shown.wait()
    assert shown.dream.rules.modules == "gmamba"
    studio.gmamba.value = False
    shown.wait()
    assert "cannot both be off" in studio.note.value and studio.gmamba.value and shown.dream.rules.modules == "gmamba"
    studio.memory.value = "recurrent"
    studio.latents.value = "likeliest"
    studio.temperature.value = 2.0
    shown.wait()
    assert (shown.dream.rules.memory, shown.dream.rules.latents) == ("recurrent", "likeliest")
    studio.place.value = 0
    shown.wait()
    assert shown.dream.here == 0 and studio.what_if.layout.display == ""
    studio.kind.value = "reward"
    press("find")
    assert studio.choice.options == tuple((start.why, start.step) for start in find_starts(opened, "reward", 12))
    press("begin")
    assert shown.dream.start == studio.choice.value
    press("play"), press("play")
    assert not shown.playing and studio.play.description == "Play"
    press("save-gif")
    assert "Saved as" in studio.note.value
    press("clip-1")
    assert shown.dream.start == 44
    saved = studio._repr_mimebundle_()
    assert "needs a running kernel" in saved["text/html"] and "application/vnd.jupyter.widget-view+json" in saved
    shown.close()


def test_text_is_never_markup(opened: LoadedRun) -> None:
    studio = StudioWidget(opened, Dream(opened, 40))
    studio.player.do("refuse", "<script>alert(1)</script>")
    studio.player.wait()
    assert "&lt;script&gt;" in studio.note.value and "<script" not in studio.note.value
    studio.player.close()
    code = (Path(widget.__file__).parent / "dream_canvas.js").read_text()
    assert "innerHTML" not in code and "http" not in code


def test_nothing_is_shown_where_nobody_watches(opened: LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert widget.studio(opened, Dream(opened, 40)) is None
    assert capsys.readouterr().out == ""


class Sources(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def walked(opened: LoadedRun) -> Dream:
    dream = Dream(opened, 40)
    for action in (0, 1, 2, 2):
        dream.step(action)
    dream.futures(lucks=1, horizon=3)
    return dream


def test_exports_hold_the_way_taken(opened: LoadedRun, tmp_path: Path) -> None:
    dream = walked(opened)
    pictures = export.frames(dream)
    assert pictures.shape == (5, 256, 256, 3)
    np.testing.assert_array_equal(pictures[:, ::8, ::8], [dream.picture(m.number) for m in dream.path(dream.here)])
    with Image.open(export.gif(dream, tmp_path / "a" / "dream.gif")) as film:
        assert film.n_frames == 5 and film.info["loop"] == 0 and film.info["duration"] in (60, 67, 70)
    film = cv2.VideoCapture(str(export.mp4(dream, tmp_path / "dream.mp4")))
    seen = [film.read() for _ in range(6)]
    assert [good for good, _ in seen] == [True] * 5 + [False]
    gap = np.abs(seen[2][1][:, :, ::-1].astype(int) - pictures[2])
    assert gap.mean() < 8  # compressed, but that picture
    (tmp_path / "file").write_text("")
    for write in (export.gif, export.mp4, export.html):
        with pytest.raises(GlamkitError, match="cannot be written"):
            write(dream, tmp_path / "file" / "dream.x")


def test_the_html_needs_nothing_else_and_runs_nothing_foreign(opened: LoadedRun, tmp_path: Path) -> None:
    evil = "</script><img src=http://x onerror=alert(1)>"
    names = opened._replace(actions=(evil, "STAY", "RIGHT"))
    text = export.html(walked(names), tmp_path / "dream.html").read_text()
    parser = Sources()
    parser.feed(text)
    assert parser.found and all(source.startswith("data:image/png;base64,") for source in parser.found)
    assert text.count("<script") == text.count("</script>") == 2 and "<img src=http" not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["ways"][0][1] == [0, 1, 2, 3, 4] and len(data["ways"]) == 4
    assert evil in data["moments"]["1"]["text"] and set(data["moments"]) == {str(n) for w in data["ways"] for n in w[1]}


def test_saving_asked_for_goes_into_a_folder_of_its_own(playing: Player, opened: LoadedRun) -> None:
    done(playing, "act", 0)
    for kind in ("npz", "npz", "html"):
        done(playing, "save", kind)
    folder = opened.run.folder / "dreams"
    assert {path.name for path in folder.glob("dream-40-*") if path.suffix != ".gif"} == {
        "dream-40-1.npz",
        "dream-40-2.npz",
        "dream-40-1.html",
    }
    done(playing, "begin", 50)
    done(playing, "open", str(folder / "dream-40-2.npz"))
    assert playing.dream.start == 40 and playing.dream.now.depth == 1 and playing.view().last == 1


def test_static_pictures_show_what_there_is(opened: LoadedRun) -> None:
    loop, dream = measure_open_loop(opened, 12, 6), walked(opened)
    assert plots.spread(12)[0] == 0 and plots.spread(12)[-1] == 11 and len(plots.spread(12)) == 10
    drawn = plots.errors(loop)
    assert loop.finding in drawn.get_suptitle() and "no usable horizon" in loop.finding  # after 80 steps of training
    able = replace(loop, seen=1.0)
    assert f"Usable horizon: {able.usable} of 12 steps" in plots.errors(able).get_suptitle()
    (line, *_) = drawn.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), loop.pixels["imagined"].mean)
    for picture in (
        plots.clip(loop, 2),
        plots.worst(loop),
        plots.gallery(opened, find_starts(opened, "episode", 3)),
        plots.moment(dream),
        plots.moment(Dream(opened, 40)),
        plots.futures(dream, dream.futures(lucks=2, horizon=3)),
        plots.switches(opened, 40, 5),
    ):
        assert len(picture.png(40)) > 3000
    assert "opened to read only" in repr(plots.about(opened))
