"""What a notebook needs besides the method: parameters checked by name, who is watching, settings as a table."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glamkit.config import parameters
from glamkit.errors import GlamkitError, install, nearest, reason
from glamkit.runs import log, status
from glamkit.runs.folder import Run, resolve

if TYPE_CHECKING:
    from glamkit.plotting import Picture  # matplotlib takes half a second that `glamkit lab` need not wait for


def shell() -> Any:
    """The IPython shell this code runs in, or None in plain Python."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def is_interactive(choice: bool | None = None) -> bool:
    """Whether somebody watches: the choice, else not under GLAMKIT_BATCH=1, in plain Python or under papermill."""
    if choice is not None:
        return choice
    if os.environ.get("GLAMKIT_BATCH", "0") not in ("", "0"):
        return False
    # Papermill leaves no mark. But whoever runs a notebook without a person does not let it ask for input.
    return bool(getattr(getattr(shell(), "kernel", None), "_allow_stdin", False))


def check_parameters(cells: Sequence[str] | None = None, values: dict[str, Any] | None = None) -> None:
    """Checks the parameters by name and type, and puts values back as their annotations want them.

    From then on a name that nothing stands behind gets a sentence too, as where cells run out of order.

    Args:
        cells: the code of the cells that ran so far; by default those of this notebook.
        values: what the names stand for; by default in this notebook.

    Raises:
        GlamkitError: see `parameters.check`.
    """
    now = getattr(shell(), "user_ns", {}) if values is None else values
    now |= parameters.check(now.get("In", []) if cells is None else cells, now)
    if hasattr(shell(), "set_custom_exc"):
        shell().set_custom_exc((NameError,), _explain)


def _explain(shell: Any, kind: type[NameError], error: NameError, trace: Any, tb_offset: int | None = None) -> None:
    """Shows a NameError of a notebook's own line as one sentence, others as they are."""
    last = trace
    while last.tb_next is not None:
        last = last.tb_next
    if last.tb_frame.f_code.co_name == "<module>" and last.tb_frame.f_globals is shell.user_ns:
        sentence = parameters.missing(error.name or "", parameters.stated(shell.user_ns.get("In", [])))
        error._render_traceback_ = lambda: [f"{kind.__name__}: {sentence}"]  # type: ignore[attr-defined]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def alone(bundle: Any, sentence: str) -> Any:
    """A widget's mimebundle in which readers without a kernel find a sentence, and no empty strip."""
    plain = {"text/html": f"<p><i>{html.escape(sentence)}</i></p>", "text/plain": sentence}
    return {**bundle, **plain} if isinstance(bundle, dict) else bundle


def folder() -> Path:
    """Where the notebooks are: in the checkout, or in the installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parent / "notebooks"
    return checkout if (checkout / "02_train.ipynb").exists() else here / "notebooks"


def find(name: str) -> Path:
    """The notebook of that name, with or without its number or ending.

    Raises:
        GlamkitError: there is none.
    """
    known = {path.stem: path for path in sorted(folder().glob("*.ipynb"))}
    short = {stem.split("_", 1)[1]: stem for stem in known}
    stem = name.removesuffix(".ipynb")
    stem = short.get(stem, stem)
    if stem not in known:
        raise GlamkitError(f"unknown notebook {name!r}; {nearest(name, known)}")
    return known[stem]


def check_names(notebook: Path, names: Iterable[str]) -> None:
    """Refuses names that are no parameters of a notebook, before a kernel is started for it.

    Raises:
        GlamkitError: an unknown name, with the nearest right one.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    known = [name for cell in tagged for name in parameters.assigned(cell)]
    for name in names:
        if name not in known:
            raise GlamkitError(f"unknown parameter {name!r}; {nearest(name, known)}")


def place(target: str | None = None) -> tuple[Path, list[str]]:
    """A folder in which the notebooks can be opened and changed.

    Args:
        target: notebooks that are not there are copied to it; nothing takes those of the checkout, and from an
            installed package the folder ``notebooks`` here.

    Returns:
        The folder, and the names of notebooks in it that differ from the package's and were left as they are.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    source = folder()
    if target is None and source.parent.name != "glamkit":
        return source, []
    copied = Path(target or "notebooks")
    kept = []
    try:
        copied.mkdir(parents=True, exist_ok=True)
        for notebook in sorted(source.glob("*.ipynb")):
            own = copied / notebook.name
            if not own.exists():
                shutil.copyfile(notebook, own)
            elif own.read_bytes() != notebook.read_bytes():
                kept.append(own.name)
    except OSError as error:
        raise GlamkitError(f"the notebooks cannot be copied to {copied}: {reason(error)}.") from None
    return copied, kept


def require(module: str) -> None:
    """Makes sure that a package of the extra `lab` is installed.

    Raises:
        GlamkitError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise GlamkitError(f"{module} is not installed: {install('lab')}.")


class Bar:
    """A progress bar at one moment: HTML, so that a saved notebook shows it without a kernel or any widget."""

    def __init__(self, text: str, step: int, total: int, note: str = "") -> None:
        self.text, self.step, self.total, self.note = text, step, total, note

    def __repr__(self) -> str:
        return self.text + (f"\n{self.note}" if self.note else "")

    def _repr_html_(self) -> str:
        note = f"<div>{html.escape(self.note)}</div>" if self.note else ""
        bar = f'<progress value="{self.step}" max="{self.total}" style="width:100%"></progress>'
        text = html.escape(self.text).replace("  ", " &nbsp;·&nbsp; ")
        return f'<div class="glamkit-bar">{bar}<div>{text}</div>{note}</div>'


def watch(run_dir: str | Path, every: float = 3.0) -> None:
    """Follows a run that is trained elsewhere, until it ends; the stop button ends the watching, not the run.

    Args:
        run_dir: the run's folder; a relative path counts from the checkout.
        every: seconds between two looks.

    Raises:
        GlamkitError: there is no run.
    """
    from glamkit import plotting

    run, places = Run(resolve(run_dir)), dict[str, Any]()
    total, drawn = run.config().trainer.env_steps, -1
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            entries = log.entries(run.log_file)
            bar, ended = _progress(run, max((entry["step"] for entry in entries), default=0), total)
            _put(places, "bar", bar)
            if len(entries) != drawn and shell() is not None:
                _put(places, "curves", plotting.live(entries, total))
                drawn = len(entries)
            if ended:
                return
            time.sleep(every)


def _progress(run: Run, step: int, total: int) -> tuple[Bar, bool]:
    """Where a run is, and whether nobody works on it any more."""
    if not run.status_file.exists():
        return Bar(f"step {step}/{total}", step, total, "Nobody has trained this run yet."), True
    now = status.read(run.status_file)
    step, state = max(step, now.step), now.state
    if state == "running" and now.host == socket.gethostname() and not _alive(now.pid):
        state = f"its process is gone; what it had saved, {now.saved:,} steps, is kept: train it again to go on"
    return Bar(f"step {step}/{total}  {state}", step, total, now.reason), state != "running"


def _alive(pid: int) -> bool:
    """Whether a process of this machine is there; yes where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _put(places: dict[str, Any], name: str, shown: Any) -> None:
    """Shows something in its place of a notebook, or as a line elsewhere."""
    if shell() is None:
        sys.stdout.write(f"{shown!r}\n")
        return
    from IPython.display import display

    if name in places:
        places[name].update(shown)
    else:
        places[name] = display(shown, display_id=True)


class Folded:
    """A figure that a notebook shows on a click, below its summary."""

    def __init__(self, summary: str, picture: Picture) -> None:
        self.summary, self.picture = summary, picture

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
        summary = html.escape(self.summary)
        if self.folded:
            return f"{text}<details><summary>{summary}</summary>{_html_table(self.folded, self.header)}</details>"
        return text + (f"<div>{summary}</div>" if summary else "")


def _html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    lines = ["".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) for row in rows]
    if header:
        lines.insert(0, "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
