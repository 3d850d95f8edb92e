"""Makes many runs and shows their progress: a table that is updated in place, or plain lines in a log."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from glamkit.errors import GlamkitError, StoppedError
from glamkit.notebook import Live, Table, duration
from glamkit.sweeps.job import STATES, Job, JobProgress
from glamkit.sweeps.pool import Pool

LOOK = 2.0  # seconds between two looks into all folders


def run_jobs(pool: Pool) -> None:
    """Makes all runs that are not finished yet; can be interrupted and called again with a new pool.

    Raises:
        StoppedError: it was interrupted and nobody watches, or a time limit or a file STOP stopped a run.
        GlamkitError: a run failed.
    """
    table = StatusTable(pool)
    try:
        table.show(pool.tend())
        while pool.waiting or pool.running:
            time.sleep(0.2)
            table.show(pool.tend())
    except KeyboardInterrupt:
        killed = ", ".join(pool.stop())
        saved = f"but {killed} had to be killed before saving" if killed else "and everything is saved"
        note = f"stopped, {saved}: run it again to go on"
        table.draw(note)
        table.live.close()
        if not table.live.watched:
            raise StoppedError(f"{note}.") from None
        return
    except BaseException:
        pool.stop()
        raise
    ends = {"failed": len(pool.failed), "stopped": len(pool.stopped)}
    table.draw(", ".join(f"{count} {end}" for end, count in ends.items() if count) or "done")
    table.live.close()
    for name, lines in pool.failed.items():
        raise GlamkitError(f"{len(pool.failed)} of {len(pool.jobs)} runs failed; {name}: {lines[-1]}")
    for name, lines in pool.stopped.items():
        raise StoppedError(f"{len(pool.stopped)} of {len(pool.jobs)} runs stopped before the end; {name}: {lines[-1]}")


class StatusTable:
    """Shows the progress of a pool's runs: a table where somebody watches, elsewhere one line now and then."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.live = Live()
        self.live.every = max(self.live.every, LOOK)
        self.seen: dict[str, JobProgress] = {}

    def show(self, ended: Sequence[Job]) -> None:
        """Shows runs that have just ended, and all of them if it is time."""
        for job in [] if self.live.watched or self.live.terminal else ended:
            score = job.progress().score if job.done() else None
            text = (self.pool.failed | self.pool.stopped).get(job.name, ["failed, and is tried again"])[-1]
            self.live.show(f"{job.name}: {text if score is None else f'mean return {score:.2f}'}")
        if ended or self.live.due:
            self.draw()

    def draw(self, note: str = "") -> None:
        """Shows all runs now, in a terminal as many as fit; finished ones are not read again."""
        for job in self.pool.jobs:
            if job.name not in self.seen or self.seen[job.name].state != "done":
                self.seen[job.name] = job.progress()
        shown: Table | str = summary(self.seen, note)
        if self.live.watched or self.live.terminal:
            height = shutil.get_terminal_size().lines - 3 if self.live.terminal else None
            shown = Table(rows(self.seen)[:height], str(shown))
        self.live.show(shown)


def rows(seen: Mapping[str, JobProgress]) -> list[tuple[str, ...]]:
    """A header, and a row for each run; running and failed ones first."""
    lines: list[tuple[str, ...]] = [("run", "state", "step", "steps/s", "left", "mean return", "note")]
    for name, progress in sorted(seen.items(), key=lambda item: STATES.index(item[1].state)):
        record, running, notes = progress.record, progress.state == "running", list[str]()
        if record and record.attempt > 1:
            notes.append(f"attempt {record.attempt}")
        if record and running:
            notes.append(f"on {record.host}")
        if running and not progress.work:
            notes.append("evaluation")
        if record and progress.state in ("failed", "cut"):
            notes += record.error[-1:]
        step = f"{progress.step:,}/{progress.total:,}"
        speed = f"{progress.speed:.3g}" if running and progress.speed else ""
        left = duration(progress.work / progress.speed) if speed and progress.work else ""
        score = "" if progress.score is None else f"{progress.score:.2f}"
        lines.append((name, progress.state, step, speed, left, score, "  ".join(notes)))
    return lines


def summary(seen: Mapping[str, JobProgress], note: str = "") -> str:
    """``3 of 9 runs done, 2 running, 4 queued  step 900/2,700  12.3 steps/s  2m26s left``."""
    result = Counter(progress.state for progress in seen.values())
    counts = [f"{result[state]} {state}" for state in STATES if state != "done" and result[state]]
    step, total = sum(progress.step for progress in seen.values()), sum(progress.total for progress in seen.values())
    parts = [", ".join([f"{result['done']} of {len(seen)} runs done", *counts]), f"step {step:,}/{total:,}"]
    left = [progress.work for progress in seen.values() if progress.work and progress.state not in ("done", "failed")]
    known = [progress.speed for progress in seen.values() if progress.state == "running" and progress.speed]
    if note or result["done"] == len(seen):
        parts.append(note or "done")
    elif left and known:
        speed = sum(known) / len(known) * min(result["running"], len(left))  # others are in their evaluation
        parts += [f"{speed:.3g} steps/s", f"{duration(sum(left) / speed)} left"]
    elif result["running"]:
        parts.append("time left: not known yet" if left else "evaluation")
    return "  ".join(parts)
