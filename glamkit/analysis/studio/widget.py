"""The dream studio in JupyterLab: a canvas, buttons and sliders around a `Player`, which does all that matters.

Widgets only draw and pass on what was pressed. Nothing here is needed without a browser: every view has a static
picture as well (`studio_plots`), and a notebook that nobody watches gets that alone.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import anywidget
import ipywidgets
import numpy as np

from glamkit import notebook
from glamkit.analysis.starts import KINDS, Start
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.player import FILES, Player
from glamkit.analysis.studio.plots import futures
from glamkit.analysis.studio.studio import Dream
from glamkit.training.load import LoadedRun

NONE_FOUND = (("press Find starts first", -1),)
ALONE = "The dream studio needs a running kernel: run this cell again. The picture shows where the dream stood."
AHEAD = 2  # frames that may be on their way to the page; newer ones wait, so nothing is ever queued
SWITCHES = {(True, True): "both", (True, False): "gmamba", (False, True): "lmamba"}


class DreamCanvas(anywidget.AnyWidget):
    """Shows pictures and tells which keys are held; see `dream_canvas.js` for the messages.

    Pixels are messages, not state: so they are never saved into a notebook, and a page that comes back later gets the
    newest one.
    """

    _esm = Path(__file__).parent / "dream_canvas.js"

    def __init__(self, keys: Callable[[list[str]], None]) -> None:
        super().__init__()
        self.pressed, self.number = keys, 0
        self.under_way: set[int] = set()
        self.newest: tuple[dict[str, Any], bytes] | None = None
        self.waits = False
        self.on_msg(self._heard)

    def push(self, picture: np.ndarray, said: dict[str, Any]) -> None:
        """Shows a picture (h, w, 3) uint8 and what is said beside it, as soon as the page keeps up."""
        self.number += 1
        height, width, _ = picture.shape
        message = {"t": "f", "n": self.number, "w": width, "h": height, **said}
        self.newest = (message, np.ascontiguousarray(picture).tobytes())
        self._offer()

    def _offer(self) -> None:
        self.waits = len(self.under_way) >= AHEAD
        if self.newest is not None and not self.waits:
            message, pixels = self.newest
            self.under_way.add(message["n"])
            self.send(message, [pixels])

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002 - what ipywidgets calls it with
        """A message of the page."""
        kind = message.get("t") if isinstance(message, dict) else None
        if kind == "ready":  # drawn for the first time, or again after the page was closed
            self.under_way.clear()
            self._offer()
        elif kind == "ack":
            self.under_way = {number for number in self.under_way if number > message.get("n", 0)}
            if self.waits:
                self._offer()
        elif kind == "k":
            self.pressed([str(code) for code in message.get("down", [])])
        elif kind == "ping":
            self.send({"t": "pong"})


class StudioWidget(ipywidgets.VBox):
    """The dream studio.

    Args:
        opened: the run.
        dream: to begin with.
        seed: of later dreams.
        context: real steps that those see; None takes as many as in training.
        clips: starts that get a button each.
    """

    def __init__(
        self, opened: LoadedRun, dream: Dream, seed: int = 0, context: int | None = None, clips: Sequence[Start] = ()
    ) -> None:
        self.player = Player(opened, dream, self.draw, seed, context)
        self.canvas = DreamCanvas(lambda codes: self.player.do("keys", codes))
        self.quiet = False  # while values are set from here, not by a person
        self.note = ipywidgets.HTML().add_class("glamkit-note")
        self.what_if = ipywidgets.Image(format="png", layout={"display": "none"}).add_class("glamkit-futures")
        self.asked = self.player.futures
        rows = [self.canvas, self._transport(), self._actions(), self._rules(), self._starts(), self._files()]
        super().__init__([*rows, *([self._clips(clips)] if clips else []), self.note, self.what_if])
        self.draw(self.player)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """What is saved of it; readers without a kernel take the sentence, JupyterLab with one the widget."""
        return notebook.alone(super()._repr_mimebundle_(include=include, exclude=exclude), ALONE)

    def draw(self, player: Player) -> None:
        """Draws the player's present moment."""
        view = player.view()
        self.canvas.push(view.picture, {"lines": view.lines, "bars": view.bars, "keys": view.keys})
        self.quiet = True
        try:
            self.place.max = max(view.last, 1)
            self.place.value = view.place
            self.play.description = "Pause" if view.playing else "Play"
            self.play.icon = "pause" if view.playing else "play"
            self.who.value = player.policy_plays
            rules = player.dream.rules
            self.gmamba.value, self.lmamba.value = rules.modules != "lmamba", rules.modules != "gmamba"
            self.memory.value, self.latents.value = rules.memory, rules.latents
            self.temperature.value = rules.temperature
            self.note.value = f"<b>{html.escape(view.note)}</b>"
            found = tuple((start.why, start.step) for start in player.found) or NONE_FOUND
            if found != self.choice.options:
                self.choice.options = found
                self.choice.index = 0
        finally:
            self.quiet = False
        if player.futures is not self.asked:
            self.asked = player.futures
            self.what_if.layout.display = "" if self.asked else "none"
            if self.asked:
                self.what_if.value = futures(player.dream, self.asked).png()

    # Its parts -------------------------------------------------------------------------------------------------------

    def button(self, text: str, name: str, command: str, *values: Any, icon: str = "", hint: str = "") -> Any:
        """A button that asks the player for a command."""
        button = ipywidgets.Button(description=text, icon=icon, tooltip=hint, layout={"width": "auto"})
        button.on_click(lambda _: self.player.do(command, *values))
        return button.add_class(f"glamkit-{name}")

    def input(self, made: Any, name: str, changed: Callable[[Any], None]) -> Any:
        """A control that tells the player when a person (not `draw`) has changed it."""
        made.observe(lambda change: None if self.quiet else changed(change["new"]), "value")
        return made.add_class(f"glamkit-{name}")

    def _transport(self) -> Any:
        self.play = self.button("Play", "play", "toggle", icon="play", hint="15 frames a second")
        self.place = self.input(
            ipywidgets.IntSlider(description="moment", max=1, layout={"width": "320px"}),
            "place",
            lambda value: self.player.do("scrub", value),
        )
        self.who = self.input(
            ipywidgets.ToggleButtons(options=[("policy plays", True), ("you play", False)]),
            "who",
            lambda value: self.player.do("hand", value),
        )
        self.who.style.button_width = "110px"
        back = self.button("Back", "back", "back", icon="step-backward", hint="one step back; nothing is forgotten")
        step = self.button("Policy's step", "step", "follow", icon="step-forward", hint="one step by the policy")
        ask = self.button("What if?", "ask", "ask", icon="code-fork", hint="futures from here, for every action")
        return ipywidgets.HBox([self.play, back, step, ask, self.place, self.who], layout={"flex_flow": "row wrap"})

    def _actions(self) -> Any:
        names = self.player.opened.actions
        buttons = [self.button(name, f"action-{i}", "act", i, hint=f"one step: {name}") for i, name in enumerate(names)]
        return ipywidgets.HBox(
            [ipywidgets.Label("One step with"), *buttons], layout={"flex_flow": "row wrap"}
        ).add_class("glamkit-actions")

    def _rules(self) -> Any:
        def switched(_: bool) -> None:
            pair = (self.gmamba.value, self.lmamba.value)
            if pair in SWITCHES:
                self.player.do("switch", modules=SWITCHES[pair])
            else:  # a hidden state of nothing predicts nothing
                self.player.do(
                    "refuse", "GMamba and LMamba cannot both be off: there would be nothing to predict from."
                )

        def box(text: str, name: str) -> Any:
            made = ipywidgets.Checkbox(value=True, description=text, indent=False, layout={"width": "90px"})
            return self.input(made, name, switched)

        def menu(text: str, name: str) -> Any:
            made = ipywidgets.Dropdown(options=get_args(get_type_hints(Rules)[name]), description=text)
            made.layout.width = "200px"
            return self.input(made, name, lambda value: self.player.do("switch", **{name: value}))

        self.gmamba, self.lmamba = box("GMamba", "gmamba"), box("LMamba", "lmamba")
        self.memory, self.latents = menu("memory", "memory"), menu("latents", "latents")
        self.temperature = self.input(
            ipywidgets.FloatLogSlider(
                value=1, min=-1, max=0.7, step=0.05, description="temperature", readout_format=".2f"
            ),
            "temperature",
            lambda value: self.player.do("switch", temperature=value),
        )
        self.temperature.style.description_width = "initial"
        parts = [ipywidgets.Label("From the next step:"), self.gmamba, self.lmamba]
        return ipywidgets.HBox([*parts, self.memory, self.latents, self.temperature], layout={"flex_flow": "row wrap"})

    def _starts(self) -> Any:
        self.kind = ipywidgets.Dropdown(options=[(f"{k}: {v}", k) for k, v in KINDS.items()], layout={"width": "330px"})
        self.kind.add_class("glamkit-kind")
        look = ipywidgets.Button(description="Find starts", icon="search", layout={"width": "auto"})
        look.on_click(lambda _: self.player.do("find", self.kind.value))
        self.choice = ipywidgets.Dropdown(options=NONE_FOUND, layout={"width": "330px"}).add_class("glamkit-choice")
        go = ipywidgets.Button(description="Dream from here", layout={"width": "auto"})
        go.on_click(lambda _: None if self.choice.value < 0 else self.player.do("begin", self.choice.value))
        parts = [self.kind, look.add_class("glamkit-find"), self.choice, go.add_class("glamkit-begin")]
        return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap"})

    def _clips(self, clips: Sequence[Start]) -> Any:
        buttons = [
            self.button(f"{number}: {start.why}", f"clip-{number}", "begin", start.step)
            for number, start in enumerate(clips, 1)
        ]
        return ipywidgets.HBox([ipywidgets.Label("Dream from"), *buttons], layout={"flex_flow": "row wrap"})

    def _files(self) -> Any:
        words = {"gif": "GIF", "mp4": "MP4", "html": "HTML that plays by itself", "npz": "file that replays it"}
        buttons = [self.button(words[kind], f"save-{kind}", "save", kind, icon="save") for kind in FILES]
        return ipywidgets.HBox([ipywidgets.Label("Save as"), *buttons], layout={"flex_flow": "row wrap"})


def studio(
    opened: LoadedRun, dream: Dream, seed: int = 0, context: int | None = None, clips: Sequence[Start] = ()
) -> StudioWidget | None:
    """Shows the studio where somebody watches; None elsewhere, where its static pictures are all there is."""
    if not notebook.is_interactive() or notebook.shell() is None:
        return None
    from IPython.display import display

    shown = StudioWidget(opened, dream, seed, context, clips)
    display(shown)
    return shown
