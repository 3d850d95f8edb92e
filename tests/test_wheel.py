"""The wheel, installed in an environment of its own and used outside any checkout.

The other packages come from the environment of the tests, to save downloads: its folder is put on the new one's path,
after the new one's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from glamkit.training import shared_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BUILT_FROM = ("glamkit", "notebooks", "pyproject.toml", "setup.py", "README.md", "LICENSE")
ADDRESS = "https://example.org/owner/kit"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"  # building writes into its folder
    source.mkdir()
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(place), str(source))
    call(*command, REPOSITORY_URL=ADDRESS)
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fresh") / "venv"
    call(sys.executable, "-m", "venv", str(place))
    names = {"base": str(place), "platbase": str(place)}
    own, scripts = sysconfig.get_path("purelib", vars=names), Path(sysconfig.get_path("scripts", vars=names))
    # Path files in a folder named by one are not read, so an editable glamkit there is not followed to its checkout.
    (Path(own) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(str(scripts / "python"), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
    return scripts


def call(*command: str, cwd: Path | None = None, **variables: str) -> str:
    """What a command prints on its standard output; it does not see this checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | variables
    if cwd is not None:
        environment["GLAMKIT_CACHE"] = str(cwd / "cache")
    done = subprocess.run(
        command, cwd=cwd or "/", env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_is_whole_and_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith("glamkit_rl-")
    assert {f"glamkit/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= names
    assert {f"glamkit/runs/shipped/{path.name}" for path in shared_runs.shipped().values()} <= names
    assert "glamkit/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"glamkit", "glamkit_rl"}
    assert wheel.stat().st_size <= 25 * 2**20


def test_a_package_index_shows_its_pictures_and_follows_its_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        head, _, text = archive.read(name).decode().partition("\n\n")
    assert f"Project-URL: Repository, {ADDRESS}" in head and "Description-Content-Type: text/markdown" in head
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    relative = re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / "README.md").read_text())
    whole = [link.removeprefix(f"{ADDRESS}/raw/main/" if mark else f"{ADDRESS}/blob/main/") for mark, link in links]
    assert [link for link in whole if not link.startswith("http")] == relative
    assert sum(mark == "!" for mark, _ in links) == 3


def test_its_commands_work_outside_a_checkout(bin_folder: Path, tmp_path: Path) -> None:
    command = str(bin_folder / "glamkit")
    assert call(command, "--version", cwd=tmp_path).startswith("glamkit, version ")
    page = call(command, "--help", cwd=tmp_path)
    assert all(name in page for name in ("train", "evaluate", "lab", "doctor"))
    program = "import glamkit; print(glamkit.__file__)"
    place = call(str(bin_folder / "python"), "-c", program, cwd=tmp_path).strip()
    assert Path(place).is_relative_to(bin_folder.parent)
    findings = json.loads(call(command, "doctor", "--json", cwd=tmp_path))["findings"]
    states = {result["name"]: result["state"] for result in findings}
    assert {states[name] for name in ("packages", "atari", "jupyter")} == {"ok"}
    call(command, "lab", "--copy-only", cwd=tmp_path)
    assert (tmp_path / "notebooks" / "08_sweep.ipynb").exists()
    assert "Pong" in call(command, "sweep", "--games", "Pong", "--seeds", "1-2", "--dry-run", cwd=tmp_path)
    message = call(command, "train", "glamkit/Catch-v0", "--preset", "debug", "--run-dir", "own", cwd=tmp_path)
    assert "The run is in" in message and (tmp_path / "own" / "evaluation.json").exists()
    shared = call(command, "share", "own", "own.glam", "--steps", "60", cwd=tmp_path).strip()
    assert "mean return" in call(command, "compare", shared, "catch", cwd=tmp_path)
    assert "of 5 episodes" in call(command, "evaluate", "catch", "--episodes", "5", cwd=tmp_path)


def test_shipped_runs_open_and_are_dreamt_in(bin_folder: Path, tmp_path: Path) -> None:
    names = sorted(shared_runs.shipped())
    program = (
        f"import glamkit\nfrom glamkit.analysis.studio import Dream\nfor name in {names}:\n"
        "    dream = Dream(glamkit.open_run(name))\n    print(name, dream.step().depth, dream.picture().shape[2])\n"
    )
    lines = call(str(bin_folder / "python"), "-c", program, cwd=tmp_path).splitlines()
    assert lines == [f"{name} 1 3" for name in names]


def test_a_notebook_runs_as_it_comes(bin_folder: Path, tmp_path: Path) -> None:
    call(str(bin_folder / "glamkit"), "notebook", "03_imagine", "--output", "seen.ipynb", cwd=tmp_path)
    cells = [cell for cell in nbformat.read(tmp_path / "seen.ipynb", 4).cells if cell.cell_type == "code"]
    pictures = [out for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 3
    assert all(cell.execution_count for cell in cells)
