"""A custom game whose module lies beside the caller is found by the processes of a batch too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import catch_jobs

from glamkit.sweeps.local import Local, importing


@pytest.mark.parametrize("package", [False, True])
def test_a_module_beside_the_caller_is_found_by_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: bool
) -> None:
    folder = tmp_path / "code"
    place = folder / "mygames" / "__init__.py" if package else folder / "mygames.py"
    place.parent.mkdir(parents=True)
    place.write_text("FOUND = 1")
    monkeypatch.syspath_prepend(str(folder))
    environment = Local(catch_jobs(tmp_path, 1), 1).environment("")
    command = [sys.executable, "-c", "import mygames, glamkit; print(mygames.FOUND)"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


def test_what_every_process_finds_anyway_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").mkdir()
    monkeypatch.setattr(sys, "path", ["", "near", str(tmp_path), str(tmp_path / "gone"), *sys.path])
    first, second, *others = importing()["PYTHONPATH"].split(os.pathsep)
    assert (first, second) == (str(tmp_path), str(tmp_path / "near"))
    assert not [path for path in others if "site-packages" in path or path.startswith((sys.prefix, sys.base_prefix))]
    assert len(others) == len(set(others)) and str(tmp_path) not in others


def test_a_search_path_of_the_environment_is_kept_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On clusters packages come from folders and archives that PYTHONPATH names."""
    given = os.pathsep.join(["/software/torch/lib/python3.12/site-packages", "/home/me/my-packages", "/opt/games.zip"])
    monkeypatch.setenv("PYTHONPATH", given)
    assert importing()["PYTHONPATH"].startswith(given)
