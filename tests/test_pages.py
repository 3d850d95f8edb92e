"""What the pages say against what is there: their Python runs, their tables hold the numbers and names of the files."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT

import glamkit
from glamkit.config import PRESETS, parse_overrides, preset
from glamkit.models.agent import Agent

README, LIBRARY, NOTEBOOKS = (ROOT / name for name in ("README.md", "glamkit/README.md", "notebooks/README.md"))


def rows(page: Path, head: str) -> list[list[str]]:
    """The cells of each row of the table whose first line begins so."""
    (table,) = re.findall(rf"^\| {re.escape(head)}.*\n\|---.*\n((?:\|.*\n)+)", page.read_text(), re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize("page", [README, NOTEBOOKS], ids=["README", "notebooks"])
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = preset("debug", "runtime.device=cpu trainer.env_steps=64", game="glamkit/Catch-v0", seed=1)
    monkeypatch.setattr(glamkit, "preset", lambda *given, **named: preset(*given, **named) and small)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
        assert capsys.readouterr().out


@pytest.mark.parametrize(("name", "actions"), [("quick", 6), ("laptop", 6), ("learn", 3), ("atari100k", 6)])
def test_the_table_of_presets_has_their_numbers(name: str, actions: int) -> None:
    _, _, parameters, steps, _ = {row[0]: row for row in rows(README, "preset")}[f"`{name}`"]
    config = preset(name)
    with torch.device("meta"):
        weights = Agent.build(config, actions).world_model.parameters()
    assert parameters.split()[0] == f"{sum(weight.numel() for weight in weights):,}"
    numbers = [config.trainer.env_steps]
    if name != "atari100k":
        numbers += [config.imagination.begin, config.trainer.warmup]
    assert re.findall(r"\d+(?:,\d{3})*", steps) == [f"{number:,}" for number in numbers]


def test_the_table_of_presets_has_all() -> None:
    assert {row[0].strip("`") for row in rows(README, "preset")} == set(PRESETS)


@pytest.mark.parametrize("game", ["Catch", "Memory"])
def test_the_results_of_the_built_in_games_are_those_of_the_file(game: str) -> None:
    _, setting, _, _, shown = {row[0]: row for row in rows(README, "game | preset")}[game]
    name, steps = re.fullmatch(r"`(\w+)`, ([\d,]+)", setting).groups()  # type: ignore[union-attr]
    whole = preset(name, env_steps=int(steps.replace(",", ""))).trainer.env_steps
    found = {}
    for entry in json.loads((ROOT / "notebooks" / "results" / "learn.json").read_text()):
        plain = set(parse_overrides(entry["overrides"])) <= {"trainer.env_steps"} and "cut" not in entry
        if plain and (entry["game"], entry["preset"], entry["agent_steps"]) == (f"glamkit/{game}-v0", name, whole):
            found[entry["seed"]] = f"{entry['evaluation_100_episodes']:.2f}"
    assert shown.split(", ") == [found[seed] for seed in sorted(found)]


def names(path: Path) -> set[str]:
    """What a module defines at its top, and its classes' methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("step", "where"), rows(LIBRARY, "step of the algorithm"))
def test_the_steps_of_algorithm_1_are_where_they_are_said_to_be(step: str, where: str) -> None:
    ((name, path),) = re.findall(r"`([\w.]+)` in \[.*?\]\((\S+?)\)", where)
    assert name in names(LIBRARY.parent / path), step


def test_the_table_of_parameters_is_that_of_02_train() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(NOTEBOOKS, "parameter of `02_train`")}
    cells = nbformat.read(NOTEBOOKS.with_name("02_train.ipynb"), as_version=4).cells
    (source,) = (cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert set(table) == {line.target.id for line in ast.parse(source).body}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(\w+)`", table["preset"])) == set(PRESETS)
