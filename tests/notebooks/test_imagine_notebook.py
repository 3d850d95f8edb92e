"""Notebook 03 as papermill runs it and as it is read without a kernel: pictures, and nothing that needs one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from tiny_runs import finished, short

NOTEBOOK = ROOT / "notebooks" / "03_imagine.ipynb"
PICTURES = 6  # clip, where the studio's dream stood, futures, errors, worst, switches; starts are in the studio


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=NOTEBOOK.parent, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagine") / "catch"
    return finished(short("trainer.env_steps=80", game="glamkit/Catch-v0"), folder).run.folder


@pytest.mark.slow
def test_papermill_leaves_pictures_and_so_does_the_export(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "out.ipynb"
    done = python("papermill", "--no-progress-bar", NOTEBOOK, book, "-p", "run_dir", run, "-p", "horizon", 8)
    assert done.returncode == 0, done.stderr
    read = nbformat.read(book, as_version=4)
    kinds = [kind for cell in read.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert kinds.count("image/png") == PICTURES
    assert "widgets" not in read.metadata and not [kind for kind in kinds if "widget" in kind]
    assert not (run / "dreams").exists()
    done = python("nbconvert", "--to", "html", "--no-input", book, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out.html").read_text()
    sizes = [len(data) for data in re.findall(r'<img[^>]*src="data:image/png;base64,([^"]*)"', page)]
    assert len(sizes) == PICTURES and min(sizes) > 3000


def test_a_horizon_beyond_what_is_stored_gets_a_sentence(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "out.ipynb"
    done = python("papermill", "--no-progress-bar", NOTEBOOK, book, "-p", "run_dir", run, "-p", "horizon", 900)
    assert done.returncode == 1
    (output,) = (
        o
        for cell in nbformat.read(book, as_version=4).cells
        for o in cell.get("outputs", [])
        if o.output_type == "error"
    )
    assert len(output.traceback) == 1 and "use a horizon of at most 72." in output.traceback[0]
