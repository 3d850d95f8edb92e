"""The house rules of what people open: the README's two commands, what a notebook may hold, what CI runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
EXPECTED_NOTEBOOKS = {
    "01_environment",
    "02_train",
    "03_imagine",
    "04_variation",
    "05_report",
    "06_speed",
    "07_ablation",
    "08_sweep",
}


def test_the_notebooks_are_there() -> None:
    assert set(NOTEBOOKS) >= EXPECTED_NOTEBOOKS


def literal(node: ast.stmt) -> bool:
    """Whether a statement gives a name a plain value."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(set(NOTEBOOKS) | EXPECTED_NOTEBOOKS))
def test_notebooks_are_thin_and_stripped(name: str) -> None:
    book = nbformat.read(NOTEBOOKS[name], as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert not {"widgets", "papermill"} & set(book.metadata)

    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids)
    assert not [i for i in ids if not re.fullmatch("[a-z][a-z0-9-]+", i) or re.fullmatch("[0-9a-f-]{8,}", i)], (
        "cell ids are words, so that they stay the same"
    )
    title = book.cells[0]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert "?" in title.source, "the title cell asks the question that the notebook answers"
    assert re.search("second|minute|hour", title.source), "the title cell says how long it takes"

    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip the outputs"
    assert all(set(cell.metadata) <= {"tags"} for cell in book.cells)
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    assert all(literal(statement) for statement in ast.parse(parameters[0].source).body), "plain values only"

    lines = [line.strip() for cell in code for line in cell.source.splitlines()]
    assert len(code) <= 12
    assert len([line for line in lines if line and not line.startswith("#")]) <= 80
    plain = "\n".join(
        "" if line.lstrip().startswith(("%", "!")) else line for c in code for line in c.source.splitlines()
    )
    defined = [
        n for n in ast.walk(ast.parse(plain)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert not defined, "what a notebook defines belongs into the library"


def sh_blocks(readme: str) -> list[str]:
    """The contents of the ```sh blocks."""
    return [block.strip("\n") for block in re.findall(r"^```sh[ \t]*\n(.*?)^```", readme, re.M | re.S)]


def test_the_readme_begins_with_two_commands_of_one_line() -> None:
    run, test, *_ = sh_blocks((ROOT / "README.md").read_text())
    assert len(run.splitlines()) == len(test.splitlines()) == 1
    for command in (run, test):
        assert "venv" in command, "a fresh machine has no virtual environment"
        assert "pip install" in command
    assert all(word in run for word in ("papermill", "notebooks/02_train.ipynb", "quick", "Pong"))
    assert "pytest" in test


def test_the_readme_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    for link in (link for link in links if not link.startswith(("http", "#"))):
        name, _, line = link.partition("#L")
        assert (ROOT / name).exists(), link
        if line:
            last = int(re.findall(r"\d+", line)[-1])
            assert last <= len((ROOT / name).read_text().splitlines()), link


def test_the_table_of_choices_links_to_the_lines_that_choose() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|") and "#L" in line]
    assert len(rows) == 13  # the design's eleven, the latents, and small things
    for row in rows:
        (name, line), setting = re.search(r"\((\S+)#L(\d+)\)", row).groups(), re.search(r"`\w+\.(\w+)`", row)
        if setting:
            assert setting[1] in (ROOT / name).read_text().splitlines()[int(line) - 1], row


@pytest.mark.parametrize("status", [0, 3])
def test_ci_runs_the_second_command_of_the_readme(status: int, tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    script.chmod(0o755)
    second = f'[ -z "$NOT_SET" ] && pwd && cat && echo "2 passed" && exit {status}'
    readme = (
        f"# x\n\n```sh\necho first\n```\ntext\n```python\nx\n```\n\n```sh\n{second}\n```\n\n```sh\necho third\n```\n"
    )
    (tmp_path / "README.md").write_text(readme)
    (tmp_path / "chromium").write_text("#!/bin/sh\n")  # so that nothing is installed here
    (tmp_path / "chromium").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [script], cwd="/", env=environment, input="typed", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    assert done.stdout.splitlines() == [f"+ {second}", str(tmp_path), "2 passed"]

    (tmp_path / "README.md").write_text("```sh\necho first\n```\n")
    assert subprocess.run([script], env=environment, capture_output=True, check=False, timeout=60).returncode == 2
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
