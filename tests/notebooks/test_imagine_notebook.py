"""Notebook 03 as papermill runs it and as it is read without a kernel: pictures, and nothing that needs one."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from books import NOTEBOOKS, executed, exported_pictures, outputs
from tiny_runs import finished, short

from glamkit.errors import GlamkitError

NAME = "03_imagine"
PICTURES = 6  # clip, where the studio's dream stood, futures, errors, worst, switches; starts are in the studio


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagine") / "catch"
    return finished(short("trainer.env_steps=80", game="glamkit/Catch-v0"), folder).run.folder


@pytest.mark.slow
def test_papermill_leaves_pictures_and_so_does_the_export(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "out.ipynb"
    read = executed(NAME, book, run_dir=run, horizon=8)
    kinds = outputs(read)
    assert kinds.count("image/png") == PICTURES
    assert "widgets" not in read.metadata and not [kind for kind in kinds if "widget" in kind]
    assert not (run / "dreams").exists()
    sizes = exported_pictures(book)
    assert len(sizes) == PICTURES and min(sizes) > 3000


def test_a_horizon_beyond_what_is_stored_gets_a_sentence(run: Path) -> None:
    book = nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4)
    parameters, setup, *_ = [cell.source for cell in book.cells if cell.cell_type == "code"]
    namespace: dict[str, object] = {}
    exec(parameters, namespace)
    with pytest.raises(GlamkitError, match=r"more than the 80 that are stored; use a smaller horizon or context\.$"):
        exec(setup, namespace | {"run_dir": str(run), "horizon": 900})
