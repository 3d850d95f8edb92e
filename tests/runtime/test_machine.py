"""What is compiled, and that its compilers live through Ctrl+C; cores, waiting and determinism."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import short

from glamkit.config import RuntimeConfig
from glamkit.errors import GlamkitError
from glamkit.runs import status
from glamkit.runtime import Machine, machine, undisturbed

ROOT = Path(__file__).resolve().parents[2]
WAIT = [sys.executable, "-c", "import time; time.sleep(0.5); print('compiled')"]


def test_two_threads_draw_random_numbers_one_after_the_other() -> None:
    """That of a studio would else start the numbers of a cell anew in their midst."""
    with undisturbed(0):
        alone = torch.rand(2)
    entered, before = threading.Event(), torch.get_rng_state()

    def look() -> None:
        with undisturbed(0):
            entered.set()

    with undisturbed(0):
        first, other = torch.rand(1), threading.Thread(target=look)
        other.start()
        assert not entered.wait(0.2)
        assert torch.equal(torch.cat([first, torch.rand(1)]), alone)
    other.join()
    assert entered.is_set() and torch.equal(torch.get_rng_state(), before)


def test_a_compilers_processes_do_not_notice_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def compiling(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            child = subprocess.Popen(WAIT, stdout=subprocess.PIPE, text=True)
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)  # as a terminal and Jupyter send it: to every process of the group
            os.kill(os.getpid(), signal.SIGINT)
            assert child.communicate()[0] == "compiled\n"
            return function(*given)

        return run

    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setattr("glamkit.runtime.machine.missing_compiler", lambda _: "")
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        fused = Machine(RuntimeConfig(device="cpu", compile="on")).fuse(lambda value: value + 1)
        assert fused(1) == 2
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]  # this process takes it
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_nothing_is_compiled_where_a_part_of_the_compiler_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(setting: str, device: str = "cpu") -> bool:
        return machine._resolve_compile(setting, torch.device(device), machine.LONG)

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert chosen("auto", "cuda") and not chosen("auto")
    with pytest.raises(GlamkitError, match=r"'on' cannot be used here \(Python's headers, Python\.h, are missing"):
        chosen("on")
    (tmp_path / "Python.h").touch()
    assert chosen("auto") and chosen("on")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not chosen("auto") and not chosen("auto", "cuda")
    with pytest.raises(GlamkitError, match=r"'on' cannot be used here \(no C compiler was found"):
        chosen("on", "cuda")


@pytest.mark.parametrize(
    ("cxx", "there", "found"),
    [(None, "g++", True), (None, "clang++", False), ("clang++", "clang++", True), ("wrong", "g++", False)],
)
def test_the_compiler_is_the_one_that_torch_takes(
    cxx: str | None, there: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Linux torch runs g++ unless CXX names another; it looks for no second one."""
    monkeypatch.delenv("CXX", raising=False)
    if cxx:
        monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == there else None)
    monkeypatch.setattr("pathlib.Path.exists", lambda _: True)
    assert (machine.missing_compiler(torch.device("cpu")) == "") == found


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 3), ("max 100000", 3), (None, 3)],
)
def test_a_container_s_share_of_the_cores_counts(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "CORES_ALLOWED", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert machine.own_cores() == expected


def test_every_device_but_the_cpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    one = Machine(RuntimeConfig(device="cpu"))
    for kind in ("cpu", "cuda", "mps"):
        one.device = torch.device(kind)
        one.synchronize()
    assert [device.type for device in waited] == ["cuda", "mps"]


def test_determinism_ends_with_the_run_that_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr(machine, "resolve_device", torch.device)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on, **_: chosen.append(on))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for wanted in (True, False):
        Machine(RuntimeConfig(device="cuda", precision="float32", record=False, deterministic=wanted))
        assert torch.backends.cudnn.benchmark is not wanted
    assert chosen == [True, False]


@pytest.mark.slow
def test_a_stop_while_the_compiler_runs_saves_and_stops(tmp_path: Path) -> None:
    # Until step 60 only the world model is learnt, so that step 49 compiles it alone.
    config = short("runtime.compile=on imagination.begin=60", game="glamkit/Catch-v0")
    program = (
        "import sys; from glamkit.config import Config; from glamkit.training.trainer import Trainer\n"
        "import json; config = Config.from_dict(json.loads(sys.argv[1]))\n"
        "for event in Trainer(config, sys.argv[2]):\n    print(event.step, flush=True)\n"
    )
    cold = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", program, config.to_json(), str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=cold,
    )  # fmt: skip
    assert child.stdout is not None
    limit = threading.Timer(500, child.kill)
    limit.start()
    for line in child.stdout:
        if line.strip() == "48":  # the next step compiles
            break
    while not list((tmp_path / "cache").rglob("*.cpp")):  # what the compiler is given
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    rest = child.communicate()[0]
    limit.cancel()
    reported = status.read(tmp_path / "run" / "status.json")
    assert (child.returncode, reported.state, reported.step, reported.saved) == (0, "stopped", 49, 49), rest


@pytest.mark.slow
def test_a_cpu_reaches_no_operation_for_gpus(tmp_path: Path) -> None:
    """In a process of its own: `plain_bodies` gives the tests' processes CPU kernels that nobody else has."""
    program = "import sys, glamkit, torch\nplain = torch.compile\n"
    # Traced and cut into its operations, but not made into code, which takes a minute and has the same operations.
    program += "torch.compile = lambda f, dynamic, options: plain(f, dynamic=dynamic, backend='aot_eager')\n"
    program += "config = glamkit.preset('debug', 'runtime.device=cpu', game='glamkit/Catch-v0', env_steps=52)\n"
    program += "list(glamkit.Trainer(config.override({'runtime.compile': 'on'}), sys.argv[1]))"
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
