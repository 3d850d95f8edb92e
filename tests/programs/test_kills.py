"""Killed at any moment, a run goes on as if nothing had been; the long version of this is `kills.py`."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from books import command, last_step, papermill, started
from conftest import ROOT
from kills import remains
from tiny_runs import finished, same

from glamkit.config import preset
from glamkit.runs import status

KILLS = int(os.environ.get("GLAMKIT_KILLS", "4"))


def script(*arguments: str) -> str:
    """What a script beside this file prints; a process of its own, as this one has begun to compute and cannot fork."""
    program = [sys.executable, str(ROOT / "tests" / "programs" / arguments[0]), *arguments[1:]]
    done = subprocess.run(
        program, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_anywhere_and_gone_on_with_it_is_the_unbroken_run() -> None:
    message = script("kills.py", str(KILLS), "--seed", str(random.randrange(10**6)))
    assert re.search(rf"in all +{KILLS} +{KILLS} +{KILLS}\n", message), message


@pytest.mark.slow
def test_killed_in_a_notebook(tmp_path: Path) -> None:
    """Its kernel is killed; `test_sweep_runs` kills the process that runs papermill."""
    folder, out, parameters = tmp_path / "run", tmp_path / "out.ipynb", ("env_steps=128", "seed=3")
    given = (f"run_dir={folder}", *parameters)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(command(out, *given), cwd=ROOT / "notebooks", env=environment, **quiet) as process:
        deadline = time.monotonic() + 120
        while last_step(folder) < 64:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        kernel = status.read(folder / "status.json")
        os.kill(kernel.pid, signal.SIGKILL)
        assert process.wait(60) != 0
    assert kernel.state == "running" and not (folder / "evaluation.json").exists()

    again = papermill(out, *given)
    assert again.status == 0, again.errors
    torch.set_num_threads(1)
    whole = finished(preset("debug", seed=3, env_steps=128), tmp_path / "whole").run.folder
    theirs, ours = remains(folder, 512), remains(whole, 512)
    assert [name for name in ours if not same(ours[name], theirs[name])] == []
    assert json.loads((folder / "evaluation.json").read_text())["step"] == 128
