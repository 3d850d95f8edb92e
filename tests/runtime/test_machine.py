"""What is compiled; cores, waiting and determinism."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from glamkit.config import RuntimeConfig
from glamkit.errors import GlamkitError
from glamkit.runtime import Machine, machine, undisturbed

ROOT = Path(__file__).resolve().parents[2]


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
