"""Makes many runs and shows their progress: a table that is updated in place, or plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from glamkit import notebook
from glamkit.errors import GlamkitError, StoppedError
from glamkit.notebook import Live, duration
from glamkit.sweeps.job import STATES, Job, JobProgress
from glamkit.sweeps.pool import Engine, Pool

COLUMNS = ("run", "state", "step", "steps/s", "left", "mean return", "note")
ORDER = {state: place for place, state in enumerate(("running", "failed", "cut", "queued", "done"))}
LOOK = 2.0  # seconds between two looks into all folders
ERROR_LINES = 5  # of a failed run, in the report at the end


def run_jobs(jobs: Sequence[Job], engine: Engine, retries: int = 0) -> None:
    """Makes all runs that are not finished yet; can be interrupted and called again.

    Args:
        jobs: the runs, in the order in which they are started.
        engine: where they are made.
        retries: how often a run that failed is tried again.

    Raises:
        StoppedError: it was interrupted and nobody watches, or a run stopped by a time limit or a file STOP.
        GlamkitError: a folder holds another experiment, or a run failed.
    """
    pool = Pool(jobs, engine, retries)
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
            raise StoppedError(f"stopped with {table.done()}, {saved}; run it again to go on.") from None
        return
    except BaseException:
        pool.stop()
        raise
    ends = {"failed": len(pool.failed), "stopped": len(pool.stopped)}
    table.finish(", ".join(f"{count} {end}" for end, count in ends.items() if count) or "done")
    for name, lines in pool.failed.items():
        raise GlamkitError(f"{len(pool.failed)} of {len(jobs)} runs failed; {name}: {lines[-1]}")
    for name, lines in pool.stopped.items():
        raise StoppedError(f"{len(pool.stopped)} of {len(jobs)} runs stopped before the end; {name}: {lines[-1]}")


class StatusTable:
    """The progress of all runs, as a table.

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
        ahead = {job.name for _, job, _ in self.pool.waiting} | {task.job.name for task in self.pool.running}
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
            text = (self.pool.failed | self.pool.stopped).get(job.name, ["failed, and is tried again"])[-1]
            self.write(f"{job.name}: {text if score is None else f'mean return {score:.2f}'}")
        if ended or self.live.due:
            self.look()
            self.draw()

    def finish(self, note: str) -> None:
        """Shows the last state and the errors of runs that failed.

        Args:
            note: added to the summary.
        """
        self.note = note
        self.look()
        self.draw()
        self.live.close()
        for name, lines in self.pool.failed.items():
            self.write("\n".join([f"{name} failed:", *(f"    {line}" for line in lines[-ERROR_LINES:])]))

    def draw(self) -> None:
        """Shows the present state."""
        self.live.show("\n".join(self.screen(shutil.get_terminal_size())) if self.live.terminal else self)

    def screen(self, size: tuple[int, int]) -> list[str]:
        """The lines of the table that fit on a terminal of `size` (columns, lines), and the summary."""
        lines = [*repr(notebook.Table(rows(self.seen))).splitlines()[: max(1, size[1] - 3)], "", self.state()]
        return [line[: size[0] - 1] for line in lines]

    def write(self, line: str) -> None:
        """Writes one line without delay."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def done(self) -> str:
        """``3 of 9 runs done``."""
        return f"{sum(p.state == 'done' for p in self.seen.values())} of {len(self.seen)} runs done"

    def state(self) -> str:
        """The progress of all runs, in one line."""
        return summary(self.seen, self.note)

    def __repr__(self) -> str:
        return self.state()

    def _repr_html_(self) -> str:
        return html(self.seen, self.note)


def rows(seen: Mapping[str, JobProgress]) -> list[tuple[str, ...]]:
    """A header, and a row for each run; running and failed ones first."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    for name, progress in sorted(seen.items(), key=lambda item: ORDER[item[1].state]):
        score, left, record = progress.score, progress.left, progress.record
        note = f"attempt {record.attempt}" if record and record.attempt > 1 else ""
        if progress.state == "running":
            end = "" if progress.work else "evaluation" if score is None else "last pictures"
            note = "  ".join(filter(None, [note, f"on {record.host}" if record else "", end]))
        elif record and progress.state in ("failed", "cut"):
            note = "  ".join(filter(None, [note, *record.error[-1:]]))
        lines.append(
            (
                name,
                progress.state,
                f"{progress.step:,}/{progress.total:,}",
                f"{progress.speed:.3g}" if progress.speed and progress.state == "running" else "",
                "" if left is None else duration(left),
                "" if score is None else f"{score:.2f}",
                note,
            )
        )
    return lines


def summary(seen: Mapping[str, JobProgress], note: str = "") -> str:
    """``3 of 9 runs done, 2 running, 4 queued  step 900/2,700  12.3 steps/s  2m26s left``."""
    result = Counter(progress.state for progress in seen.values())
    counts = [f"{result[state]} {state}" for state in STATES if state != "done" and result[state]]
    step, total = (sum(getattr(p, name) for p in seen.values()) for name in ("step", "total"))
    parts = [", ".join([f"{result['done']} of {len(seen)} runs done", *counts]), f"step {step:,}/{total:,}"]
    if note or result["done"] == len(seen):
        return "  ".join([*parts, note or "done"])
    if not result["running"] and not result["queued"]:  # nobody is at work, so nothing is expected
        return "  ".join(parts)
    work = sum(progress.work for progress in seen.values() if progress.state not in ("done", "failed"))
    known = [progress.speed for progress in seen.values() if progress.state == "running" and progress.speed]
    if not work or not known:
        return "  ".join([*parts, "time left: not known yet" if work else "evaluation"])
    speed = sum(known) / len(known) * result["running"]
    return "  ".join([*parts, f"{speed:.3g} steps/s", f"{duration(work / speed)} left"])


def html(seen: Mapping[str, JobProgress], note: str = "") -> str:
    """Progress bar, summary and table as HTML."""
    step, total = (sum(getattr(p, name) for p in seen.values()) for name in ("step", "total"))
    bar = notebook.Bar(summary(seen, note), step, total)
    return bar._repr_html_() + notebook.Table(rows(seen))._repr_html_()
