"""A training loop made visible: speed, time left, live curves, and pictures that sharpen as the model learns.

In JupyterLab the display updates in place; under papermill and in a terminal it is one plain line now and then, and the
pictures come once, at the end. What is shown is ordinary HTML and PNG, so a saved notebook keeps it without a kernel.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from glamkit import notebook, plotting
from glamkit.analysis import rollouts
from glamkit.config import Config, describe, differences
from glamkit.errors import GlamkitError, StoppedError, reason
from glamkit.notebook import Bar, Live, duration
from glamkit.runs import log
from glamkit.runs.files import remove, replace
from glamkit.training import diagnostics
from glamkit.training.trainer import Event, Trainer

SHARES = (0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.75, 1.0)  # of training, when pictures are taken: often where it is fast
AHEAD = 5  # steps dreamt for the strip's last row: a third of a second of play
MINUTE = 60.0  # seconds that the speed is taken over
DRAWING = 40  # a drawing is repeated only after this many times what it took: under 3 % of the time
STOPPED = "Stopped, and everything is saved: run this cell again to go on from here."
FAILED = "Training ended with the error below. What was saved before is kept."
CLOSED = "Training goes on while this tab is closed. To watch it again: import glamkit; glamkit.notebook.watch({!r})"
logger = logging.getLogger(__name__)


class Monitor:
    """Shows the events of a trainer, each by `show`; a context, so that the last state is shown however the loop ends.

    Args:
        trainer: the run.
        every: seconds between two plain lines where nobody watches (see `notebook.is_interactive`).
    """

    def __init__(self, trainer: Trainer, every: float = 10.0) -> None:
        settings, step = trainer.config.trainer, trainer.step
        self.trainer, self.total = trainer, settings.env_steps
        # The first update and the first dream of a process take longest, and what follows is slower than before.
        starts = max(step, settings.warmup), max(step, trainer.config.random_steps)
        self.pace = Pace(step, {start: settings.next_update(start) for start in starts}, settings.update_every)
        self.strip = Strip(trainer)
        self.entries = log.read(trainer.run.log_file)
        self.last = Event("start", step, {})
        self.line = Live(every=every)
        self.pictures = {"curves": Live(), "strip": Live()}  # where somebody watches
        self.drawn: dict[str, int] = {}
        self.next_drawing = 0.0
        self.evaluation, trainer.tell = "", self.follow

    def __enter__(self) -> Monitor:
        self.tell()
        return self

    def show(self, event: Event) -> None:
        """Takes in one event, and draws if it is time."""
        self.last, self.evaluation = event, ""
        self.pace.note(event.step)
        if event.kind in ("log", "episode"):
            self.entries.append({"step": event.step, "kind": event.kind, **event.metrics})
        self.strip.extend(event.step)
        self.tell()

    def follow(self, evaluation: str) -> None:
        """Takes in a line about an evaluation amid training, and draws if it is time."""
        self.evaluation = evaluation
        self.pace.pause(self.trainer.step)
        self.tell()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.last = self.last._replace(kind="failed")
        self.line.show(self.progress())
        self.line.close()
        self.strip.finish()
        if self.line.watched:
            self.draw()
        elif notebook.shell() is None and self.last.kind == "done":
            for finding in diagnostics.verdict(self.entries, self.trainer.config):
                sys.stdout.write(f"{finding}\n")
        elif notebook.shell() and self.strip.columns:
            from IPython.display import display

            display(plotting.strip(self.strip.columns))
        if kind is None and self.last.kind == "stopped":
            # A run cut short must not look complete, nor be evaluated by the cells below.
            saved = f"stopped at step {self.last.step} of {self.total} and saved ({self.trainer.session.stops.reason})"
            raise StoppedError(f"{saved}; run it again with the same run_dir to go on.")

    def tell(self) -> None:
        """Shows what it is time for."""
        begins = self.last.step in self.pace.changes  # what compiles shows nothing until it is done
        if self.line.due or (begins and self.compiling):
            self.line.show(self.progress())
        if self.line.watched and time.perf_counter() >= self.next_drawing:
            self.draw()

    def draw(self) -> None:
        """The curves and the strip, where there is something new; then a pause in keeping with what it took."""
        began = time.perf_counter()
        for name, parts in (("curves", self.entries), ("strip", self.strip.columns)):
            if parts and self.drawn.get(name) != len(parts):
                shown = plotting.live(parts, self.total) if name == "curves" else plotting.strip(parts)
                self.pictures[name].show(shown)
                self.drawn[name] = len(parts)
        now = time.perf_counter()
        self.next_drawing = now + max(2.0, DRAWING * (now - began))

    def progress(self) -> Bar | str:
        """Where training is: a bar where somebody watches, or a line."""
        if not self.line.watched:
            return self.state()
        folder = str(self.trainer.run.folder)
        notes = {"stopped": STOPPED, "done": f"Done; all of it is in {folder}", "failed": FAILED}
        return Bar(self.state(), self.last.step, self.total, notes.get(self.last.kind, CLOSED.format(folder)))

    def state(self) -> str:
        """Where training is, in one line."""
        _, returns = plotting.series(self.entries, "episode/return")
        _, totals = plotting.series(self.entries, "world_model/total")
        parts = [f"step {self.last.step}/{self.total}"]
        parts += [f"world_model {totals[-1]:.1f}"] if totals else []
        parts += [f"return {returns[-1]:.1f}"] if returns else []
        if self.last.kind in ("done", "stopped", "failed"):
            return "  ".join([*parts, self.last.kind])
        if self.evaluation:
            return f"step {self.trainer.step}/{self.total}  {self.evaluation}"
        parts += [f"{self.pace.speed:.1f} steps/s"] if self.pace.speed else []
        left, more = self.pace.left(self.total), "more than " if self.pace.slows else ""
        if self.compiling:
            return "  ".join([*parts, "compiling what comes next takes about a minute"])
        return "  ".join([*parts, f"{more}{duration(left)} left" if left is not None else "time left: not known yet"])

    @property
    def compiling(self) -> bool:
        """Whether the steps up to the next update compile what they run for the first time."""
        between = any(start <= self.last.step < done for start, done in self.pace.changes.items())
        return between and self.last.step < self.total and self.trainer.machine.compiles


class Pace:
    """Speed over the last minute, and the time left, which is known once `every` steps are timed.

    `changes` has the steps after which work of a new kind begins, each with the step that ends when it was done for the
    first time. What was timed until then is forgotten.
    """

    def __init__(self, step: int, changes: Mapping[int, int] | None = None, every: int = 1) -> None:
        self.changes, self.every = changes or {step: step + 1}, every
        self.pause(step)

    def note(self, step: int) -> None:
        """Training is at this step now."""
        now, (_, first) = time.perf_counter(), self.marks[0]
        if any(first < done <= step for done in self.changes.values()):
            self.marks.clear()
        while len(self.marks) > 1 and now - self.marks[0][0] > MINUTE:
            self.marks.popleft()
        self.marks.append((now, step))

    def pause(self, step: int) -> None:
        """No step was made until now, as in an evaluation after this one: the speed is of the steps to come."""
        self.marks = deque([(time.perf_counter(), step)])

    @property
    def speed(self) -> float:
        """Agent steps per second; 0 while it is not known."""
        (began, first), (now, step) = self.marks[0], self.marks[-1]
        return (step - first) / (now - began) if step > first and now > began else 0.0

    @property
    def slows(self) -> bool:
        """Whether more work for each step is still to come."""
        return self.marks[-1][1] < max(self.changes.values())

    def left(self, total: int) -> float | None:
        """Seconds to step `total`, or None where it is not known yet."""
        first, step = self.marks[0][1], self.marks[-1][1]
        timed = first >= min(self.changes.values()) and step - first >= self.every
        return (total - step) / self.speed if timed and self.speed else None


class Strip:
    """One moment of play - real, reconstructed and imagined - at several steps of training; kept in the run folder.

    It is the same moment as long as the replay holds it, so the columns differ by what was learned.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, settings = trainer, trainer.config.trainer
        self.folder = trainer.run.folder / "videos"
        self.due = [settings.warmup + max(1, round(share * (settings.env_steps - settings.warmup))) for share in SHARES]
        self.columns: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob("strip-?????????.npz")):
            if int(path.stem[6:]) > trainer.step:  # after the checkpoint that training goes on from: taken again
                remove(path)
                continue
            with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as arrays:
                self.columns.append({name: part if part.ndim else int(part) for name, part in arrays.items()})

    def extend(self, step: int) -> None:
        """Adds a column if a share of training has been reached since the last one."""
        last = self.columns[-1]["step"] if self.columns else 0
        config, replay = self.trainer.config, self.trainer.replay
        length = config.imagination.context_length + AHEAD
        if not any(last < due <= step for due in self.due) or len(replay) < length:
            return
        start = self.columns[-1]["start"] if self.columns else -1
        if start < replay.oldest:  # the first column, or a moment that the ring has forgotten
            lasting = replay.count - max(0, config.trainer.env_steps - config.replay.capacity)
            start = rollouts.lively(replay, length, lasting if lasting >= length else rollouts.RECENT)
        seen = rollouts.dream(self.trainer, start, AHEAD)
        shown = {"real": seen.real[-1], "reconstructed": seen.reconstructed[-1], "imagined": seen.imagined[-1]}
        self.columns.append({"step": step, "start": start, "ahead": AHEAD, **shown})
        self.write(f"strip-{step:09d}.npz", lambda file: np.savez_compressed(file, **self.columns[-1]))

    def finish(self) -> None:
        """The strip as a picture file, for who trained without a notebook."""
        if self.columns:
            self.write("strip.png", lambda file: file.write(plotting.strip(self.columns).png(dpi=200)))

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> None:
        """Writes a file at once or not at all; a full disk is only reported, as pictures are not worth a run."""
        try:
            self.folder.mkdir(exist_ok=True)
            replace(self.folder / name, fill)
        except (OSError, GlamkitError) as error:
            logger.warning("%s cannot be written (%s); training goes on without it.", name, reason(error))


def overview(trainer: Trainer) -> notebook.Table:
    """What is about to run, in a few rows, and everything in which it differs from the published setting."""
    config, settings, model = trainer.config, trainer.config.trainer, trainer.agent.world_model
    updates, random = settings.updates, config.random_steps
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model, trainer.agent.actor_critic)]
    changed, size = differences(Config(), config), config.env.image_size
    rows = [
        ("game", f"{config.env.game}: {model.actions} actions, {size} x {size} pixels"),
        ("preset", f"{config.preset}, seed {settings.seed}"),
        ("length", f"{settings.env_steps:,} agent steps, the first {random:,} at random; {updates:,} updates"),
        ("size", f"world model {sizes[0]:,} parameters, actor-critic {sizes[1]:,}"),
        ("machine", f"{trainer.machine}; GMamba's scan: {trainer.kernel}"),
        ("run folder", trainer.run.folder),
        ("start", f"goes on after step {trainer.step:,}" if trainer.step else "new run"),
    ]
    every = list(describe(config))
    table = [(key, value, changed[key][0], unit, why) for key, value, unit, why in every if key in changed]
    summary = f"{len(table)} of {len(every)} settings differ from the published ones"
    return notebook.Table(rows, summary, ("setting", "here", "published", "unit", "what it is"), table)
