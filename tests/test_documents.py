"""The rules of what people open: the README's two commands, what a notebook may hold, what CI runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from glamkit.cli.group import glamkit as group
from glamkit.config import Config, preset

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


def test_the_readme_begins_with_two_commands_of_two_lines() -> None:
    run, test, *_ = sh_blocks((ROOT / "README.md").read_text())
    for command in (run, test):
        assert len(command.splitlines()) <= 2
        assert "venv" in command, "a fresh machine has no virtual environment"
        assert "pip install" in command
    assert all(word in run for word in ("glamkit train", "quick", "Pong"))
    assert "pytest" in test


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_make_an_environment_and_end_where_a_step_fails(number: int, tmp_path: Path) -> None:
    command = sh_blocks((ROOT / "README.md").read_text())[number]
    programs = {"python3": "mkdir -p .venv/bin && touch .venv/bin/activate", "pip": "", "python": "", "glamkit": ""}
    for name, text in programs.items():
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $@"\n{text}\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    ends = (
        ["pip install -e .[lab]", "glamkit train Pong --preset quick --seed 1 --run-dir runs/pong-quick"],
        ["pip install -e .[test]", "python -m pytest"],
    )
    assert done.stdout.splitlines() == ["python3 -m venv .venv", *ends[number]]
    (tmp_path / "pip").write_text("#!/bin/sh\nexit 5\n")
    failed = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=False, timeout=60)
    assert failed.returncode == 5


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", ".github/*.md", "glamkit/**/*.md", "notebooks/**/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    for link in (link for link in links if not link.startswith("http")):
        name, _, part = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if part:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert part in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], link


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_table_of_choices_names_what_is_in_the_files() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.search(r"^## Choices\n.*?\|---.*?\n(.*?)\n\n", readme, re.M | re.S)[1].splitlines()
    assert len(rows) == 13  # the design's eleven, the latents, and small things
    config = Config()
    for row in rows:
        text, name = (ROOT / re.search(r"\((\S+\.py)\)", row)[1]).read_text(), re.search(r"`(\w+\.)?(\w+)`", row)
        assert re.search(rf"\b{name[2]}\b", text), row
        if name[1] and name[0] != "`env.reset`":
            default = getattr(getattr(config, name[1][:-1]), name[2])
            assert re.search(rf"{re.escape(name[0])}: `?{default}\b", row), "the published value stands first"
            shown, quick = row.split("|")[-2].strip(), getattr(getattr(preset("quick"), name[1][:-1]), name[2])
            assert shown == str(quick), row


def test_the_table_of_speeds_is_that_of_the_files() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.search(r"^## Speed\n.*?\|---.*?\n(.*?)\n\n", readme, re.M | re.S)[1].splitlines()
    for row, name in zip(rows, ("2-cores", "2-cores-amx", "h100"), strict=True):
        text = (ROOT / "notebooks" / "results" / f"speed-atari100k-{name}.json").read_text()
        step = json.loads(text)["phases"]["step"]
        in_seconds = " s |" in row
        plain, fast = f"{step['reference_s']:.1f} s", f"{step['fast_s']:.1f} s"
        if not in_seconds:
            plain, fast = f"{1e3 * step['reference_s']:.0f} ms", f"{1e3 * step['fast_s']:.1f} ms"
        ends = f" ({min(step['ratios']):.1f} to {max(step['ratios']):.1f})" if in_seconds else ""
        assert row.split(" | ", 1)[1] == f"{plain} | {fast} | {step['ratio']:.1f}{ends} |", name


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_pages_are_commands(page: str) -> None:
    text = (ROOT / page).read_text()
    lines = re.findall(r"`(glamkit [^`\n]+)`", text)
    lines += [line for block in sh_blocks(text) for line in block.splitlines() if line.startswith("glamkit ")]
    for line in lines:
        word, *rest = shlex.split(line)[1:]
        given = {} if word.startswith("-") else group.commands[word].make_context(word, rest).params
        if word in ("train", "sweep", "ablate", "benchmark"):  # their settings, which click takes as any text
            name = given.get("name") or given.get("preset") or "quick"
            overrides = given.get("overrides") or " ".join(given.get("sets", ()))
            assert preset(name, overrides, env_steps=given.get("env_steps")), line


@pytest.mark.parametrize(
    ("fast", "slow", "seen", "status"), [(0, 0, 0, 0), (3, 0, 0, 3), (0, 1, 0, 1), (0, 0, 2, 2), (3, 1, 2, 3)]
)
def test_ci_runs_the_second_command_of_the_readme_and_then_what_is_slow(
    fast: int, slow: int, seen: int, status: int, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    script.chmod(0o755)
    second = f'[ -z "$NOT_SET" ] && pwd && cat && export ENTERED=yes && echo "2 passed" && (exit {fast})'
    readme = (
        f"# x\n\n```sh\necho first\n```\ntext\n```python\nx\n```\n\n```sh\n{second}\n```\n\n```sh\necho third\n```\n"
    )
    (tmp_path / "README.md").write_text(readme)
    ends = f'case "$*" in *"not browser"*) exit {slow} ;; *) exit {seen} ;; esac\n'
    programs = {"chromium": "", "python": f'echo "$@ $ENTERED"\n{ends}'}  # so that nothing is installed here
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [script], cwd="/", env=environment, input="typed", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    shown = [f"+ {second}", str(tmp_path), "2 passed"]
    for rest, end in {"slow and not browser": " --durations=15", "slow and browser": " -n 0 --durations=15"}.items():
        shown += ["", f'+ python -m pytest -m "{rest}"{end}', f"-m pytest -m {rest}{end} yes"]
    assert done.stdout.splitlines() == shown

    (tmp_path / "README.md").write_text("```sh\necho first\n```\n")
    assert subprocess.run([script], env=environment, capture_output=True, check=False, timeout=60).returncode == 2
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
