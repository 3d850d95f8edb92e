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
    """The notebook of that name, with or without its number or ending."""
    known = {path.stem: path for path in sorted(folder().glob("*.ipynb"))}
    short = {stem.partition("_")[2]: path for stem, path in known.items()}
    path = (short | known).get(name.removesuffix(".ipynb"))
    if path is None:
        raise GlamkitError(f"unknown notebook {name!r}; {nearest(name, known)}")
    return path


def output(notebook: Path, run_dir: str, target: str | None) -> Path:
    """The file that an executed notebook is written to, of which the folder is made.

    Without a `target` it lies in the run's folder. Only a notebook that trains makes that one: for one that looks,
    `run_dir` may also be a shared file or the name of a shipped run, and the folder is runs/notebooks then.
    """
    beside = bool(run_dir) and (notebook.stem == TRAINING or resolve(run_dir).is_dir())
    path = Path(target) if target else resolve(run_dir if beside else "runs/notebooks") / notebook.name
    make_folder(path.parent)
    return path


def place(target: str | None) -> Path:
    """A folder in which the notebooks can be opened and changed: `target`, to which those not there are copied.

    Without one it is that of the checkout, or ``notebooks`` here where the package is installed.
    """
    source = folder()
    if target is None and source.parent != Path(__file__).resolve().parents[1]:
        return source
    copied = Path(target or "notebooks")
    make_folder(copied)
    try:
        for notebook in source.glob("*.ipynb"):
            if not (copied / notebook.name).exists():
                shutil.copyfile(notebook, copied / notebook.name)
    except OSError as error:
        raise GlamkitError(f"the notebooks cannot be copied to {copied}: {reason(error)}.") from None
    return copied
