"""The rules of the library: what may import what, how long a file may be, who may name a device.

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
from conftest import ROOT, TOWER, shaped_modules
from jaxtyping import TypeCheckError, install_import_hook

LIBRARY = ROOT / "glamkit"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(LIBRARY.rglob("*.py"))}
FILES = [*MODULES.values(), *sorted((ROOT / "tests").rglob("*.py"))]

# From low to high: a package imports from those before it and from itself. "top" are the modules beside the packages.
PACKAGES = [
    ["errors", "config", "runtime", "types", "__version__"],
    ["ops"],
    ["models"],
    ["runs"],
    ["envs"],
    ["plotting", "notebook"],
    ["training"],
    ["analysis"],
    ["bench"],
    ["sweeps"],
    ["report"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(PACKAGES) for name in names}
# What a package may not import although it stands before it.
APART = {"envs": {"models", "ops"}, "runs": {"models", "ops", "envs"}, "plotting": {"models", "ops", "envs"}}
MOST_MODULES = 15  # in a folder: what can be seen at a glance
MOST_ENTRIES = 20  # at the top of glamkit/

# Which device a thing is placed on is decided in `runtime` alone, so nobody else spells it.
CUDA_EXCEPTIONS = {
    "glamkit.runtime": "decides",
    "glamkit.config": "the help of runtime.device lists the names that may be asked for",
    "glamkit.training.accelerate.rules": "mamba-ssm's kernel exists on that one kind of device only",
    "glamkit.cli": "the help of --device lists the names that may be asked for",
    "glamkit.ops": "a kernel is started on the device that its tensors are on",
    "glamkit.bench": "reads version numbers and asks torch which GPUs it sees, and places nothing",
}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of glamkit that a module imports, at its top, inside functions or by `import_module`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out, not relative"
            module = node.module or ""
            names = [f"{module}.{alias.name}" if module == "glamkit" else module for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        for name in names:
            if name.split(".")[0] == "glamkit":
                yield name


def package(module: str) -> str:
    """``glamkit.ops.scan`` -> ``ops``, ``glamkit.errors`` -> ``errors``."""
    return module.split(".")[1]


def allowed(module: str, other: str) -> bool:
    """Whether a module may import another."""
    mine, theirs = package(module), package(other)
    if other.startswith("glamkit.ops.triton") and mine != "ops":
        return False
    if other.startswith("glamkit.analysis.studio") and mine == "analysis":
        return module.startswith("glamkit.analysis.studio")
    return mine == theirs or (RANK[theirs] <= RANK[mine] and theirs not in APART.get(mine, ()))


def test_every_package_has_a_rank() -> None:
    assert {package(name) for name in MODULES if name != "glamkit.__init__"} - {"__init__"} <= set(RANK)


def test_the_librarys_page_has_the_packages_in_order() -> None:
    table, _, _ = (LIBRARY / "README.md").read_text().partition("\n## ")
    shown = [re.findall(r"`(\w+)`|\[(\w+)\]", line.split("|")[1]) for line in re.findall(r"^\|.*", table, re.M)]
    ours = [[name for name in names if not name.startswith("__")] for names in PACKAGES]
    assert [[a or b for a, b in names] for names in shown if names] == [names for names in ours if names]


def test_packages_import_one_way() -> None:
    result = {name: set(imported(ast.parse(path.read_text()))) for name, path in MODULES.items()}
    front = {name: others & {"glamkit"} for name, others in result.items()}
    assert [name for name, others in front.items() if others] == [], "modules import from packages, not from the front"
    broken = [
        f"{name} imports {other}"
        for name, others in result.items()
        if name != "glamkit.__init__"
        for other in sorted(others)
        if not allowed(name, other)
    ]
    assert broken == []


def test_modules_do_not_import_in_circles() -> None:
    arrows: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if path.name != "__init__.py":
            tree = ast.parse(path.read_text())
            named = set(imported(tree)) | {
                f"{node.module}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            arrows[name] = {other for other in named if other in MODULES and other != name}

    def reachable(name: str) -> set[str]:
        result: set[str] = set()
        rest = [name]
        while rest:
            new = arrows.get(rest.pop(), set()) - result
            result |= new
            rest += new
        return result

    assert [name for name in sorted(arrows) if name in reachable(name)] == []


def test_the_rule_about_imports_can_be_broken() -> None:
    source = "import os\ndef f():\n    from glamkit.training import trainer\n    import glamkit.models.agent\n"
    assert set(imported(ast.parse(source))) == {"glamkit.training", "glamkit.models.agent"}
    assert list(imported(ast.parse("from glamkit import plotting"))) == ["glamkit.plotting"]
    assert list(imported(ast.parse("importlib.import_module('glamkit.models.mamba')"))) == ["glamkit.models.mamba"]
    assert allowed("glamkit.training.trainer", "glamkit.models.agent")
    assert allowed("glamkit.analysis.studio.player", "glamkit.analysis.starts")
    assert not allowed("glamkit.models.agent", "glamkit.training.trainer")
    assert not allowed("glamkit.envs.registry", "glamkit.models.agent")
    assert not allowed("glamkit.analysis.starts", "glamkit.analysis.studio.player")
    assert not allowed("glamkit.models.mamba", "glamkit.ops.triton.scan")


def test_folders_can_be_seen_at_a_glance() -> None:
    folders = {path.parent for path in MODULES.values()}
    assert [str(folder) for folder in folders if len(list(folder.glob("*.py"))) > MOST_MODULES] == []
    entries = [path.name for path in LIBRARY.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert [name for name in silent if ".triton." not in name] == [], "a module says what belongs there"


def test_no_two_classes_share_a_name() -> None:
    names = [
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_files_can_be_read_in_one_sitting() -> None:
    assert [str(path) for path in FILES if len(path.read_text().splitlines()) > 330] == []


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


def test_the_library_does_not_print_nor_name_devices() -> None:
    message = {name: calls_and_words(name) for name in MODULES}
    assert [name for name, (calls, _) in message.items() if "print" in calls] == []
    named = [name for name, (_, words) in message.items() if any(re.search(r"\bcuda\b", word) for word in words)]
    assert [name for name in named if not name.startswith(tuple(CUDA_EXCEPTIONS))] == []


def test_devices_are_found_where_they_are_named() -> None:
    assert "cuda" in calls_and_words("glamkit.runtime.machine")[1]
    assert not any("The machine" in word for word in calls_and_words("glamkit.runtime.machine")[1]), (
        "docstrings may say what they like"
    )


def test_shapes_are_checked_while_the_tests_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from __future__ import annotations\nfrom torch import Tensor\nfrom glamkit.types import Float\n"
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


def test_the_modules_with_shapes_are_the_ones_that_say_so() -> None:
    assert {"glamkit.ops.functional", "glamkit.models.world_model", "glamkit.models.actor_critic"} <= set(
        shaped_modules()
    )
    lambda_return = importlib.import_module("glamkit.ops.functional").lambda_return
    rewards, values = torch.zeros(2, 3), torch.zeros(2, 4)
    assert lambda_return(rewards, rewards, values, 0.9, 0.9).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        lambda_return(rewards, rewards, values[:, :3], 0.9, 0.9)


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
    "command",
    ["ruff check .", "ruff format --check .", pytest.param("mypy", marks=pytest.mark.slow)],
    ids=lambda command: command.replace(" ", "-"),
)
def test_the_checkers_agree(command: str) -> None:
    tool, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_packed() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in LIBRARY.rglob("__init__.py")}
    assert set(named) == folders | {"glamkit.notebooks"}


def test_what_is_not_python_is_packed_too() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    others = [path for path in LIBRARY.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    packed = (
        {path.parent / "README.md" for path in LIBRARY.rglob("__init__.py")}
        if table.pop("*") == ["README.md"]
        else set()
    )
    for name, patterns in table.items():
        packed |= {path for pattern in patterns for path in (ROOT / name.replace(".", "/")).glob(pattern)}
    assert [str(path) for path in others if path not in packed] == []
