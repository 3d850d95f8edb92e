"""A real batch: notebooks executed side by side, one of them killed in the middle and one that cannot succeed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from books import executed, started
from tiny_runs import finished, log

from glamkit import cli
from glamkit.config import preset
from glamkit.runs.folder import Run
from glamkit.sweeps.job import Job, JobRecord
from glamkit.training import evaluation

GAMES = "glamkit/Catch-v0 glamkit/Memory-v0"
STEPS = 128
KILLED, BROKEN = "Catch-v0/seed1", "Memory-v0/seed1"
SEEDS = {"local": "1", "ray": "1-2"}
SETTINGS = "runtime.device=cpu"


class Batch(NamedTuple):
    engine: str
    folder: Path
    status: int
    out: str
    err: str


def options(folder: Path, seeds: str, *more: str) -> list[str]:
    given = f"--preset debug --seeds {seeds} --env-steps {STEPS} --workers 2 --retries 1 --overrides {SETTINGS}"
    return [*given.split(), "--games", GAMES, "--folder", str(folder), *more]


def job(folder: Path, name: str) -> Job:
    game, _, seed = name.partition("/seed")
    config = preset("debug", SETTINGS, game=f"glamkit/{game}", seed=seed, env_steps=STEPS)
    return Job(name, Run(folder / name), config)


@pytest.fixture(scope="module")
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    """2 games, on the cluster with 2 seeds each; one worker is killed in the middle, one score cannot be written."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / BROKEN / "evaluation.json").mkdir(parents=True)
    with ExitStack() as stack:
        more: list[str] = []
        if request.param == "ray":
            more += ["--engine", "ray", "--address", stack.enter_context(cluster())]
        command = [sys.executable, "-m", "glamkit", "sweep", *options(folder, SEEDS[request.param], *more)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = stack.enter_context(started(command, text=True, env=environment, **pipes))
        victim, deadline = job(folder, KILLED), time.monotonic() + 300
        while victim.progress().step < STEPS // 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        record = JobRecord.read(victim.run.folder)
        assert record is not None and record.alive and not victim.done()
        os.kill(record.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=400)
        yield Batch(request.param, folder, process.returncode, out, err)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as result:
        result.bind(("127.0.0.1", 0))
        return int(result.getsockname()[1])


def cluster_has(address: str, count: int) -> bool:
    """Whether the cluster comes to have so many nodes in a while."""
    message = f"import ray; ray.init('{address}', log_to_driver=False)"
    message += f"; import sys; sys.exit(len([n for n in ray.nodes() if n['Alive']]) < {count})"
    for _ in range(20):
        if not subprocess.run([sys.executable, "-c", message], capture_output=True, check=False).returncode:
            return True
        time.sleep(1)
    return False


@contextmanager
def cluster() -> Iterator[str]:
    """A Ray cluster of two nodes of one CPU each on this machine; gives its address."""
    if not importlib.util.find_spec("ray"):
        pytest.skip("needs Ray: pip install 'glamkit-rl[cluster]'")
    folder, port = tempfile.mkdtemp(prefix="gk", dir="/tmp"), str(free_port())
    address, nodes = f"127.0.0.1:{port}", list[subprocess.Popen[bytes]]()
    program = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus", "1"]
    program += ["--node-ip-address", "127.0.0.1", "--disable-usage-stats", "--object-store-memory", "100000000"]
    program += ["--temp-dir", folder, "--dashboard-agent-listen-port"]
    try:
        for own in (["--head", "--port", port, "--include-dashboard", "false"], ["--address", address]):
            command = [*program, str(free_port()), *own]
            nodes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            assert cluster_has(address, len(nodes)), "the Ray cluster did not start"
        yield address
    finally:
        for node in reversed(nodes):
            node.terminate()  # not killed: each has processes of its own to end
        for node in nodes:
            node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


both = pytest.mark.parametrize("batch", ["local", "ray"], indirect=True, scope="module")
local = pytest.mark.parametrize("batch", ["local"], indirect=True, scope="module")


@both
@pytest.mark.slow
def test_the_batch_ends_with_the_right_statuses(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.status == 1, batch.err
    seeds = (1,) if batch.engine == "local" else (1, 2)
    names = [f"{game}/seed{seed}" for seed in seeds for game in ("Catch-v0", "Memory-v0")]
    count, steps = len(names), len(names) * STEPS
    states = {name: job(batch.folder, name).progress() for name in names}
    assert {name: progress.state for name, progress in states.items()} == {
        name: "failed" if name == BROKEN else "done" for name in names
    }
    attempts = {name: progress.record.attempt for name, progress in states.items() if progress.record}
    assert attempts == {name: 2 if name in (KILLED, BROKEN) else 1 for name in names}
    assert f"{KILLED}: failed, and is tried again" in batch.out
    assert f"{count} runs to make, 2 at once: about" in batch.out
    assert "evaluation.json" in batch.err.partition(f"1 of {count} runs failed; {BROKEN}:")[2]

    assert cli.main(["sweep", "status", str(batch.folder)]) == 0
    out = capsys.readouterr().out
    assert f"{count - 1} of {count} runs done, 1 failed  step {steps:,}/{steps:,}" in out
    assert out.splitlines()[1].startswith(BROKEN)


@both
@pytest.mark.slow
def test_the_killed_run_equals_an_unbroken_one(batch: Batch, tmp_path: Path) -> None:
    killed = job(batch.folder, KILLED)
    config = killed.config
    trainer = finished(config, tmp_path)
    report = evaluation.evaluate(trainer.agent, config, trainer.machine, trainer.step)
    made = json.loads(killed.run.evaluation_file.read_text())
    assert made["mean_return"] == report["mean_return"]
    assert made["episodes"] == report["episodes"]
    assert log(killed) == log(trainer)


@both
@pytest.mark.slow
def test_each_run_is_an_executed_notebook(batch: Batch) -> None:
    book = nbformat.read(batch.folder / KILLED / "02_train.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert not (batch.folder / KILLED / "errors.txt").exists()


@local
@pytest.mark.slow
def test_what_is_mended_goes_on_and_the_notebook_shows_it_all(batch: Batch, tmp_path: Path) -> None:
    (batch.folder / BROKEN / "evaluation.json").rmdir()
    before = (batch.folder / KILLED / "job.json").stat().st_mtime_ns
    given = {"games": GAMES, "seeds": 1, "preset": "debug", "env_steps": STEPS, "overrides": SETTINGS}
    book = executed("08_sweep", tmp_path / "out.ipynb", folder=batch.folder, **given)
    cells = {cell.id: cell.get("outputs", []) for cell in book.cells}
    assert "1 of 2 runs done, 1 failed" in cells["setup"][0]["data"]["text/plain"]
    assert "1 run to make, one after the other" in cells["cost"][-1]["text"]
    assert "2 of 2 runs done" in cells["run"][-1]["text"]
    assert BROKEN in cells["table"][0]["data"]["text/html"]
    assert "image/png" in cells["figure"][0]["data"]
    assert (batch.folder / KILLED / "job.json").stat().st_mtime_ns == before
