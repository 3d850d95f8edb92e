"""The house rules of the library: what may import what, how long a file may be, who may name a device.

They are rules about text, so that a person who reads one file can rely on what is not in it.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TOWER, shaped_rooms
from jaxtyping import TypeCheckError, install_import_hook

from glamkit.config import Config, describe

MODULES = {path.stem: path for path in sorted((ROOT / "glamkit").glob("*.py"))}
FILES = [*MODULES.values(), *sorted((ROOT / "tests").glob("*.py"))]

# A room imports from the rows above its own. Within a row, a chain such as "a < b < c" may import leftwards, and the
# leaves of the last row may share with each other as long as they do not go in circles. A new room needs a place here.
ROWS = [
    "errors < files < lock, shapes, stops",
    "settings",
    "config",
    "presets, run < status < session, graphs < runtime, rounding, functional, scores"
    ", aggregates, tables, metrics, builds, diagnostics",
    "experience < replay, kernels < norm_kernels < return_kernels < picture_kernels < scan < mamba < codes < winograd"
    " < pictures < convolutions < norms < layer_norms < networks, pixels < games < envs < conformance",
    "pair_kernels < pair < sequence_model, choice_kernels < choices, foreground, measures, videos, passport"
    ", tensorboard",
    "world_model, actor_critic",
    "agent < phases",
    "checkpoint < keepsakes < opened < evaluation, guard, official, dreams < truth < objects < films",
    "trainer, moments < studio < dream_files, starts < openloop",
    "plotting, widgets, monitor, notebook, tour, sweep, parity, doctor, compare, reference"
    ", benchmark, benchmark_plots, gauges, growth, timing"
    ", lens, lens_measures, lens_events, lens_plots, lens_screens, lens_training, memory_reach, scrubber"
    ", results, report, report_notes, report_tables, report_plots, report_page, atari100k"
    ", ablation, jobs, crew, board, worker, sweep_plan, sweep_cost, sweep_ray, outcomes"
    ", diagnostics_plots, studio_plots, export, player",
]
CHAINS = [[name.strip() for name in chain.split("<")] for row in ROWS for chain in row.split(",")]
PLACE = {name.strip(): number for number, row in enumerate(ROWS) for name in re.split("[,<]", row)}
LEAVES = {name for name, number in PLACE.items() if number == len(ROWS) - 1}

# Which device a thing is placed on is decided in `runtime` alone, so nobody else spells it.
CUDA_EXCEPTIONS = {
    "runtime": "decides",
    "config": "the help of runtime.device lists the names that may be asked for",
    "graphs": "records what one kind of device does, and places nothing",
    "mamba": "mamba-ssm's kernel exists on that one kind of device only",
    "scan": "Triton's kernels are for that one kind of device only",
    "kernels": "a kernel is started on the device that its tensors are on",
    "pair_kernels": "as kernels",
    "choice_kernels": "as kernels",
    "norm_kernels": "as kernels",
    "return_kernels": "as kernels",
    "picture_kernels": "as kernels",
    "builds": "reads version numbers and library names, and places nothing",
    "doctor": "asks torch which GPUs it sees, and places nothing",
}


def imported(tree: ast.AST) -> Iterator[str]:
    """The names of the glamkit rooms that a module imports, at its top, inside functions or by `import_module`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out, not relative"
            module = node.module or ""
            names = [f"glamkit.{alias.name}" for alias in node.names] if module == "glamkit" else [module]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        for name in names:
            if name.split(".")[0] == "glamkit":
                yield name.partition(".")[2]


IMPORTS = {name: sorted(set(imported(ast.parse(path.read_text())))) for name, path in MODULES.items()}


def allowed(room: str, other: str) -> bool:
    """Whether `room` may import `other`."""
    chained = any(room in chain and other in chain[: chain.index(room)] for chain in CHAINS)
    return PLACE[other] < PLACE[room] or chained or (room in LEAVES and other in LEAVES)


def test_every_room_has_a_rank() -> None:
    unknown = set(MODULES) - set(PLACE) - {"__init__"}
    assert not unknown, f"give {unknown} a place in ROWS"
    assert len(PLACE) == sum(len(chain) for chain in CHAINS), "a room has two places"


@pytest.mark.parametrize("room", sorted(set(MODULES) - {"__init__"}))
def test_imports_go_one_way(room: str) -> None:
    others = IMPORTS[room]
    assert set(others) <= set(MODULES), "rooms import from rooms, not from the front door `glamkit`"
    assert [other for other in others if not allowed(room, other)] == []


def test_the_leaves_do_not_import_in_circles() -> None:
    def reachable(room: str) -> set[str]:
        found: set[str] = set()
        rest = [room]
        while rest:
            new = {other for other in IMPORTS.get(rest.pop(), []) if other in LEAVES} - found
            found |= new
            rest += new
        return found

    assert [room for room in sorted(LEAVES) if room in reachable(room)] == []


def test_the_rule_about_imports_can_be_broken() -> None:
    source = "import os\ndef f():\n    from glamkit import trainer\n    import glamkit.agent\n"
    assert set(imported(ast.parse(source))) == {"trainer", "agent"}
    assert list(imported(ast.parse("from glamkit.envs import make_env"))) == ["envs"]
    assert list(imported(ast.parse("importlib.import_module('glamkit.mamba')"))) == ["mamba"]
    assert allowed("trainer", "agent")
    assert allowed("conformance", "pixels")
    assert not allowed("agent", "trainer")
    assert not allowed("pixels", "envs")
    assert not allowed("mamba", "replay")
    assert not allowed("errors", "errors")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330


def calls_and_words(name: str) -> tuple[list[str], list[str]]:
    """Plain function calls of a module, and its string literals and attribute names without the docstrings."""
    tree = ast.parse(MODULES[name].read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    calls = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    words = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
    return calls, words + [n.value for n in constants if isinstance(n.value, str)]


@pytest.mark.parametrize("name", MODULES)
def test_the_library_does_not_print_nor_name_devices(name: str) -> None:
    calls, words = calls_and_words(name)
    assert "print" not in calls
    if name not in CUDA_EXCEPTIONS:
        assert [word for word in words if re.search(r"\bcuda\b", word)] == []


def test_devices_are_found_where_they_are_named() -> None:
    assert "cuda" in calls_and_words("runtime")[1]
    assert not any("The machine" in word for word in calls_and_words("runtime")[1]), "docstrings may say what they like"


def test_every_setting_has_its_unit_and_one_line_of_why() -> None:
    rows = list(describe(Config()))
    assert len(rows) > 60
    for key, _, unit, why in rows:
        assert unit.strip(), key
        assert len(why.split()) >= 3, key
        assert "\n" not in why, key


def test_shapes_are_checked_while_the_tests_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from __future__ import annotations\nfrom torch import Tensor\nfrom glamkit.shapes import Float\n"
        'def double(x: Float[Tensor, "N H"], scale: float) -> Float[Tensor, "N H"]:\n    return x * scale\n'
        'def shrink(x: Float[Tensor, "N H"]) -> Float[Tensor, "N H"]:\n    return x[1:]\n'
    )
    (tmp_path / "shaped_example.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with install_import_hook(["shaped_example"], TOWER):
        example = importlib.import_module("shaped_example")
    assert example.double(torch.ones(2, 3), 2).sum() == 12
    with pytest.raises(TypeCheckError):
        example.double(torch.ones(2), 2)
    with pytest.raises(TypeCheckError):
        example.shrink(torch.ones(2, 3))
    compiled = torch.compile(example.double, backend="eager", fullgraph=True)
    assert compiled(torch.ones(2, 3), 2).sum() == 12


def test_the_rooms_with_shapes_are_the_ones_that_say_so() -> None:
    assert {f"glamkit.{name}" for name in ("functional", "world_model", "actor_critic")} <= set(shaped_rooms())
    lambda_return = importlib.import_module("glamkit.functional").lambda_return
    rewards, values = torch.zeros(2, 3), torch.zeros(2, 4)
    assert lambda_return(rewards, rewards, values, 0.9, 0.9).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        lambda_return(rewards, rewards, values[:, :3], 0.9, 0.9)


def test_the_library_needs_nothing_that_only_tests_need() -> None:
    blocked = ["jaxtyping", "beartype", "pytest", "hypothesis", "playwright", "mypy"]
    rooms = [f"glamkit.{name}" for name in MODULES if name != "__init__"]
    program = f"import sys, importlib\nfor name in {blocked}: sys.modules[name] = None\n"
    program += f"for name in {rooms}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_glamkit_is_quick() -> None:
    """Under three seconds beyond torch's own import; the best of three, as the machine may be busy."""
    program = "import time, torch\nstart = time.perf_counter()\nimport glamkit\nprint(time.perf_counter() - start)\n"
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
        if times[-1] < 3:
            break
    assert min(times) < 3


@pytest.mark.parametrize(
    "command", ["ruff check .", "ruff format --check .", "mypy"], ids=lambda command: command.replace(" ", "-")
)
def test_the_checkers_agree(command: str) -> None:
    tool, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_python_is_packed_too() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = table.get("package-data", {}).get("glamkit", [])
    folders = [path for path in (ROOT / "glamkit").iterdir() if path.name != "__pycache__"]
    others = [path for path in folders if path.suffix != ".py"]
    assert [path.name for path in others if not any(path.match(pattern) for pattern in patterns)] == []
