"""A custom game whose module lies beside the caller is found by the processes of a batch too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import catch_jobs

from glamkit.sweeps.job import Job
from glamkit.sweeps.pool import Local, importing, module_folders


def renamed(job: Job, game: str) -> Job:
    return job._replace(config=job.config.override(**{"env.game": game}))


@pytest.mark.parametrize("package", [False, True])
def test_a_module_beside_the_caller_is_found_by_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: bool
) -> None:
    folder = tmp_path / "code"
    place = folder / "mygames" / "__init__.py" if package else folder / "mygames.py"
    place.parent.mkdir(parents=True)
    place.write_text("FOUND = 1")
    monkeypatch.syspath_prepend(str(folder))
    jobs = [renamed(job, "mygames:Chase-v0") for job in catch_jobs(tmp_path, 1)]
    assert module_folders(jobs) == [str(folder.resolve())]
    environment = Local(jobs, 1).environment("")
    command = [sys.executable, "-c", "import mygames, glamkit; print(mygames.FOUND)"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


def test_games_without_a_module_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    assert (
        module_folders([*catch_jobs(tmp_path, 1), *(renamed(j, "nowhere:X-v0") for j in catch_jobs(tmp_path, 1))]) == []
    )
    assert importing([]) == {}
