"""The dream studio in JupyterLab: a page (`studio.js`, `studio.css`) around a `Player`, which does all that matters.

The page only draws and passes on what was pressed. Nothing here is needed without a browser: every view has a static
picture as well (`plots`), and a notebook that nobody watches gets that alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np

from glamkit import notebook
from glamkit.analysis.starts import Start
from glamkit.analysis.studio.player import TOGETHER, Player
from glamkit.analysis.studio.plots import futures
from glamkit.analysis.studio.studio import Dream, Future, asked_at, mean_returns, no_choice
from glamkit.analysis.studio.view import controls, starts, view
from glamkit.training.load import LoadedRun

ALONE = "The dream studio needs a running kernel."
# Hidden while a studio stands above it; see studio.css.
AGAIN = "No studio here, or only an error? Run all cells again. The picture shows a dream from the same start."
AHEAD = 2  # frames that may be on their way to the page; newer ones wait, so nothing is ever queued
SILENCE = 10  # seconds after which a frame that the page has not shown means that nobody looks
# What the page may ask the player for.
ASKED = "act again ask back begin branch compare find forward hand keys next other_noise pace save scrub switch toggle"


class StudioWidget(anywidget.AnyWidget):
    """The dream studio: shows pictures and passes on what was pressed; see `studio.js` for the messages.

    Pixels are messages, not state: so they are never saved into a notebook, and a page that comes back later gets the
    newest ones.

    Args:
        run: the run.
        dream: to begin with.
        seed: of later dreams.
        context: real steps that those see; None takes as many as in training.
        choices: starts to choose from.
    """

    _esm = Path(__file__).parent / "studio.js"
    _css = Path(__file__).parent / "studio.css"

    def __init__(
        self, run: LoadedRun, dream: Dream, seed: int = 0, context: int | None = None, choices: Sequence[Start] = ()
    ) -> None:
        super().__init__()
        self.number, self.waits = 0, False
        self.under_way: set[int] = set()
        self.heard = 0.0  # when the page last showed a frame, or was sent one with no other under way
        self.newest: tuple[dict[str, Any], list[bytes]] | None = None
        self.standing: dict[str, tuple[dict[str, Any], list[bytes]]] = {}
        self.player = Player(run, dream, self.draw, seed, context, choices)
        self.asked: list[Future] | None = None
        self.listed = -1
        self.on_msg(self._receive)
        self.keep("controls", controls(self.player))
        self.draw(self.player)

    def push(self, pictures: Sequence[np.ndarray], state: dict[str, Any]) -> None:
        """Shows pictures (h, w, 3) uint8 and what stands beside them, as soon as the page keeps up."""
        self.number += 1
        sizes = [(picture.shape[1], picture.shape[0]) for picture in pictures]
        message = {"t": "f", "n": self.number, "sizes": sizes, **state}
        self.newest = (message, [np.ascontiguousarray(picture).tobytes() for picture in pictures])
        self._offer()

    def keep(self, kind: str, values: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Sends what stands until it is replaced, at once and to every page that comes later."""
        self.standing[kind] = ({"t": kind, **values}, list(buffers))
        self.send(*self.standing[kind])

    def _offer(self) -> None:
        self.waits = len(self.under_way) >= AHEAD
        if self.newest is not None and not self.waits:
            if not self.under_way:
                self.heard = time.monotonic()
            self.under_way.add(self.newest[0]["n"])
            self.send(*self.newest)

    def _receive(self, _: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002 - what ipywidgets calls it with
        """A message of the page."""
        match message:
            case {"t": "ready"}:  # drawn for the first time, or again after the page was closed
                self.under_way.clear()
                for standing in self.standing.values():
                    self.send(*standing)
                self._offer()
            case {"t": "ack", "n": int(last)}:
                self.under_way, self.heard = {n for n in self.under_way if n > last}, time.monotonic()
                if self.waits:
                    self._offer()
            case {"t": "k", "down": list(codes)}:
                self.player.do("keys", [str(code) for code in codes])
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

    def draw(self, player: Player) -> None:
        """Draws the player's present step; pauses it where nobody looks, as when its cell was run again."""
        if player.playing and self.waits and time.monotonic() - self.heard > SILENCE:
            player.playing, player.note = False, f"Paused: the page showed no picture for {SILENCE} seconds."
        if self.listed != len(player.starts):
            self.listed = len(player.starts)
            self.keep("starts", {"starts": starts(player)})
        if player.what_if is not self.asked:
            self.asked = player.what_if
            if self.asked is None:
                self.keep("futures", {"title": "", "text": ""})
            else:
                same, depth = no_choice(player.dream, self.asked), asked_at(player.dream, self.asked).depth
                title = f"{len(self.asked)} futures from step {depth} (at most {TOGETHER} at once)"
                pngs = () if same else futures(player.dream, self.asked).pngs()
                text = summary(player, self.asked)
                self.keep("futures", {"title": f"What if? {same or title}", "text": text}, pngs)
        shown = view(player)
        beside = [(one.name, one.caption, one.picture is not None, one.over, one.note) for one in shown.beside]
        pictures = [shown.picture, *(one.picture for one in shown.beside if one.picture is not None)]
        self.push(pictures, {"state": shown.state, "beside": beside})


def summary(player: Player, asked: Sequence[Future]) -> str:
    """The figure of the futures in words: the mean return by first action, best first."""
    means = mean_returns(asked).items()
    return "Mean return by first action: " + ", ".join(f"{player.run.actions[a]} {mean:+z.2f}" for a, mean in means)


def studio(
    run: LoadedRun, dream: Dream, seed: int = 0, context: int | None = None, choices: Sequence[Start] = ()
) -> StudioWidget | None:
    """Shows the studio where somebody watches; None elsewhere, where its static pictures are all there is."""
    if not notebook.is_interactive() or notebook.shell() is None:
        return None
    from IPython.display import HTML, display

    shown = StudioWidget(run, dream, seed, context, choices)
    display(shown, HTML(f'<p class="glamkit-gone"><i>{AGAIN}</i></p>'))
    return shown
