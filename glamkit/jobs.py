"""Runs side by side: a process for each, progress for all of them, and nothing done twice.

A run that has its evaluation is finished and left alone; one that was cut is resumed. Who starts the processes holds
the other end of their standard input: when it closes, by the stop button or because the starter died, they save and
end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from glamkit import notebook
from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.monitor import Pace, duration
from glamkit.run import Run
from glamkit.settings import coerce

TAIL = 65_536  # bytes of a log in which its last line is looked for
PATIENCE = 60.0  # seconds in which a process that was asked to stop must have saved


class Job(NamedTuple):
    """A run to be made: its folder and its config."""

    run: Run
    config: Config

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.folder.name

    @property
    def total(self) -> int:
        """Agent steps of the whole run."""
        return self.config.trainer.env_steps

    def step(self) -> int:
        """Agent steps that the log has reached."""
        try:
            with self.run.log_file.open("rb") as file:
                file.seek(max(0, self.run.log_file.stat().st_size - TAIL))
                lines = file.read().splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return int(json.loads(line)["step"])
        return 0

    def score(self) -> float | None:
        """The mean return of the final evaluation, or None while the run is not finished."""
        try:
            report = json.loads(self.run.evaluation_file.read_text(encoding="utf-8"))
            return float(report["mean_return"]) if report["step"] == self.total else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Crew:
    """The processes: at most `workers` at once, which share the CPU's cores.

    Raises:
        GlamkitError: a job's folder holds another experiment or cannot be written; nothing is started then.
    """

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        for job in jobs:
            job.run.check(job.config, resume=True)
        self.jobs, self.workers = list(jobs), workers
        self.threads = max(1, cores() // workers)
        self.waiting = deque(job for job in jobs if job.score() is None)
        self.running: list[tuple[Job, subprocess.Popen[str]]] = []
        self.failed: dict[str, str] = {}

    def tend(self) -> list[Job]:
        """Starts what there is room for; returns the jobs that have ended since the last call."""
        ended = [(job, process) for job, process in self.running if process.poll() is not None]
        self.running = [pair for pair in self.running if pair not in ended]
        for job, process in ended:
            errors, status = errors_of(job), process.returncode
            if status:
                why = f"killed by signal {-status}; was there memory enough?" if status < 0 else f"status {status}"
                self.failed[job.name] = errors[-1] if errors else why
            if process.stdin:
                process.stdin.close()
        while self.waiting and len(self.running) < self.workers:
            job = self.waiting.popleft()
            self.running.append((job, self.start(job)))
        return [job for job, _ in ended]

    def start(self, job: Job) -> subprocess.Popen[str]:
        """A process that trains and evaluates a job; in a session of its own, as Ctrl+C in a terminal is for us."""
        threads = {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "MKL", "OPENBLAS")}
        with errors_file(job).open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "glamkit.worker", str(job.run.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=threads | os.environ,  # what was set by hand counts
                text=True,
                start_new_session=True,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; `tend` will say why
            process.stdin.write(job.config.to_json().replace("\n", "") + "\n")
            process.stdin.flush()
        return process

    def stop(self) -> None:
        """Lets all processes save and end; one that takes too long is killed, as all are by a second interrupt."""
        self.waiting.clear()
        for _, process in self.running:
            if process.stdin:
                process.stdin.close()
        deadline = time.monotonic() + PATIENCE
        try:
            for _, process in self.running:
                process.wait(max(0.1, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for _, process in self.running:
                process.kill()
                process.wait()
        self.tend()


def run_jobs(
    jobs: Sequence[Job], workers: int | None = None, interactive: bool | None = None, every: float = 10.0
) -> None:
    """Makes all runs that are not finished yet; can be interrupted and called again.

    Args:
        jobs: the runs, in the order in which they are started.
        workers: processes at once; None for one per CPU core.
        interactive: whether somebody watches; None finds out (see `notebook.is_interactive`).
        every: seconds between two plain lines where nobody does.

    Raises:
        GlamkitError: a folder holds another experiment, a run failed, or it was stopped and nobody watches.
    """
    count = coerce("workers", cores() if workers is None else workers, int)
    if count < 1:
        raise GlamkitError(f"workers = {count} is outside its range: at least 1.")
    crew = Crew(jobs, min(count, max(1, len(jobs))))
    board = Board(crew, notebook.is_interactive(interactive) and notebook.shell() is not None, every)
    try:
        board.show(crew.tend())
        while crew.running:
            time.sleep(0.2)
            board.show(crew.tend())
    except KeyboardInterrupt:
        crew.stop()
        board.finish("stopped, and everything is saved: run it again to go on")
        if not board.interactive:
            raise GlamkitError(f"stopped with {board.done()} and saved; run it again to go on.") from None
        return
    except BaseException:
        crew.stop()
        raise
    board.finish("done" if not crew.failed else f"{len(crew.failed)} failed")
    for name, why in crew.failed.items():
        raise GlamkitError(f"{len(crew.failed)} of {len(jobs)} runs failed; {name}: {why}")


class Board:
    """What the processes are doing, in place in a notebook that somebody watches, else as plain lines."""

    def __init__(self, crew: Crew, interactive: bool, every: float) -> None:
        self.crew, self.interactive, self.every = crew, interactive, 2.0 if interactive else every
        self.steps = {job.name: job.step() for job in crew.jobs}
        self.pace = Pace(sum(self.steps.values()), 0, span=600.0)
        self.note, self.next, self.handle = "", 0.0, None

    def show(self, ended: Sequence[Job] = ()) -> None:
        """Tells of runs that have just ended, and of all of them if it is time."""
        for job in [] if self.interactive else ended:
            score = job.score()
            said = self.crew.failed.get(job.name, "") if score is None else f"mean return {score:.2f}"
            self.write(f"{job.name}: {said}")
        if ended or time.perf_counter() >= self.next:
            self.steps |= {job.name: job.step() for job, _ in self.crew.running} | {j.name: j.step() for j in ended}
            self.pace.note(sum(self.steps.values()))
            self.draw()
            self.next = time.perf_counter() + self.every

    def finish(self, note: str) -> None:
        """The last state."""
        self.note = note
        self.draw()

    def draw(self) -> None:
        """The present state."""
        if not self.interactive:
            self.write(self.state())
        elif self.handle is None:
            from IPython.display import display

            self.handle = display(self, display_id=True)
        else:
            self.handle.update(self)

    def write(self, line: str) -> None:
        """One line, at once."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def done(self) -> str:
        """``3 of 9 runs done``."""
        return f"{sum(job.score() is not None for job in self.crew.jobs)} of {len(self.crew.jobs)} runs done"

    def state(self) -> str:
        """Where all runs are, in one line."""
        step, total = sum(self.steps.values()), sum(job.total for job in self.crew.jobs)
        parts = [self.done(), f"step {step:,}/{total:,}"]
        if self.note:
            return "  ".join([*parts, self.note])
        left = self.pace.left(total)
        parts += [f"{self.pace.speed:.1f} steps/s"] if self.pace.speed else []
        return "  ".join([*parts, "time left: not known yet" if left is None else f"{duration(left)} left"])

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Each run: name, step, and what it is doing."""
        running = {job.name for job, _ in self.crew.running}
        for job in self.crew.jobs:
            score, step = job.score(), self.steps[job.name]
            doing = "evaluating" if step == job.total else "training"
            doing = doing if job.name in running else self.crew.failed.get(job.name, "waiting")
            yield job.name, f"{step:,}/{job.total:,}", doing if score is None else f"mean return {score:.2f}"

    def __repr__(self) -> str:
        return self.state()

    def _repr_html_(self) -> str:
        total = sum(job.total for job in self.crew.jobs)
        bar = f'<progress value="{sum(self.steps.values())}" max="{total}" style="width:100%"></progress>'
        return f"<div>{bar}<div>{escape(self.state())}</div></div>{notebook.Table(self.rows())._repr_html_()}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def errors_file(job: Job) -> Path:
    """Where a process writes what went wrong."""
    return job.run.folder / "errors.txt"


def errors_of(job: Job) -> list[str]:
    """What a process wrote there; an empty file is removed."""
    path = errors_file(job)
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        path.unlink()
    return lines
