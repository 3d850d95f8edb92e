"""The notebooks as files: found by name, written beside a run, copied to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from glamkit.errors import GlamkitError, nearest, reason
from glamkit.notebook import folder
from glamkit.runs.files import make_folder
from glamkit.runs.folder import resolve

TRAINING = "02_train"  # the notebook that makes a run, where the others look at one


def find(name: str) -> Path:
    """The notebook of that name, with or without its number or ending.

    Raises:
        GlamkitError: there is none.
    """
    known = {path.stem: path for path in sorted(folder().glob("*.ipynb"))}
    short = {stem.split("_", 1)[-1]: stem for stem in known}
    stem = name.removesuffix(".ipynb")
    stem = short.get(stem, stem)
    if stem not in known:
        raise GlamkitError(f"unknown notebook {name!r}; {nearest(name, known)}")
    return known[stem]


def output(notebook: Path, run_dir: str, target: str | None) -> Path:
    """The file that an executed notebook is written to, of which the folder is made.

    Without a `target` it lies in the run's folder. Only a notebook that trains makes that one: for one that looks,
    `run_dir` may also be a shared file or the name of a shipped run, and the folder is runs/notebooks then.

    Raises:
        GlamkitError: nothing can be written there.
    """
    beside = bool(run_dir) and (notebook.stem == TRAINING or resolve(run_dir).is_dir())
    path = Path(target) if target else resolve(run_dir if beside else "runs/notebooks") / notebook.name
    make_folder(path.parent)
    if path.is_dir():
        raise GlamkitError(f"{path} is a folder; name a file for the executed notebook.")
    return path


def place(target: str | None = None) -> tuple[Path, list[str]]:
    """A folder in which the notebooks can be opened and changed: `target`, to which those not there are copied.

    Without one it is that of the checkout, or ``notebooks`` here where the package is installed. Returns the names of
    notebooks too that differ from the package's and were left as they are.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    source = folder()
    if target is None and source.parent != Path(__file__).resolve().parents[1]:
        return source, []
    copied = Path(target or "notebooks")
    make_folder(copied)
    kept = []
    try:
        for notebook in sorted(source.glob("*.ipynb")):
            own = copied / notebook.name
            if not own.exists():
                shutil.copyfile(notebook, own)
            elif own.read_bytes() != notebook.read_bytes():
                kept.append(own.name)
    except OSError as error:
        raise GlamkitError(f"the notebooks cannot be copied to {copied}: {reason(error)}.") from None
    return copied, kept
