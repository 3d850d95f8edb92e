"""Notebook 04 as papermill runs it and as it is read without a kernel: pictures, and the run left as it was."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from books import NOTEBOOKS, contents, executed, exported_pictures, outputs
from tiny_runs import finished, short

from glamkit.errors import GlamkitError
from glamkit.notebook import check_parameters

NAME = "04_variation"
PICTURES = 4  # where, step, predicted, branches


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = short("trainer.update_every=8", env_steps=120, game="glamkit/Catch-v0")
    return finished(config, tmp_path_factory.mktemp("variation") / "catch").run.folder


def cells() -> list[str]:
    book = nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_papermill_leaves_pictures_and_so_does_the_export(run: Path, tmp_path: Path) -> None:
    before, book = contents(run), tmp_path / "out.ipynb"
    read = executed(NAME, book, run_dir=run, length=40)
    kinds = outputs(read)
    assert kinds.count("image/png") == PICTURES
    assert "widgets" not in read.metadata and not [kind for kind in kinds if "widget" in kind]
    sizes = exported_pictures(book)
    assert len(sizes) == PICTURES and min(sizes) > 10_000
    assert contents(run) == before and not list(run.rglob("*.tmp"))


MISTAKES = [
    ({"run_dir": "NOWHERE"}, "holds no run: there is no config.json in it."),
    ({"checkpoint": 7}, "holds no checkpoint of step 7, but those of 100 and 120"),
    ({"seed": -1}, "seed = -1 is outside 0 to"),
    ({"start": 2}, "start = 2 with length = "),
    ({"length": 300}, "with length = 300 is not within the steps that can be looked at"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=lambda value: str(value)[:20])
def test_a_mistake_gets_a_sentence(run: Path, mistake: dict[str, object], message: str, tmp_path: Path) -> None:
    parameters, setup, *_ = cells()
    namespace: dict[str, object] = {}
    exec(parameters, namespace)
    assert set(mistake) <= set(namespace)
    given = {name: str(tmp_path) if value == "NOWHERE" else value for name, value in mistake.items()}
    with pytest.raises(GlamkitError) as error:
        exec(setup, namespace | {"run_dir": str(run), "held_out": False, **given})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_mistyped_parameter_is_named() -> None:
    parameters, setup, *_ = cells()
    assert "check_parameters()" in setup
    with pytest.raises(GlamkitError, match="unknown parameter 'lenght'; did you mean 'length'"):
        check_parameters([parameters, "# Parameters\nlenght = 1\n"])
