"""05_report: without runs, with made-up ones, and with mistakes in its parameters."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from books import NOTEBOOKS, executed
from made_runs import made_run, made_two_games

from glamkit.errors import GlamkitError
from glamkit.report.report import Report

FEW = 40  # bootstrap repeats
BOOK = NOTEBOOKS / "05_report.ipynb"


def cells() -> list[str]:
    return [cell.source for cell in nbformat.read(BOOK, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebook_without_runs(tmp_path: Path) -> None:
    """Every cell, in this process."""
    namespace: dict[str, object] = {}
    for number, cell in enumerate(cells()):
        exec(cell, namespace)
        namespace |= {"repeats": FEW, "output": str(tmp_path / "out")} if number == 0 else {}
    assert (tmp_path / "out" / "report.md").exists()
    assert isinstance(namespace["report"], Report) and namespace["report"].results == []


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [
        ({"runs": "no/such/folder"}, "is not a folder; name run folders"),
        ({"files": "none.json"}, "cannot be read"),
        ({"against": "STROM"}, "unknown method 'STROM'; did you mean 'STORM'"),
        ({"repeats": "many"}, "repeats = 'many' is not a whole number."),
    ],
)
def test_a_mistaken_parameter_stops_the_notebook_at_once(parameter: dict[str, str], hint: str) -> None:
    namespace: dict[str, object] = {}
    parameters, setup, *_ = cells()
    exec(parameters, namespace)
    with pytest.raises(GlamkitError, match=re.escape(hint)):
        exec(setup, namespace | parameter)


@pytest.mark.slow
def test_the_notebook_by_papermill(tmp_path: Path) -> None:
    two_games = made_two_games(tmp_path / "two")
    for seed in (1, 2):
        made_run(tmp_path / "more" / f"catch-{seed}", [0.5], name="debug", game="glamkit/Catch-v0", seed=seed)
    made_run(tmp_path / "more" / "nan", [float("nan")], game="Pong", seed=5)
    runs = f"{two_games}, {tmp_path / 'more'}"
    book = executed(BOOK.stem, tmp_path / "out.ipynb", runs=runs, repeats=FEW, against="STORM, IRIS")
    result = [o for c in book.cells for o in c.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in result) == 4
    pages = "".join(output.data["text/markdown"] for output in result if "text/markdown" in output.get("data", {}))
    assert "1 of its 1 returns are not finite numbers." in pages and "glamkit/Catch-v0" in pages
    assert "Games that are there: 2 of 26" in pages
