"""What clusters and people send to a notebook in batch: its run is saved and stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from books import TRAIN, command, last_step, started

from glamkit.runs import status
from glamkit.training import checkpoint


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_papermill_leaves_the_run_saved_and_stopped(sent: signal.Signals, tmp_path: Path) -> None:
    folder, text = tmp_path / "run", tmp_path / "terminal.txt"
    # A run of so many steps would be compiled, which takes minutes.
    more = ("env_steps=100000", "game=glamkit/Catch-v0", "overrides=runtime.compile=off")
    line = command(tmp_path / "out.ipynb", f"run_dir={folder}", *more)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        text.open("w") as terminal,
        started(line, cwd=TRAIN.parent, env=environment, stdout=terminal, stderr=terminal) as process,
    ):
        deadline = time.monotonic() + 300
        while last_step(folder) < 64:
            assert process.poll() is None and time.monotonic() < deadline, text.read_text()
            time.sleep(0.05)
        kernel = status.read(folder / "status.json").pid
        process.send_signal(sent)
        assert process.wait(120) != 0
    while alive(kernel):
        assert time.monotonic() < deadline + 120
        time.sleep(0.1)
    left = status.read(folder / "status.json")
    assert left.state == "stopped", text.read_text()
    assert checkpoint.steps(folder / "checkpoint")[-1] == left.step >= 64
