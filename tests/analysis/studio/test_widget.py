"""The page keeps to its contract, and every control asks the player for what it says."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from players import wait

from glamkit.analysis.starts import Start
from glamkit.analysis.studio import widget
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.studio.widget import ASKED, StudioWidget
from glamkit.training.load import LoadedRun

pytestmark = pytest.mark.usefixtures("no_end")


class Browser:
    """Stands for the browser: takes what a page sends."""

    def __init__(self, page: StudioWidget) -> None:
        self.page, self.got = page, list[tuple[dict[str, Any], list[bytes]]]()
        page.send = lambda message, buffers=None: self.got.append((message, buffers or []))

    def says(self, **message: Any) -> None:
        self.page._handle_custom_msg(message, [])

    def newest(self, kind: str) -> tuple[dict[str, Any], list[bytes]]:
        return next(one for one in reversed(self.got) if one[0]["t"] == kind)

    @property
    def depths(self) -> list[int]:
        """Steps of the frames that the page got."""
        return [message["state"]["depth"] for message, _ in self.got if message["t"] == "f"]


@pytest.fixture
def page(run: LoadedRun) -> Any:
    shown = StudioWidget(Dream(run, 40))
    yield shown
    shown.player.close()


def calls(page: StudioWidget) -> list[tuple[Any, ...]]:
    """What the page asks the player for from now on; the player does none of it."""
    asked: list[tuple[Any, ...]] = []
    page.player.do = lambda *values, **named: asked.append((*values, named))  # type: ignore[method-assign]
    return asked


def test_frames_are_sent_in_order(page: StudioWidget) -> None:
    """The page's answer and the player's next frame come at once, in two threads."""
    browser, _ = Browser(page), calls(page)
    took, threads = page.send, list[threading.Thread]()

    def slow(message: dict[str, Any], buffers: Any = None) -> None:
        if not threads:
            page.player.dream.step()
            threads.append(threading.Thread(target=page.draw, args=(page.player,)))
            threads[0].start()
            threads[0].join(0.2)
        took(message, buffers)

    page.send = slow
    browser.says(t="ready")
    threads[0].join()
    assert browser.depths == [0, 1]


def test_a_cell_that_runs_again_ends_its_studio(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold its whole run until the kernel ends."""
    cells = iter(["one", "two", "one"])
    monkeypatch.setattr(widget.notebook, "is_interactive", lambda: True)
    monkeypatch.setattr(widget.notebook, "shell", lambda: Shell(next(cells)))
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    first, other, again = (widget.studio(Dream(run, 40)) for _ in range(3))
    assert first and other and again
    first.player.thread.join(60)
    alive = [shown.player.thread.is_alive() for shown in (first, other, again)]
    assert alive == [False, True, True] and {"two": other, "one": again} == widget.OPEN
    for shown in (other, again):
        shown.player.close()
    widget.OPEN.clear()


class Shell:
    """A kernel's shell in which JupyterLab runs a cell."""

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def get_parent(self) -> dict[str, Any]:
        return {"metadata": {"cellId": self.cell}}


def test_the_page_never_queues_frames(page: StudioWidget) -> None:
    browser, asked = Browser(page), calls(page)
    browser.says(t="ack", n=1)  # what it begins with
    dream = page.player.dream
    for _ in range(5):
        dream.step()
        page.draw(page.player)
    assert browser.depths == [1, 2]
    browser.says(t="ack", n=2)
    assert browser.depths == [1, 2, 5]  # the newest; those between are dropped
    browser.says(t="ack", n=3)
    assert browser.depths == [1, 2, 5]
    message, pixels = browser.got[0]
    assert message["n"] == 2 and pixels == [dream.picture(dream.line()[1]).tobytes()]
    browser.says(t="ready")  # the page was closed and comes back: the newest frame is sent again
    assert browser.depths == [1, 2, 5, 5]
    for down in (["ArrowUp"], []):
        browser.says(t="do", command="keys", values=[down], named={})
    assert asked == [("keys", ["ArrowUp"], {}), ("keys", [], {})]
    browser.says(t="ping")
    assert browser.got[-1] == ({"t": "pong"}, [])
    browser.says(t="nonsense"), browser.says(t="ack", n="many")
    assert not [name for name in page.keys if "pixel" in name or "frame" in name]  # no pixels among what is saved


def test_a_dream_that_nobody_looks_at_is_paused(page: StudioWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its cell was run again, or its page was closed."""
    browser, player = Browser(page), page.player

    player.do("toggle")
    assert wait(lambda: player.dream.now.depth > 3) and player.playing  # so it is not at once
    assert widget.SILENCE == 10  # seconds, as notebooks/README.md says
    monkeypatch.setattr(widget, "SILENCE", 0)
    assert wait(lambda: not page.newest[0]["state"]["playing"]) and not player.playing
    browser.says(t="ready")
    assert browser.newest("f")[0]["state"]["message"] == "Paused: the page showed no picture for 0 seconds."


def test_a_page_may_ask_for_what_its_controls_do_and_nothing_else(page: StudioWidget) -> None:
    browser, asked = Browser(page), calls(page)
    for command in ("close", "add", "__init__", "take", "_work"):
        browser.says(t="do", command=command, values=["x"], named={})
    assert asked == []
    for command in ASKED.split():
        assert callable(getattr(Player, command))
        browser.says(t="do", command=command, values=[1], named={})
    assert asked == [(command, 1, {}) for command in ASKED.split()]


def test_every_control_asks_the_player(run: LoadedRun) -> None:
    studio = StudioWidget(Dream(run, 40), choices=[Start(44, "worst"), Start(50, "next")])
    browser, shown = Browser(studio), studio.player

    def ask(command: str, *values: Any, **named: Any) -> dict[str, Any]:
        browser.says(t="do", command=command, values=list(values), named=named)
        shown.todo.join()
        for message, _ in list(browser.got):
            browser.says(t="ack", n=message.get("n", 0))
        message, pixels = browser.newest("f")
        assert shown.playing or pixels[0] == shown.dream.picture().tobytes()
        return message["state"]

    for number in range(3):
        ask("act", number)
    state = ask("forward")
    assert shown.dream.now.depth == 4 and (state["depth"], state["last"]) == (4, 4)
    state = ask("back")
    assert shown.dream.now.depth == 3 and (state["depth"], state["last"]) == (3, 4)
    state = ask("ask")
    message = studio.what_if
    (picture,) = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in message["figure"])
    assert picture[0, 0].min() > 250, "on white"
    assert message["title"] == "What if? 63 futures from step 3"
    assert message["text"].startswith("Mean return by first action: ") and "LEFT" in message["text"]
    assert ask("switch", modules="gmamba")["rules"]["modules"] == "gmamba" == shown.dream.rules.modules
    state = ask("switch", modules="neither")  # the page offers no such choice
    assert "is not one of the choices" in state["message"] and state["rules"]["modules"] == "gmamba"
    ask("switch", memory="recurrent"), ask("switch", latents="likeliest")
    assert ask("switch", temperature=2.0)["rules"]["temperature"] == 2.0
    assert (shown.dream.rules.memory, shown.dream.rules.latents) == ("recurrent", "likeliest")
    ask("scrub", 0)
    assert shown.dream.here == 0 and studio.what_if["title"]
    assert [(one["step"], one["why"]) for one in studio.controls["starts"]] == [(44, "worst"), (50, "next")]
    assert ask("begin", 50)["start"] == shown.dream.start == 50
    assert studio.what_if == {}  # another dream: the answer is gone
    ask("toggle")
    state = ask("toggle")
    assert not shown.playing and not state["playing"]
    assert "Saved as" in ask("save")["message"]
    ask("compare", ["real", "lmamba"])
    message, pixels = browser.newest("f")
    assert [name for name, *_ in message["beside"]] == ["what really happened", "LMamba off"] and len(pixels) == 3
    bundle, _ = studio._repr_mimebundle_()
    assert "needs a running kernel" in bundle["text/html"] and "application/vnd.jupyter.widget-view+json" in bundle
    shown.close()


def test_text_is_never_markup_and_nothing_is_fetched() -> None:
    code = (Path(widget.__file__).parent / "studio.js").read_text()
    assert "innerHTML" not in code and "outerHTML" not in code and "insertAdjacent" not in code and "http" not in code
    style = (Path(widget.__file__).parent / "studio.css").read_text()
    assert "url(" not in style and "@import" not in style


def test_nothing_is_shown_where_nobody_watches(run: LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert widget.studio(Dream(run, 40)) is None
    assert capsys.readouterr().out == ""
