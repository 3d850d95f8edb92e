"""What a notebook needs besides the method: parameters checked by name, who is watching, settings as a table."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from glamkit.config import Config, parameters
from glamkit.errors import GlamkitError, install
from glamkit.runs import log, status
from glamkit.runs.folder import Run, resolve
from glamkit.runs.session import held


def shell() -> Any:
    """The IPython shell this code runs in, or None in plain Python."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def cell() -> str:
    """The name that JupyterLab gives the cell that runs; empty elsewhere."""
    parent: dict[str, Any] = getattr(shell(), "get_parent", dict)()
    return str(parent.get("metadata", {}).get("cellId", ""))


def is_interactive() -> bool:
    """Whether somebody watches: not in plain Python or under papermill."""
    # Papermill leaves no mark. But whoever runs a notebook without a person does not let it ask for input.
    return bool(getattr(getattr(shell(), "kernel", None), "_allow_stdin", False))


def check_parameters(cells: Sequence[str] | None = None, values: dict[str, Any] | None = None) -> None:
    """Checks the parameters by name and type, and puts values back as their annotations want them.

    `cells` that ran so far and `values` of the names are by default this notebook's. Errors as in `parameters.check`.
    """
    now = getattr(shell(), "user_ns", {}) if values is None else values
    now |= parameters.check(now.get("In", []) if cells is None else cells, now)


def alone(bundle: dict[str, Any], sentence: str) -> dict[str, Any]:
    """A widget's mimebundle in which readers without a kernel find a sentence, and no empty strip."""
    return {**bundle, "text/html": f"<p><i>{html.escape(sentence)}</i></p>", "text/plain": sentence}


def folder() -> Path:
    """Where the notebooks are: in the checkout, or in the installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parent / "notebooks"
    return checkout if (checkout / "02_train.ipynb").exists() else here / "notebooks"


def require(module: str, extra: str = "lab") -> None:
    """Raises a GlamkitError if a package of one of glamkit's extras is not installed."""
    if importlib.util.find_spec(module) is None:
        raise GlamkitError(f"{module} is not installed: {install(extra)}.")


Tell = Callable[[str], object]  # is given lines about the progress of long work


class Live:
    """What changes while it is shown: replaced in place in a notebook or a terminal, elsewhere a new line now and then.

    Where nobody watches, `every` seconds lie between two lines; `stream` is by default the standard output.
    """

    def __init__(self, every: float = 10.0, stream: TextIO | None = None) -> None:
        self.watched = is_interactive()
        self.stream = stream or sys.stdout
        self.terminal = shell() is None and self.stream.isatty()
        self.every = min(every, 0.5) if self.watched or self.terminal else every
        self.next, self.lines = 0.0, 0
        self.handle: Any = None

    @property
    def due(self) -> bool:
        """Whether it is time to show something again."""
        return time.perf_counter() >= self.next

    def __call__(self, shown: object) -> None:
        """Shows it if it is time."""
        if self.due:
            self.show(shown)

    def show(self, shown: object) -> None:
        """Shows it now."""
        self.next = time.perf_counter() + self.every
        if self.watched:
            from IPython.display import display

            shown = Text(shown) if isinstance(shown, str) else shown
            if self.handle is None:
                self.handle = display(shown, display_id=True)
            else:
                self.handle.update(shown)
        elif self.terminal:
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in str(shown).splitlines()]
            back = f"\r\033[{self.lines - 1}A" if self.lines > 1 else "\r"
            self.stream.write(f"{back}\033[J" + "\n".join(lines))
            self.lines = len(lines)
        else:
            self.stream.write(f"{shown}\n")
        self.stream.flush()  # or it would sit in a buffer while people wonder

    def close(self) -> None:
        """Nothing more will be shown here: in a terminal, what follows begins on a line of its own."""
        if self.terminal and self.lines:
            self.stream.write("\n")
            self.stream.flush()
            self.lines = 0


class Text(str):
    """Text that a notebook shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


def duration(seconds: float) -> str:
    """``42s``, ``3m05s``, ``2h10m`` or ``4d03h``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


@dataclass
class Bar:
    """A progress bar at one moment: HTML, so that a saved notebook shows it without a kernel or any widget."""

    text: str
    step: int
    total: int
    note: str = ""

    def __repr__(self) -> str:
        return f"{self.text}\n{self.note}".rstrip()

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.step}" max="{self.total}" style="width:100%"></progress>'
        lines = f"<div>{_html_line(self.text)}</div><div>{html.escape(self.note)}</div>"
        return f'<div class="glamkit-bar">{bar}{lines}</div>'


def watch(run_dir: str | Path, every: float = 3.0) -> None:
    """Follows a run that is trained elsewhere, until it ends; the stop button ends the watching, not the run.

    `run_dir` may count from the checkout; `every` is in seconds. Where there is no run, a GlamkitError says so.
    """
    from glamkit import plotting

    run, bars, curves = Run(resolve(run_dir)), Live(), Live()
    config, drawn, ended = run.config(), -1, False
    with contextlib.suppress(KeyboardInterrupt):
        while not ended:
            entries = log.read(run.log_file)
            bar, ended = _progress(run, entries, config)
            if ended or bars.due:
                bars.show(bar)
            if len(entries) != drawn and curves.watched:
                curves.show(plotting.live(entries, config.trainer.env_steps))
                drawn = len(entries)
            if not ended:
                time.sleep(every)
    bars.close()


def _progress(run: Run, entries: list[dict[str, Any]], config: Config) -> tuple[Bar, bool]:
    """Where a run is, and whether nobody works on it any more."""
    total = config.trainer.env_steps
    if not run.status_file.exists():
        return Bar(f"step 0/{total}", 0, total, "Nobody has trained this run yet."), True
    now = status.read(run.status_file)
    step, state = max([now.step, *(entry["step"] for entry in entries)]), now.state
    if state == "running" and now.host == socket.gethostname() and not held(run.lock_file):
        state = f"its process is gone; what it had saved, {now.saved:,} steps, is kept: train it again to go on"
    ended = state != "running"
    if not ended and (speed := log.speed(entries, config)):
        state += f"  {speed:.1f} steps/s  {duration((total - step) / speed)} left"
    return Bar(f"step {step}/{total}  {state}", step, total, now.reason), ended


@dataclass
class Folded:
    """A figure that a notebook shows on a click, below its summary."""

    summary: str
    picture: Any  # a `plotting.Picture`

    def __repr__(self) -> str:
        return f"(a picture: {self.summary})"

    def _repr_html_(self) -> str:
        return f"<details><summary>{html.escape(self.summary)}</summary>{self.picture.html()}</details>"


class Table:
    """Rows of text that a notebook shows as a table; `folded` rows are shown on a click, below `summary`."""

    def __init__(
        self,
        rows: Iterable[Sequence[object]],
        summary: str = "",
        header: Sequence[str] = (),
        folded: Iterable[Sequence[object]] = (),
    ) -> None:
        self.rows, self.folded = [list(map(str, row)) for row in rows], [list(map(str, row)) for row in folded]
        self.summary, self.header = summary, list(header)

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in self.rows]
        return "\n".join([*lines, *([self.summary] if self.summary else [])])

    def _repr_html_(self) -> str:
        text = _html_table(self.rows)
        summary = _html_line(self.summary)
        if self.folded:
            return f"{text}<details><summary>{summary}</summary>{_html_table(self.folded, self.header)}</details>"
        return text + (f"<div>{summary}</div>" if summary else "")


def _html_line(text: str) -> str:
    """One line, whose parts two spaces divide: HTML would show them as one."""
    return html.escape(text).replace("  ", " &nbsp;·&nbsp; ")


def _html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    lines = ["".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) for row in rows]
    if header:
        lines.insert(0, "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
