"""Plays a dream: what buttons and keys mean, and the clock. Plain Python; `view` says what there is to draw."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from glamkit.analysis.starts import Start
from glamkit.analysis.studio import compare, export
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.keys import COMMANDS, keys_of
from glamkit.analysis.studio.studio import HORIZON, Dream, Future
from glamkit.errors import GlamkitError

RATES = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0}  # times `export.SPEED`
TOGETHER = 64  # futures dreamt in one batch
KEPT = 20  # dreams to go back to, those shown last
IDLE = ("NOOP", "STAY", "IDLE", "NOTHING")
logger = logging.getLogger(__name__)


class Player:
    """A dream and its controls: commands from any thread are carried out one after the other in a thread of its own.

    So no notebook cell has to run for a dream to go on. `shown` is called in that thread after every change.
    """

    def __init__(
        self, dream: Dream, shown: Callable[[Player], None] = lambda _: None, starts: Sequence[Start] = ()
    ) -> None:
        self.run, self.shown = dream.run, shown
        self.keymap = keys_of(self.run.actions)
        self.idle = next((i for i, name in enumerate(self.run.actions) if name.upper() in IDLE), None)
        self.held: frozenset[str] = frozenset()
        self.who, self.rate, self.due = "policy", "1", 0.0  # `due`: when the clock makes its next step
        self.starts = {start.step: start for start in starts}
        self.compared: list[str] = []
        self.dreams: dict[tuple[int, Rules], Dream] = {}  # to go back to
        self.what_if: list[Future] | None = None  # the answers to *what if?*
        self.noise: int | None = None  # the noise seed of the next step, where another was asked for
        self.tapped: int | None = None  # the action of a key that was pressed since the last step
        self.take(dream)
        self.todo: queue.Queue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True, name="glamkit-player")
        self.thread.start()

    @property
    def running(self) -> bool:
        """Whether the clock runs: the end of a dream holds it, so that it goes on once the dream begins again."""
        return self.playing and not self.dream.now.over

    @property
    def message(self) -> str:
        """What there is to say: about the last command, else that the dream has ended."""
        if self.note or not self.dream.now.over:
            return self.note
        return f"The dream has ended, return {self.dream.now.total:+z.1f}. Press R to begin again."

    def do(self, command: str, *values: Any, **named: Any) -> None:
        """Asks for a command by its name, and returns at once."""
        self.todo.put((command, values, named))

    def close(self) -> None:
        """Ends the thread once it has done what it is doing, and waits for that."""
        self.todo.put(None)
        self.thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread; see `one_thread`
        while True:
            pause = max(0.0, self.due - time.perf_counter()) if self.running else None
            try:
                asked = self.todo.get(timeout=pause)
            except queue.Empty:
                self._try("tick")
                continue
            if asked is None:
                return
            command, values, named = asked
            if command != "keys":  # a key that is let go wipes no message away
                self.note = ""
            self._try(command, *values, **named)
            self.todo.task_done()

    def _try(self, command: str, *values: Any, **named: Any) -> None:
        try:
            getattr(self, command)(*values, **named)
            self.shown(self)
        except Exception as error:  # in a thread nobody would see it
            self.playing, self.note = False, str(error)
            if not isinstance(error, GlamkitError):
                self.note = f"{type(error).__name__}: {error}"
                logger.exception("The player stopped.")
            with contextlib.suppress(Exception):  # what cannot be drawn: the next command may go elsewhere
                self.shown(self)

    def working(self, note: str) -> None:
        """Shows at once what a command that takes long is doing."""
        self.note = note
        self.shown(self)
        self.note = ""

    def tick(self) -> None:
        """One step of the clock: late ones are left out, not made up for."""
        self.due = max(self.due + 1 / (export.SPEED * RATES[self.rate]), time.perf_counter())
        self.forward()

    def act(self, action: int | str | None) -> None:
        """One step with this action, or the policy's; none after the end, where it would mean nothing."""
        if not self.dream.now.over:
            self.dream.step(action, self.noise)
            self.noise = None

    def forward(self) -> None:
        """One step by whoever plays; by the policy where it is your turn and no key is held."""
        action, depth = None, self.dream.now.depth
        if self.who == "you":
            # A key that was let go before the clock came is played too.
            taken = [action for action in (self.tapped, self.wanted(), self.idle) if action is not None]
            action, self.tapped = taken[0] if taken else None, None
        if self.who == "recorded" and (action := self.dream.recorded(depth)) is None:
            raise GlamkitError(f"No action after step {depth} is recorded: choose who plays on.")
        self.act(action)

    def back(self) -> None:
        """Goes back by a step, unless this is the first."""
        self.scrub(self.dream.now.depth - 1)

    def scrub(self, depth: int) -> None:
        """Goes to a step of the present branch, or to the end that is nearer."""
        self.playing, line = False, self.dream.line()
        self.dream.go(line[min(max(depth, 0), len(line) - 1)])

    def branch(self, place: int) -> None:
        """Goes to the last step of a branch; they are counted from 0 in the order they were begun."""
        self.playing = False
        self.dream.go(self.dream.branches[place])

    def toggle(self) -> None:
        """Plays, or pauses; plays again where the game is over."""
        self.playing, self.tapped = not self.running, None
        if self.dream.now.over:
            self.again()
        self.due = time.perf_counter()

    def again(self) -> None:
        """Goes back to step 0, and plays on if it played."""
        self.dream.go(0)
        self.due = time.perf_counter()

    def hand(self, who: str) -> None:
        """Who plays: the policy, you by the keys that are held, or the actions that were really taken."""
        self.who = who

    def pace(self, rate: str) -> None:
        """How fast it plays, one of `RATES`."""
        self.rate = rate

    def compare(self, names: Sequence[str]) -> None:
        """What is shown beside the dream: any of ``real``, ``lmamba``, ``gmamba`` (that module off)."""
        begun = compare.REAL in names and compare.REAL not in self.compared
        self.beside, self.compared = compare.comparisons(self.dream, names), list(names)
        if begun:
            self.who, apart = "recorded", compare.first_difference(self.dream, self.dream.here)
            if apart is not None:
                self.scrub(apart - 1)
            self.note = f"From step {self.dream.now.depth} on the recorded actions are taken, as in the real game."

    def other_noise(self) -> None:
        """From the next step on everything random is drawn anew: the policy's actions, and pictures where they are."""
        self.noise = 1 + max(node.noise_seed for node in self.dream.nodes)
        self.note = "From the next step on it goes on differently: random draws are made anew, the policy's too."

    def keys(self, down: Collection[str]) -> None:
        """The keys that are held now; a control acts when it is pressed, and so does an action while paused."""
        new = set(down) - self.held
        self.held = frozenset(down)
        if new:
            self.note = ""
        controls = [COMMANDS[code][0] for code in new if code in COMMANDS]
        for control in controls:
            getattr(self, control)()
        action = self.wanted()
        if new and not controls and action is not None:
            if self.running:
                self.who, self.tapped = "you", action
            else:
                self.act(action)

    def wanted(self) -> int | None:
        """The action of the held keys: the one that uses most of them."""
        fitting = [(len(codes), action) for codes, action in self.keymap.items() if codes <= self.held]
        return max(fitting)[1] if fitting else None

    def ask(self, horizon: int = HORIZON) -> None:
        """What if? Futures from here for every action, `TOGETHER` at most, in one batch."""
        self.playing, now = False, self.dream.now
        if now.over:
            return
        draws = max(1, TOGETHER // len(self.run.actions))
        self.working(f"Computing {draws * len(self.run.actions)} futures of {horizon} steps ...")
        self.what_if = self.dream.futures(None, draws, horizon)
        self.note = f"{len(self.what_if)} futures of {horizon} steps from step {now.depth}; they are compared below."

    def switch(self, **rules: Any) -> None:
        """Changes the rules from the next step on."""
        self.dream.switch(**rules)

    def begin(self, step: int) -> None:
        """Dreams from this step under the present rules; one begun so before, if not full, goes on at its step 0."""
        last, rules = self.dream, self.dream.rules
        dream = self.dreams.get((step, rules))
        if dream is None or dream.full:
            dream = Dream(self.run, step, last.seed, last.context, rules)
        dream.switch(**vars(rules))
        dream.go(0)
        self.take(dream)

    def take(self, dream: Dream) -> None:
        """Goes on with this dream."""
        self.dream, self.note, self.playing = dream, "", False
        self.what_if, self.noise, self.tapped = None, None, None
        self.beside = compare.comparisons(dream, self.compared)
        self.dreams.pop((dream.start, dream.begun), None)
        self.dreams[dream.start, dream.begun] = dream  # the newest is the last
        if len(self.dreams) > KEPT:
            del self.dreams[next(iter(self.dreams))]

    def save(self) -> None:
        """Writes the present branch into `dreams` in the run's folder; beside the notebook if the run is shared."""
        run = self.run.run
        folder = (Path.cwd() if run.shared else run.folder) / "dreams"
        names = (folder / f"dream-{self.dream.start}-{number}.gif" for number in itertools.count(1))
        path = next(path for path in names if not path.exists())
        self.working("Saving ...")
        export.save(self.dream, path, self.beside)
        self.note = f"Saved as {path}"
