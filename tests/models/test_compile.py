"""`runtime.precision` and `runtime.compile`: chosen sensibly, and compiled or not the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from glamkit.config import RuntimeConfig, preset
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runtime import LONG, Machine, machine
from glamkit.training.trainer import Trainer

CPU = RuntimeConfig(device="cpu", precision="float32")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


@pytest.fixture
def a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name else None)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()


@pytest.mark.parametrize("has", ["amx_tile", "avx512_bf16", ""])
def test_auto_takes_bfloat16_on_a_cpu_with_instructions_for_it(has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == has, raising=False)
    assert Machine(RuntimeConfig(device="cpu")).precision == (torch.bfloat16 if has else torch.float32)
    assert Machine(CPU).precision == torch.float32


@pytest.mark.parametrize("real", [True, False])
def test_auto_takes_bfloat16_on_a_gpu_that_has_it(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older GPUs only pretend to, and take longer for it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: real or including_emulation)
    assert machine._fast_bfloat16(torch.device("cuda")) == real


@pytest.mark.usefixtures("a_compiler")
def test_auto_compiles_on_a_cpu_only_what_takes_long() -> None:
    assert not Machine(CPU).compiles
    assert not Machine(CPU, LONG - 1).compiles
    assert Machine(CPU, LONG).compiles
    assert min(preset(name).trainer.updates for name in ("atari100k", "learn", "laptop")) >= LONG
    assert not Machine(preset("quick").runtime, preset("quick").trainer.updates).compiles


@pytest.mark.usefixtures("a_compiler")
def test_auto_compiles_on_a_gpu_only_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for there in ("triton", ""):
        monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name, there=there: name == there or None)
        assert not machine._resolve_compile("auto", gpu, LONG - 1)
        assert machine._resolve_compile("auto", gpu, LONG) == bool(there)
    with pytest.raises(GlamkitError, match="triton is not installed"):
        machine._resolve_compile("on", gpu, LONG)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_goes_on_and_on_says_what_is_missing() -> None:
    assert not Machine(CPU, LONG).compiles
    with pytest.raises(GlamkitError, match=r"runtime\.compile = 'on' cannot be used here.*C\+\+ compiler.*auto or off"):
        Machine(RuntimeConfig(device="cpu", compile="on"))


def test_what_is_not_compiled_is_left_as_it_is() -> None:
    function = lambda: 1  # noqa: E731
    assert Machine(RuntimeConfig(device="cpu", compile="off")).fuse(function) is function


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.timeout(1800)  # two minutes on two quiet cores
def test_a_compiled_run_makes_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded runs, three updates each, that draw the same random numbers; a resumed one is equal to the bit."""
    # What is faster for large networks alone is taken here too.
    monkeypatch.setattr("glamkit.ops.norms.LARGE", 0)
    logs = []
    for name, choice, stop in (("eager", "off", 0), ("compiled", "on", 0), ("resumed", "on", 50)):
        small = {"runtime.compile": choice, "env.game": "glamkit/Catch-v0", "trainer.log_every": 1}
        config = preset("debug", small | {"world_model.state": 2, "imagination.horizon": 2}, env_steps=51)
        trainer = Trainer(config, tmp_path / name)
        for _ in trainer:
            trainer.session.stops.reason = "asked" if trainer.step == stop else ""
        if stop:
            trainer = Trainer(config, tmp_path / name)
            list(trainer)
        torch._dynamo.reset()
        lines = [entry for entry in log.read(trainer.run.log_file) if entry["kind"] == "log"][-3:]
        assert [line["step"] for line in lines] == [49, 50, 51]
        logs.append([{key: value for key, value in line.items() if not key.startswith("time")} for line in lines])
    eager, compiled, resumed = logs
    assert resumed == compiled
    for one, other in zip(eager, compiled, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4), (key, one["step"])
