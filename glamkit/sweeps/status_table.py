"""Makes many runs and shows their progress: a table that is updated in place, or plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from glamkit.errors import GlamkitError, StoppedError
from glamkit.notebook import Bar, Live, Table, duration
from glamkit.sweeps.job import STATES, Job, JobProgress
from glamkit.sweeps.pool import Pool

COLUMNS = ("run", "state", "step", "steps/s", "left", "mean return", "note")
LOOK = 2.0  # seconds between two looks into all folders
ERROR_LINES = 5  # of a failed run, in the report at the end


def run_jobs(pool: Pool) -> None:
    """Makes all runs that are not finished yet; can be interrupted and called again with a new pool.

    Raises:
        StoppedError: it was interrupted and nobody watches, a run stopped by a time limit or a file STOP, or another
            process is making one.
        GlamkitError: a run failed.
    """
    table = StatusTable(pool)
    try:
        table.show(pool.tend())
        while pool.busy:
            time.sleep(0.2)
            table.show(pool.tend())
    except KeyboardInterrupt:
        killed = ", ".join(pool.stop())
        saved = f"but {killed} had to be killed before saving" if killed else "and everything is saved"
        table.finish(f"stopped, {saved}: run it again to go on")
        if not table.live.watched:
            raise StoppedError(f"stopped with {done(table.seen)}, {saved}; run it again to go on.") from None
        return
    except BaseException:
        pool.stop()
        raise
    elsewhere = {
        job.name: pool.elsewhere[job.name] for job in pool.jobs if job.name in pool.elsewhere and not job.done()
    }
    ends = {"failed": len(pool.failed), "stopped": len(pool.stopped), "made by another process": len(elsewhere)}
    table.finish(", ".join(f"{count} {end}" for end, count in ends.items() if count) or "done")
    for name, lines in pool.failed.items():
        raise GlamkitError(f"{len(pool.failed)} of {len(pool.jobs)} runs failed; {name}: {lines[-1]}")
    for name, lines in pool.stopped.items():
        raise StoppedError(f"{len(pool.stopped)} of {len(pool.jobs)} runs stopped before the end; {name}: {lines[-1]}")
    for name, lines in elsewhere.items():
        raise StoppedError(f"{len(elsewhere)} of {len(pool.jobs)} runs left to other processes; {name}: {lines[-1]}.")


class StatusTable:
    """The progress of all runs: a table in a notebook, as many rows as fit in a terminal, elsewhere one line.

    Args:
        pool: makes the runs.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool, self.note = pool, ""
        self.live = Live()
        self.live.every = max(self.live.every, LOOK)
        self.seen: dict[str, JobProgress] = {}
        self.look()

    def look(self) -> None:
        """Reads the progress of all runs; finished ones are not read again."""
        ahead = {job.name for job, _ in self.pool.waiting} | {process.job.name for process in self.pool.running}
        for job in self.pool.jobs:
            if job.name not in self.seen or self.seen[job.name].state != "done":
                result = job.progress()
                # Begun by nobody yet, or ended and to be tried again: its process has not come round to say so.
                again = job.name in ahead and result.state in ("failed", "cut")
                self.seen[job.name] = result._replace(state="queued") if again else result

    def show(self, ended: Sequence[Job] = ()) -> None:
        """Shows runs that have just ended, and all of them if it is time."""
        for job in [] if self.live.watched or self.live.terminal else ended:
            score = job.score() if job.done() else None
            known = self.pool.failed | self.pool.stopped | self.pool.elsewhere
            text = known.get(job.name, ["failed, and is tried again"])[-1]
            write(f"{job.name}: {text if score is None else f'mean return {score:.2f}'}")
        if ended or self.live.due:
            self.look()
            self.live.show(self)

    def finish(self, note: str) -> None:
        """Shows the last state, with a note in its summary, and the errors of runs that failed."""
        self.note = note
        self.look()
        self.live.show(self)
        self.live.close()
        for name, lines in self.pool.failed.items():
            write("\n".join([f"{name} failed:", *(f"    {line}" for line in lines[-ERROR_LINES:])]))

    def __repr__(self) -> str:
        line = summary(self.seen, self.note)
        if not self.live.terminal:
            return line
        fitting = repr(Table(rows(self.seen))).splitlines()[: max(1, shutil.get_terminal_size().lines - 3)]
        return "\n".join([*fitting, "", line])

    def _repr_html_(self) -> str:
        step, total = steps(self.seen)
        bar = Bar(summary(self.seen, self.note), step, total)
        return bar._repr_html_() + Table(rows(self.seen))._repr_html_()


def write(line: str) -> None:
    """Writes one line without delay."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def rows(seen: Mapping[str, JobProgress]) -> list[tuple[str, ...]]:
    """A header, and a row for each run; running and failed ones first."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    for name, progress in sorted(seen.items(), key=lambda item: STATES.index(item[1].state)):
        score, left, record = progress.score, progress.left, progress.record
        running, notes = progress.state == "running", list[str]()
        if record and record.attempt > 1:
            notes.append(f"attempt {record.attempt}")
        if record and running:
            notes.append(f"on {record.host}")
        if running and not progress.work:
            notes.append("evaluation" if score is None else "last pictures")
        if progress.cut:
            notes.append(f"games cut after {progress.cut:,} steps")
        if record and progress.state in ("failed", "cut"):
            notes += record.error[-1:]
        lines.append(
            (
                name,
                progress.state,
                f"{progress.step:,}/{progress.total:,}",
                f"{progress.speed:.3g}" if progress.speed and running else "",
                "" if left is None else duration(left),
                "" if score is None else f"{score:.2f}",
                "  ".join(notes),
            )
        )
    return lines


def done(seen: Mapping[str, JobProgress]) -> str:
    """``3 of 9 runs done``."""
    return f"{sum(progress.state == 'done' for progress in seen.values())} of {len(seen)} runs done"


def steps(seen: Mapping[str, JobProgress]) -> tuple[int, int]:
    """Agent steps of all runs together: those that are made, and all."""
    return sum(progress.step for progress in seen.values()), sum(progress.total for progress in seen.values())


def summary(seen: Mapping[str, JobProgress], note: str = "") -> str:
    """``3 of 9 runs done, 2 running, 4 queued  step 900/2,700  12.3 steps/s  2m26s left``."""
    result, (step, total) = Counter(progress.state for progress in seen.values()), steps(seen)
    counts = [f"{result[state]} {state}" for state in STATES if state != "done" and result[state]]
    parts = [", ".join([done(seen), *counts]), f"step {step:,}/{total:,}"]
    left = [progress.work for progress in seen.values() if progress.work and progress.state not in ("done", "failed")]
    work = sum(left)
    known = [progress.speed for progress in seen.values() if progress.state == "running" and progress.speed]
    if note or result["done"] == len(seen):
        parts.append(note or "done")
    elif not result["running"] and not result["queued"]:
        pass  # nobody is at work, so nothing is expected
    elif not work or not known:
        parts.append("time left: not known yet" if work else "evaluation")
    else:
        speed = sum(known) / len(known) * min(result["running"], len(left))  # others are in their evaluation
        parts += [f"{speed:.3g} steps/s", f"{duration(work / speed)} left"]
    return "  ".join(parts)
