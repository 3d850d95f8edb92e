"""Notebooks run by papermill and exported, as a batch does it and as they are read without a kernel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from conftest import ROOT

from glamkit.runs import log

NOTEBOOKS = ROOT / "notebooks"
TRAIN = NOTEBOOKS / "02_train.ipynb"


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``python -m`` with these arguments, in the notebooks' folder as JupyterLab would."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=NOTEBOOKS, env=environment, text=True, capture_output=True, check=False)


@contextlib.contextmanager
def started(*given: Any, **named: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, by what `Popen` takes; it ends with the block, also where a test fails in it."""
    with subprocess.Popen(*given, **named) as process:
        try:
            yield process
        finally:
            process.kill()


def executed(name: str, book: Path, **parameters: object) -> nbformat.NotebookNode:
    """The notebook `name`, run with these parameters and kept in `book`."""
    pairs = [part for key, value in parameters.items() for part in ("-p", key, value)]
    done = python("papermill", "--no-progress-bar", NOTEBOOKS / f"{name}.ipynb", book, *pairs)
    assert done.returncode == 0, done.stderr
    return nbformat.read(book, as_version=4)


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder with its checksum and its time of change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def outputs(book: nbformat.NotebookNode) -> list[str]:
    """The kinds of everything a notebook shows."""
    return [kind for cell in book.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]


def exported_pictures(book: Path) -> list[int]:
    """Sizes of the pictures in the HTML that a notebook is exported to, in characters."""
    done = python("nbconvert", "--to", "html", "--no-input", book, "--output-dir", book.parent)
    assert done.returncode == 0, done.stderr
    page = book.with_suffix(".html").read_text()
    return [len(data) for data in re.findall(r'<img[^>]*src="data:image/png;base64,([^"]*)"', page)]


# 02_train with the preset debug ---------------------------------------------------------------------------------------


class Result(NamedTuple):
    status: int
    errors: str
    book: nbformat.NotebookNode


def command(output: Path, *parameters: str) -> list[str]:
    pairs = [part for pair in parameters for part in ("-p", *pair.split("=", 1))]
    return [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(TRAIN),
        str(output),
        "-p",
        "preset",
        "debug",
        *pairs,
    ]


def papermill(output: Path, *parameters: str) -> Result:
    """Runs 02_train with preset=debug and `name=value` parameters, in the notebooks' folder as JupyterLab would."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(output, *parameters), cwd=TRAIN.parent, env=environment, text=True, capture_output=True, check=False
    )
    return Result(done.returncode, done.stderr, nbformat.read(output, as_version=4))


def last_step(folder: Path) -> int:
    return log.last_step(folder / "metrics.jsonl")
