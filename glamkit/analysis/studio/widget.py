"""The dream studio in JupyterLab: a page that draws and passes on what was pressed, around a `Player`."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from glamkit import notebook
from glamkit.analysis.starts import Start
from glamkit.analysis.studio import view
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream, Future

ALONE = "The dream studio needs a running kernel."
AHEAD = 2  # frames that may be on their way to the page; newer ones wait, so nothing is ever queued
SILENCE = 10  # seconds after which a frame that the page has not shown means that nobody looks
OPEN: dict[str, StudioWidget] = {}  # the studio that each cell shows
# What the page may ask the player for.
ASKED = "act again ask back begin branch compare forward hand keys other_noise pace save scrub switch toggle"


class StudioWidget(anywidget.AnyWidget):
    """The dream studio; its pixels are messages (see `studio.js`), not state: no notebook saves them."""

    _esm = Path(__file__).parent / "studio.js"
    _css = Path(__file__).parent / "studio.css"
    controls = traitlets.Dict().tag(sync=True)
    what_if = traitlets.Dict().tag(sync=True)

    def __init__(self, dream: Dream, choices: Sequence[Start] = ()) -> None:
        super().__init__()
        self.newest: tuple[dict[str, Any], list[bytes]] | None = None  # frame
        self.sent = self.drawn = 0  # numbers of the frames that the page got, and has drawn
        self.waits = False
        self.heard = 0.0  # when the page last drew a frame, or was sent one with no other under way
        self.asked: list[Future] | None = None
        self.lock = threading.RLock()  # the page's answers and the player's frames come from two threads
        self.player = Player(dream, self.draw, choices)
        self.controls = view.controls(self.player)
        self.on_msg(self._receive)
        self.draw(self.player)

    def draw(self, player: Player) -> None:
        """Draws the player's present step; pauses it where nobody looks, as when its page was closed."""
        if player.playing and self.waits and time.monotonic() - self.heard > SILENCE:
            player.playing, player.note = False, f"Paused: the page showed no picture for {SILENCE} seconds."
        if player.what_if is not self.asked:
            self.asked = player.what_if
            self.what_if = view.what_if(player)
        beside = [one.at(player.dream.here) for one in player.beside]
        pictures = [player.dream.picture(), *(one.picture for one in beside if one.picture is not None)]
        about = [(one.name, one.caption, one.picture is not None, one.over, one.note) for one in beside]
        with self.lock:
            self.newest = {"t": "f", "state": view.state(player), "beside": about}, [one.tobytes() for one in pictures]
            self._offer()

    def _offer(self) -> None:
        """Sends the newest frame, unless the page has not kept up."""
        self.waits = self.sent - self.drawn >= AHEAD
        if self.newest is not None and not self.waits:
            if self.sent == self.drawn:
                self.heard = time.monotonic()
            self.sent += 1
            message, pixels = self.newest
            self.send({**message, "n": self.sent}, pixels)

    def _receive(self, _: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002 - what ipywidgets calls it with
        """A message of the page."""
        match message:
            case {"t": "ready"}:  # drawn for the first time, or again after the page was closed
                with self.lock:
                    self.drawn = self.sent
                    self._offer()
            case {"t": "ack", "n": int(number)}:
                with self.lock:
                    self.drawn, self.heard = max(self.drawn, number), time.monotonic()
                    if self.waits:
                        self._offer()
            case {"t": "do", "command": str(command), "values": list(values), "named": dict(named)}:
                if command in ASKED.split():
                    self.player.do(command, *values, **named)
            case {"t": "ping"}:
                self.send({"t": "pong"})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What is saved of it; readers without a kernel take the sentence, JupyterLab with one the widget."""
        made = super()._repr_mimebundle_(**options)
        assert made is not None  # a widget without a view has none; this one has a view
        bundle, about = made
        return notebook.alone(bundle, ALONE), about


def studio(dream: Dream, choices: Sequence[Start] = ()) -> StudioWidget | None:
    """Shows the studio where somebody watches; None elsewhere, where its static pictures are all there is."""
    if not notebook.is_interactive():
        return None
    from IPython.display import display

    shown = StudioWidget(dream, choices)
    if cell := notebook.cell():
        if old := OPEN.pop(cell, None):  # nobody sees it any more, and it holds its whole run
            old.player.todo.put(None)  # its thread ends when it has done what it is doing
            old.close()
        OPEN[cell] = shown
    display(shown)
    return shown
