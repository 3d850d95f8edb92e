"""The dream studio in JupyterLab: a page (`studio.js`, `studio.css`) around a `Player`, which does all that matters.

The page only draws and passes on what was pressed. Nothing here is needed without a browser: every view has a static
picture as well (`plots`), and a notebook that nobody watches gets that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np

from glamkit import notebook
from glamkit.analysis.starts import Start
from glamkit.analysis.studio.player import TOGETHER, Player, WhatIf
from glamkit.analysis.studio.plots import futures
from glamkit.analysis.studio.studio import Dream, mean_returns, no_choice
from glamkit.analysis.studio.view import controls, starts, view
from glamkit.training.load import LoadedRun

ALONE = "The dream studio needs a running kernel."
# Hidden while a studio stands above it; see studio.css.
AGAIN = "No studio here, or only an error? Run all cells again. The picture shows a dream from the same start."
AHEAD = 2  # frames that may be on their way to the page; newer ones wait, so nothing is ever queued
# What the page may ask the player for.
ASKED = "act again ask back begin branch compare find forward hand keys next other_noise pace save scrub switch toggle"


class DreamPage(anywidget.AnyWidget):
    """Shows pictures and passes on what was pressed; see `studio.js` for the messages.

    Pixels are messages, not state: so they are never saved into a notebook, and a page that comes back later gets the
    newest ones.

    Args:
        pressed: called with a command of the player, its values and its named values.
    """

    _esm = Path(__file__).parent / "studio.js"
    _css = Path(__file__).parent / "studio.css"

    def __init__(self, pressed: Callable[..., None]) -> None:
        super().__init__()
        self.pressed, self.number = pressed, 0
        self.under_way: set[int] = set()
        self.newest: tuple[dict[str, Any], list[bytes]] | None = None
        self.standing: dict[str, tuple[dict[str, Any], list[bytes]]] = {}
        self.waits = False
        self.on_msg(self._receive)

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
                self.under_way = {number for number in self.under_way if number > last}
                if self.waits:
                    self._offer()
            case {"t": "k", "down": list(codes)}:
                self.pressed("keys", [str(code) for code in codes])
            case {"t": "do", "command": str(command), "values": list(values), "named": dict(named)}:
                if command in ASKED.split():
                    self.pressed(command, *values, **named)
            case {"t": "ping"}:
                self.send({"t": "pong"})


class StudioWidget(DreamPage):
    """The dream studio.

    Args:
        run: the run.
        dream: to begin with.
        seed: of later dreams.
        context: real steps that those see; None takes as many as in training.
        choices: starts to choose from.
    """

    def __init__(
        self, run: LoadedRun, dream: Dream, seed: int = 0, context: int | None = None, choices: Sequence[Start] = ()
    ) -> None:
        self.player = Player(run, dream, self.draw, seed, context, choices)
        super().__init__(self.player.do)
        self.asked: WhatIf | None = None
        self.listed = -1
        self.keep("controls", controls(self.player))
        self.draw(self.player)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What is saved of it; readers without a kernel take the sentence, JupyterLab with one the widget."""
        made = super()._repr_mimebundle_(**options)
        assert made is not None  # a widget without a view has none; this one has a view
        bundle, about = made
        return notebook.alone(bundle, ALONE), about

    def draw(self, player: Player) -> None:
        """Draws the player's present step."""
        if self.listed != len(player.starts):
            self.listed = len(player.starts)
            self.keep("starts", {"starts": starts(player)})
        if player.what_if is not self.asked:
            self.asked = player.what_if
            if self.asked is None:
                self.keep("futures", {"title": "", "text": ""})
            else:
                same = no_choice(player.dream, self.asked.futures, self.asked.depth)
                title = f"{len(self.asked.futures)} futures from step {self.asked.depth} (at most {TOGETHER} at once)"
                pngs = () if same else futures(player.dream, self.asked.futures, self.asked.number).pngs()
                text = summary(player, self.asked)
                self.keep("futures", {"title": f"What if? {same or title}", "text": text}, pngs)
        shown = view(player)
        beside = [
            (one.name, one.caption, one.picture is not None, one.over, one.note, one.words) for one in shown.beside
        ]
        pictures = [shown.picture, *(one.picture for one in shown.beside if one.picture is not None)]
        self.push(pictures, {"state": shown.state, "beside": beside})


def summary(player: Player, asked: WhatIf) -> str:
    """The figure of the futures in words: the mean return by first action, best first."""
    means = mean_returns(asked.futures).items()
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
