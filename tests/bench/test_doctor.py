"""The doctor, shown machines that it does not run on."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from glamkit import cli
from glamkit.bench import doctor
from glamkit.bench.doctor import DoctorFinding


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("ModuleNotFoundError: No module named 'mamba_ssm'", "it is not installed. "),
        ("ImportError: selective_scan_cuda.so: undefined symbol: _ZN3c10", "ImportError: selective_scan_cuda.so: "),
    ],
)
def test_mamba_that_does_not_load_is_a_note_with_its_error_and_the_page(
    error: str, text: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glamkit.training.accelerate.rules.missing_mamba_ssm", lambda: error)
    finding = doctor.check_mamba()
    assert finding.state == "note", "mamba-ssm is optional: its absence may not fail the doctor"
    assert finding.text.startswith(text)
    assert "glamkit/ops/README.md" in finding.text
    assert "undefined symbol" in (root / "glamkit" / "ops" / "README.md").read_text()


def test_mamba_that_loads_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glamkit.training.accelerate.rules.missing_mamba_ssm", lambda: "")
    monkeypatch.setattr("glamkit.runtime.resolve_device", lambda _: torch.device("cpu"))
    assert doctor.check_mamba().state == "ok"


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["torch>=2.8", "ale_py>=0.11", 'ray>=99; extra == "cluster"']
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    assert doctor.check_packages().state == "ok"
    needs += ["numpy>=99", "glamkit-no-such-package>=1"]
    finding = doctor.check_packages()
    assert finding.state == "problem"
    assert "missing, or there in another version: 'numpy>=99', 'glamkit-no-such-package>=1'." in finding.text
    assert finding.mend == "pip install 'numpy>=99' 'glamkit-no-such-package>=1'"


@pytest.mark.parametrize(
    ("driver", "cuda", "state", "text"),
    [
        (None, "12.8", "ok", "no NVIDIA driver was found"),
        ("/usr/bin/nvidia-smi", None, "note", "torch is a CPU build"),
        ("/usr/bin/nvidia-smi", "12.8", "note", "built for CUDA 12.8, sees no GPU"),
    ],
)
def test_why_there_is_no_gpu(
    driver: str | None, cuda: str | None, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    for apple in (False, True):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=apple: found)
        finding = doctor.check_device()
        assert finding.state == state and text in finding.text
        assert ("mps" in finding.text) == (apple and not driver)
        assert ("pytorch.org" in finding.mend) == (driver is not None)
    assert ("CUDA_VISIBLE_DEVICES" in finding.mend) == (driver is not None and cuda is not None)


@pytest.mark.parametrize("missing", ["", "its C++ compiler was not found: g++"])
def test_what_computes_and_what_compiling_lacks(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glamkit.runtime.missing_compiler", lambda _: missing)
    finding = doctor.check_computing()
    assert finding.state == ("note" if missing else "ok")
    assert finding.text.endswith(f"cannot be used: {missing}." if missing else "torch.compile can be used.")


def test_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_jupyter().state == "ok"
    monkeypatch.setattr(doctor, "LAB", ("jupyterlab", "glamkit_no_such_package"))
    finding = doctor.check_jupyter()
    assert finding.state == "note" and "glamkit_no_such_package is not installed" in finding.text
    assert finding.mend == "pip install 'glamkit-rl[lab]'"


def test_a_missing_rom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALE_ROMS_DIR", raising=False)
    monkeypatch.setattr("ale_py.roms.get_rom_path", Mock(side_effect=FileNotFoundError("no pong.bin")))
    finding = doctor.check_atari()
    assert finding.state == "problem" and "Pong does not start (FileNotFoundError: no pong.bin)" in finding.text
    assert finding.mend == "pip install --force-reinstall ale-py gymnasium"
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    assert doctor.check_atari().mend == "unset ALE_ROMS_DIR"


def test_what_cannot_be_examined_is_noted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> DoctorFinding:
        raise OSError("no such\nthing")

    monkeypatch.setattr(doctor, "CHECKS", {"this": broken, "that": lambda: DoctorFinding("ok", "fine.")})
    findings = doctor.examine()
    assert findings["this"] == DoctorFinding("note", "could not be examined (OSError: no such thing).")
    assert findings["that"].state == "ok"


def test_the_report_puts_the_mend_under_its_finding() -> None:
    text = doctor.report(
        {"disk": DoctorFinding("ok", "fine."), "atari": DoctorFinding("problem", "broken.", "mend it")}
    )
    assert [line.split() for line in text.splitlines()] == [
        ["ok", "disk", "fine."],
        ["problem", "atari", "broken."],
        ["to", "mend:", "mend", "it"],
    ]


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_only_a_problem_is_an_error(
    state: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: {"x": DoctorFinding(state, "said.")})
    assert cli.main(["doctor", "--json"]) == status
    finding = {"name": "x", "state": state, "text": "said.", "mend": ""}
    assert json.loads(capsys.readouterr().out) == {"healthy": status == 0, "findings": [finding]}


def run_doctor(before: str = "pass") -> tuple[int, dict[str, dict[str, str]]]:
    run = "runpy.run_module('glamkit', None, '__main__')"
    program = f"import runpy, sys; {before}; sys.argv = ['', 'doctor', '--json']; {run}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    return done.returncode, {result["name"]: result for result in json.loads(done.stdout)["findings"]}


def test_this_machine_can_run_the_tests_so_the_doctor_must_agree() -> None:
    status, result = run_doctor()
    assert list(result) == list(doctor.CHECKS)
    needed = ("packages", "atari", "jupyter")
    assert {name: result[name]["state"] for name in needed} == dict.fromkeys(needed, "ok")
    assert not [name for name, finding in result.items() if "could not be examined" in finding["text"]]
    assert status == 0


def test_without_torch_it_reports_instead_of_crashing() -> None:
    status, result = run_doctor("sys.modules['torch'] = None")
    assert status == 1
    assert result["torch"]["state"] == "problem"
    assert result["atari"]["state"] == "ok"
    assert result["computing"]["state"] == "note"


def test_without_a_game_it_is_a_problem() -> None:
    status, result = run_doctor("sys.modules['ale_py'] = None")
    assert status == 1
    assert result["atari"]["state"] == "problem"
