"""Plays a dream: what buttons and keys mean, and the clock. Plain Python; `view` says what there is to draw."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from glamkit.analysis.monitor import Pace, duration
from glamkit.analysis.starts import Start, find_starts
from glamkit.analysis.studio import compare, export
from glamkit.analysis.studio.command_thread import CommandThread
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.keys import COMMANDS, keys_of
from glamkit.analysis.studio.studio import HORIZON, Dream, Future, no_choice, value_scale
from glamkit.errors import GlamkitError
from glamkit.plotting import count
from glamkit.training.load import LoadedRun

RATES = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0}  # times `export.SPEED`
TOGETHER = 64  # futures dreamt in one batch
KEPT = 20  # dreams to go back to, those shown last
EVERY = 0.5  # seconds between two words about work that takes long
IDLE = ("NOOP", "STAY", "IDLE", "NOTHING")
WHO = {"policy": "the policy", "you": "you", "recorded": "recorded actions"}
FILMS = {"html": export.html, "gif": export.gif}


class Player(CommandThread):
    """A dream and its controls.

    Args:
        run: the run.
        dream: to begin with.
        shown: called with the player after every change, in the player's thread.
        seed: of the dreams.
        context: real steps each dream sees; None takes as many as in training.
        starts: to choose from; those that are found later follow them.
    """

    def __init__(
        self,
        run: LoadedRun,
        dream: Dream,
        shown: Callable[[Player], None] | None = None,
        seed: int = 0,
        context: int | None = None,
        starts: Sequence[Start] = (),
    ) -> None:
        super().__init__()
        self.run, self.seed, self.context, self.most = run, seed, context, value_scale(run)
        self.shown = shown or (lambda _: None)
        self.keymap = keys_of(run.actions)
        self.idle = next((i for i, name in enumerate(run.actions) if name.upper() in IDLE), None)
        self.held: frozenset[str] = frozenset()
        self.ended_playing, self.who, self.rate = False, "policy", "1"
        self.starts: dict[int, Start] = {}  # by their steps
        self.add(starts)
        self.compared: list[str] = []
        self.dreams: dict[tuple[int, Rules], Dream] = {}
        self.what_if: list[Future] | None = None  # the answers to *what if?*
        self.noise: int | None = None  # the noise seed of the next step, where another was asked for
        self.take(dream)

    @property
    def message(self) -> str:
        """What there is to say: about the last command, else that the dream has ended."""
        now = self.dream.now
        over = f"The dream has ended, return {now.total:+z.1f}. Press R to begin again, N for the next start."
        return self.note or (over if now.over else "")

    # Commands --------------------------------------------------------------------------------------------------------

    def act(self, action: int | str) -> None:
        """One step with this action; none after the end, where it would mean nothing."""
        if self.dream.now.over:
            self.playing = False
            return
        self.dream.step(action, self.noise)
        self.noise = None
        self._follow()
        self.ended_playing = self.playing and self.dream.now.over
        self.playing = self.playing and not self.dream.now.over

    def forward(self) -> None:
        """One step by whoever plays; by the policy where it is your turn and no key is held."""
        dream = self.dream
        if self.who == "recorded":
            recorded = dream.recorded(dream.now.depth)
            if recorded is None:
                raise GlamkitError(f"No action after step {dream.now.depth} is recorded: choose who plays on.")
            return self.act(recorded)
        yours = self.idle if (wanted := self.wanted()) is None else wanted
        return self.act(dream.choose(dream.now) if self.who == "policy" or yours is None else yours)

    def back(self, steps: int = 1) -> None:
        """Goes back, at most to the beginning."""
        self.playing = False
        self.dream.rewind(min(steps, self.dream.now.depth))

    def scrub(self, depth: int) -> None:
        """Goes to a step of the present branch."""
        self.playing = False
        self.dream.go(self.line[min(max(depth, 0), len(self.line) - 1)])

    def branch(self, place: int) -> None:
        """Goes to the last step of a branch; they are counted from 0 in the order they were begun."""
        self.playing = False
        self.dream.go(self.dream.branches[place])
        self.line = self.dream.line(self.dream.here)

    def toggle(self) -> None:
        """Plays, or pauses; plays again where the game is over."""
        if self.dream.now.over:
            self.dream.go(0)
        self._play(not self.playing)

    def again(self) -> None:
        """Goes back to step 0 and plays on if it played."""
        playing = self._plays_on()
        self.dream.go(0)
        self._play(playing)

    def next(self) -> None:
        """Dreams from the next start and plays on if it played."""
        if not self.starts:
            raise GlamkitError("There is no list of starts: find some below.")
        steps, playing = list(self.starts), self._plays_on()
        place = steps.index(self.dream.start) + 1 if self.dream.start in steps else 0
        self.begin(steps[place % len(steps)])
        self._play(playing)

    def hand(self, who: str) -> None:
        """Who plays: the policy, you by the keys that are held, or the actions that were really taken."""
        self.who = who

    def pace(self, rate: str) -> None:
        """How fast it plays, one of `RATES`."""
        self.rate = rate

    def compare(self, names: Sequence[str]) -> None:
        """What is shown beside the dream: any of ``real``, ``lmamba``, ``gmamba`` (that module off)."""
        if names:
            self.working("Computing what stands beside the dream ...")
        begun = compare.REAL in names and compare.REAL not in self.compared
        self.beside, self.compared = compare.comparisons(self.dream, names), list(names)
        if begun:
            self.who, apart = "recorded", compare.first_difference(self.dream, self.dream.here)
            if apart is not None:
                self.scrub(apart - 1)
            self.note = (
                f"From step {self.dream.now.depth} on the recorded actions are taken, so that the pictures can be "
            )
            self.note += "compared; choose who plays to change that."

    def other_noise(self) -> None:
        """From the next step on everything random is drawn anew: the policy's actions, and pictures where they are."""
        self.noise = 1 + max(node.noise_seed for node in self.dream.nodes)
        self.note = "From the next step on it goes on differently: the policy may choose other actions"
        self.note += ", and the same ones may lead elsewhere." if self.dream.rules.latents == "sampled" else "."

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
            if self.playing:
                self.who = "you"
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
        compared = f"{len(self.what_if)} futures of {horizon} steps from step {now.depth}; they are compared below."
        self.note = no_choice(self.dream, self.what_if) or compared

    def switch(self, **rules: Any) -> None:
        """Changes the rules from the next step on."""
        self.dream.switch(**rules)

    def find(self, by: str, most: int = 12) -> None:
        """Looks for starts; new ones are added to the list, so that no number changes."""
        self.working("Looking for starts ...")
        new = self.add(find_starts(self.run, by, most, self.seed, self.context))
        self.note = f"{count(new, 'start')} added." if new else "All of these starts are in the list."

    def begin(self, step: int) -> None:
        """Dreams from this step under the present rules; one begun so before, if not full, goes on at its step 0."""
        rules = self.dream.rules
        dream = self.dreams.get((step, rules))
        if dream is None or dream.full:
            dream = Dream(self.run, step, self.seed, self.context, rules)
        dream.switch(**vars(rules))
        dream.go(0)
        self.take(dream)

    def take(self, dream: Dream) -> None:
        """Goes on with this dream."""
        self.dream, self.note = dream, ""
        self.playing = self.ended_playing = False
        self.what_if, self.noise = None, None
        self.dreams.pop((dream.start, dream.begun), None)
        self.dreams[dream.start, dream.begun] = dream  # the newest is the last
        if len(self.dreams) > KEPT:
            del self.dreams[next(iter(self.dreams))]
        self.beside = compare.comparisons(dream, self.compared)
        self.line = dream.line(dream.here)

    def save(self, kind: str) -> None:
        """Writes the present branch and what stands beside it into the run's folder `dreams`.

        A shared run has no folder that people look into: there it is `dreams` beside the notebook.
        """
        run = self.run.run
        folder = (Path.cwd() if run.shared else run.folder) / "dreams"
        names = (folder / f"dream-{self.dream.start}-{number}.{kind}" for number in itertools.count(1))
        path = next(path for path in names if not path.exists())
        self.working("Saving ...")
        FILMS[kind](self.dream, path, self.line, self.beside, self.progress)
        self.note = f"Saved as {path}"
        if kind == "html":
            self.note += "; open it in a browser (JupyterLab shows it once Trust HTML is pressed)"

    def progress(self, numbers: Collection[int]) -> Iterator[int]:
        """Passes numbers of pictures on; says now and then how many are done, how fast, and how long the rest takes."""
        pace, total, due = Pace(0), len(numbers), time.perf_counter() + EVERY
        for done, number in enumerate(numbers):
            pace.note(done)
            if time.perf_counter() >= due and (left := pace.left(total)) is not None:
                due = time.perf_counter() + EVERY
                speed = f"{pace.speed:.0f} pictures/s, {duration(left)} left"
                self.working(f"Saving: {done:,} of {total:,} pictures ({done / total:.0%}), {speed}")
            yield number

    def add(self, starts: Sequence[Start]) -> int:
        """Adds starts to the list, each step once; returns how many are new."""
        before = len(self.starts)
        for start in starts:
            self.starts.setdefault(start.step, start)
        return len(self.starts) - before

    # The clock and the present branch ---------------------------------------------------------------------------------

    def _plays_on(self) -> bool:
        return self.playing or (self.ended_playing and self.dream.now.over)

    def _play(self, playing: bool) -> None:
        self.playing, self.ended_playing = playing, False
        self.due = time.perf_counter()

    def _follow(self) -> None:
        """Keeps `line`, the branch that the present node is on."""
        here = self.dream.now
        if here.parent == self.line[-1]:
            self.line.append(here.number)
        elif here.number not in self.line:
            self.line = self.dream.line(here.number)

    def tick(self) -> None:
        """One step of the clock: late ones are left out, not made up for."""
        self.due = max(self.due + 1 / (export.SPEED * RATES[self.rate]), time.perf_counter())
        self.forward()
