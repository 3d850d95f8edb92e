"""Plays a dream: what buttons and keys mean, and the clock. Plain Python; `widgets` only draws what it says.

Commands may come from any thread. They are carried out one after the other in a thread of the player's own, so no
notebook cell has to run for the dream to go on, and none is held up by it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.analysis.starts import Start, find_starts
from glamkit.analysis.studio import export
from glamkit.analysis.studio import save as saving
from glamkit.analysis.studio.studio import HORIZON, Dream, Future
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun

SPEED = 15  # frames per second: an Atari game's own, with four of its frames to a step
TOGETHER = 64  # futures dreamt in one batch
PARTS = {"UP": "ArrowUp", "DOWN": "ArrowDown", "LEFT": "ArrowLeft", "RIGHT": "ArrowRight", "FIRE": "Space"}
IDLE = ("NOOP", "STAY", "IDLE", "NOTHING")
CONTROLS = {"Period": "follow", "Backspace": "back", "Enter": "toggle", "KeyB": "ask"}
SIGNS = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→"}
FILES = ("gif", "mp4", "html", "npz")
logger = logging.getLogger(__name__)


class PlayerView(NamedTuple):
    """What there is to draw."""

    picture: np.ndarray  # (size, size, 3) uint8
    lines: list[str]
    bars: list[tuple[str, float, bool]]  # action, its probability, whether the policy would take it
    keys: str
    place: int  # of the present moment in its line,
    last: int  # whose last place is this
    playing: bool
    note: str


class Player:
    """A dream and its controls.

    Args:
        opened: the run.
        dream: to begin with.
        shown: called with the player after every change, in the player's thread.
        seed: of the dreams.
        context: real steps each dream sees; None takes as many as in training.
    """

    def __init__(
        self,
        opened: LoadedRun,
        dream: Dream,
        shown: Callable[[Player], None] | None = None,
        seed: int = 0,
        context: int | None = None,
    ) -> None:
        self.opened, self.seed, self.context = opened, seed, context
        self.shown = shown or (lambda _: None)
        self.keymap = keys_of(opened.actions)
        self.idle = next((i for i, name in enumerate(opened.actions) if name.upper() in IDLE), None)
        self.held: frozenset[str] = frozenset()
        self.playing, self.policy_plays, self.note = False, True, ""
        self.futures: list[Future] = []
        self.found: list[Start] = []
        self.ticks: deque[float] = deque(maxlen=SPEED + 1)
        self.due = 0.0
        self.todo: queue.Queue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = queue.Queue()
        self.thread: threading.Thread | None = None
        self.take(dream)

    # From outside ----------------------------------------------------------------------------------------------------

    def do(self, command: str, *values: Any, **named: Any) -> None:
        """Asks for a command of the section below by its name, and returns at once."""
        self.todo.put((command, values, named))
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, daemon=True, name="glamkit-player")
            self.thread.start()

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self.todo.join()

    def close(self) -> None:
        """Ends the player's thread."""
        if self.thread is not None:
            self.todo.put(None)
            self.thread.join()
            self.thread = None

    def view(self) -> PlayerView:
        """The present moment, to be drawn."""
        dream, now = self.dream, self.dream.now
        names = self.opened.actions
        came = names[now.action] if now.action >= 0 else "none: the last real step was just seen"
        ended = f"chance of end   {now.ended:.0%}" + ("   the model takes the episode to be over" if now.over else "")
        lines = [
            f"step            {dream.start + now.depth:,}: {now.depth} into the dream",
            f"action before   {came}",
            f"its reward      {now.reward:+.3f}   in all {now.total:+.3f}",
            ended,
            f"value           {now.value:+.3f}   expected from here",
            f"rules           {dream.rules}",
            f"speed           {self.speed:.1f} frames/s" if self.playing else "speed           paused",
        ]
        chosen = dream.choose(now)
        bars = [
            (name, float(share), i == chosen) for i, (name, share) in enumerate(zip(names, now.policy, strict=True))
        ]
        place = self.line.index(dream.here)
        return PlayerView(dream.picture(), lines, bars, self.help, place, len(self.line) - 1, self.playing, self.note)

    @property
    def speed(self) -> float:
        """Frames per second, measured over the last second or so."""
        if len(self.ticks) < 2:
            return 0.0
        return (len(self.ticks) - 1) / max(self.ticks[-1] - self.ticks[0], 1e-9)

    @property
    def help(self) -> str:
        """Which key does what."""
        found: dict[str, str] = {}
        for codes, action in self.keymap.items():
            found.setdefault(self.opened.actions[action], "+".join(sign(code) for code in sorted(codes)))
        keys = [f"[{key}] {name}" for name, key in found.items()]
        keys += ["[.] the policy's step", "[Enter] play or pause", "[Backspace] back", "[B] what if?"]
        whole = [key.replace(" ", "\N{NO-BREAK SPACE}") for key in keys]  # lines break between keys only
        return f"Click the picture, then use the keyboard: {', '.join(whole)}"

    # Commands --------------------------------------------------------------------------------------------------------

    def act(self, action: int | str) -> None:
        """One step with this action."""
        self.dream.step(action)
        self._moved()

    def follow(self) -> None:
        """One step with the policy's action."""
        self.dream.step()
        self._moved()

    def back(self, steps: int = 1) -> None:
        """Goes back, at most to the beginning."""
        self.playing = False
        self.dream.rewind(min(steps, self.dream.now.depth))

    def scrub(self, place: int) -> None:
        """Goes to a place in the present line."""
        self.playing = False
        self.dream.go(self.line[min(max(place, 0), len(self.line) - 1)])

    def toggle(self) -> None:
        """Plays, or pauses."""
        self.playing = not self.playing
        self.ticks.clear()
        self.due = time.perf_counter()

    def hand(self, to_policy: bool) -> None:
        """Who plays while the clock runs: the policy, or the keys that are held."""
        self.policy_plays = to_policy

    def keys(self, down: Collection[str]) -> None:
        """The keys that are held now; a control acts when it is pressed, and so does an action while paused."""
        new = set(down) - self.held
        self.held = frozenset(down)
        controls = [CONTROLS[code] for code in new if code in CONTROLS]
        for control in controls:
            getattr(self, control)()
        action = self.wanted()
        if new and not controls and action is not None:
            if self.playing:
                self.policy_plays = False
            else:
                self.act(action)

    def wanted(self) -> int | None:
        """The action of the held keys: the one that uses most of them."""
        fitting = [(len(codes), action) for codes, action in self.keymap.items() if codes <= self.held]
        return max(fitting)[1] if fitting else None

    def ask(self, horizon: int = HORIZON) -> None:
        """What if? Futures from here for every action, `TOGETHER` at most, in one batch."""
        self.playing = False
        lucks = max(1, TOGETHER // len(self.opened.actions))
        self.futures = self.dream.futures(None, lucks, horizon)
        self.note = f"{len(self.futures)} futures of {horizon} steps; the picture below compares their returns."

    def switch(self, **rules: Any) -> None:
        """Changes the rules from the next step on."""
        self.dream.switch(**rules)

    def find(self, by: str, count: int = 12) -> None:
        """Looks for starts."""
        self.found = find_starts(self.opened, by, count, self.seed, self.context)

    def begin(self, step: int) -> None:
        """A new dream from this step, under the present rules."""
        self.take(Dream(self.opened, step, self.seed, self.context, self.dream.rules))

    def take(self, dream: Dream) -> None:
        """Goes on with this dream."""
        self.dream, self.playing, self.futures, self.note = dream, False, [], ""
        self.line = [moment.number for moment in dream.path(dream.here)]

    def refuse(self, why: str) -> None:
        """Says why something is not done."""
        raise GlamkitError(why)

    def save(self, kind: str) -> None:
        """Writes the way to the present moment, or the whole dream (npz), into the run's folder `dreams`."""
        folder = self.opened.run.folder / "dreams"
        taken = len(list(folder.glob(f"dream-{self.dream.start}-*.{kind}")))
        path = folder / f"dream-{self.dream.start}-{taken + 1}.{kind}"
        if kind == "npz":
            saving.save(self.dream, path)
        else:
            {"gif": export.gif, "mp4": export.mp4, "html": export.html}[kind](self.dream, path)
        self.note = f"Saved as {path}"

    def open(self, path: str) -> None:
        """Goes on with a saved dream."""
        self.take(saving.load(path, self.opened))

    # The player's own thread -----------------------------------------------------------------------------------------

    def _moved(self) -> None:
        if self.dream.here not in self.line:
            self.line = [moment.number for moment in self.dream.path(self.dream.here)]

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread; see `one_thread`
        while True:
            pause = max(0.0, self.due - time.perf_counter()) if self.playing else None
            try:
                command = self.todo.get(timeout=pause)
            except queue.Empty:
                self._try("tick", (), {})
                continue
            if command is not None:
                self.note = ""
                self._try(*command)
            self.todo.task_done()
            if command is None:
                return

    def _try(self, command: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            getattr(self, command)(*values, **named)
            self.shown(self)
        except GlamkitError as error:
            self.playing, self.note = False, str(error)
            self.shown(self)
        except Exception as error:  # in a thread nobody would see it
            self.playing, self.note = False, f"{type(error).__name__}: {error}"
            logger.exception("The player stopped.")
            self.shown(self)

    def tick(self) -> None:
        """One step of the clock: late ones are left out, not made up for."""
        now = time.perf_counter()
        self.due = max(self.due + 1 / SPEED, now)
        self.ticks.append(now)
        wanted = self.wanted()
        if self.policy_plays:
            self.follow()
        elif wanted is not None or self.idle is not None:
            self.act(self.idle if wanted is None else wanted)  # type: ignore[arg-type]
        else:
            self.follow()


def keys_of(names: Collection[str]) -> dict[frozenset[str], int]:
    """Keys for actions: arrows and the space bar by their names (``RIGHTFIRE`` is → and space), digits for all."""
    found: dict[frozenset[str], int] = {}
    for number, name in enumerate(names):
        rest, codes = name.upper(), set()
        for part, code in PARTS.items():
            if part in rest:
                rest = rest.replace(part, "")
                codes.add(code)
        if codes and not rest.strip("_- "):
            found.setdefault(frozenset(codes), number)
    for number in range(min(len(names), 10)):
        found[frozenset({f"Digit{(number + 1) % 10}"})] = number
    return found


def sign(code: str) -> str:
    """How a key is written."""
    return SIGNS.get(code, code.removeprefix("Digit").removeprefix("Key"))
