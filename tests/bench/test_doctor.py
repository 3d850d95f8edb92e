"""The doctor, shown machines that it does not run on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glamkit import cli, runtime
from glamkit.bench import doctor
from glamkit.bench.doctor import TORCH, Build, DoctorFinding, torch_for

CPU = Build(torch="2.13.0+cpu")
GPU = Build("2.13.0+cu130", "13.0", driver="13.0")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("ModuleNotFoundError: No module named 'mamba_ssm'", "it is not installed. "),
        ("ImportError: selective_scan_cuda.so: undefined symbol: _ZN3c10", "ImportError: selective_scan_cuda.so: "),
    ],
)
def test_mamba_that_does_not_load_is_a_note_with_its_error_and_the_page(error: str, text: str, root: Path) -> None:
    finding = doctor.check_mamba(error)
    assert finding.state == "note", "mamba-ssm is optional: its absence may not fail the doctor"
    assert finding.text.startswith(text)
    assert "glamkit/ops/README.md" in finding.text
    assert "undefined symbol" in (root / "glamkit" / "ops" / "README.md").read_text()


def test_mamba_that_loads_is_ok() -> None:
    assert doctor.check_mamba("").state == "ok"


@pytest.mark.parametrize(
    ("driver", "index"), [("12.6", "cu126"), ("12.7", "cu126"), ("12.10", "cu128"), ("13.2", "cu130")]
)
def test_the_newest_torch_that_the_driver_can_run(driver: str, index: str) -> None:
    assert torch_for(driver).endswith(f"/{index}")


def test_a_driver_older_than_every_torch_is_to_be_updated() -> None:
    assert torch_for("11.8") == "update the NVIDIA driver to one for CUDA 12.6 or newer"


def test_the_offered_torch_is_the_one_that_the_package_allows(root: Path) -> None:
    assert f'"{TORCH}"' in (root / "pyproject.toml").read_text()
    assert f"'{TORCH}'" in torch_for("13.0")


def test_packages() -> None:
    needs = ["torch>=2.8,<2.14", "ale-py>=0.11", 'ray>=2.40; extra == "cluster"', "opencv_python_headless>=4.9"]
    here = {"torch": "2.13.0+cpu", "ale-py": "0.12.1", "opencv-python-headless": "5.0.0.93"}
    assert doctor.check_packages(needs, here).state == "ok"
    finding = doctor.check_packages(needs, {**here, "torch": "2.14.1"})
    assert finding.state == "problem"
    assert "torch is 2.14.1" in finding.text
    del here["ale-py"]
    assert "ale-py is missing" in doctor.check_packages(needs, here).text


def test_torch_and_its_threads() -> None:
    assert doctor.check_torch(CPU, "", 8, 16).state == "ok", "half are hyperthreads"
    held = doctor.check_torch(CPU, "", 1, 16, "1")
    assert (held.state, held.mend) == ("note", "unset OMP_NUM_THREADS")
    assert doctor.check_torch(CPU, "", 16, 16, "16").state == "ok"
    assert "built for CUDA 13.0" in doctor.check_torch(GPU, "", 2, 2).text
    assert doctor.check_torch(Build(), "ImportError: libtorch.so", 0, 0).state == "problem"


def test_device() -> None:
    assert doctor.check_device(GPU, ["NVIDIA H200"]) == DoctorFinding("device", "ok", "1 CUDA GPU(s): NVIDIA H200.")
    assert doctor.check_device(CPU, []).state == "ok"
    assert "mps" in doctor.check_device(CPU, [], apple=True).text
    unused = doctor.check_device(CPU._replace(driver="12.8"), [])
    assert unused.state == "note"
    assert unused.mend.endswith("cu128")
    old = doctor.check_device(GPU._replace(driver="12.8"), [])
    assert "only goes up to 12.8" in old.text
    assert "cu128" in old.mend
    assert "CUDA_VISIBLE_DEVICES" in doctor.check_device(GPU, []).text
    within = GPU._replace(torch_cuda="12.8", driver="12.4")
    assert "CUDA_VISIBLE_DEVICES" in doctor.check_device(within, []).text, "minor versions are compatible"


def test_what_computes_and_what_compiling_lacks() -> None:
    good = doctor.check_computing("cuda in bfloat16", True, "")
    text = "cuda in bfloat16; scans by Triton kernels; torch.compile can be used."
    assert good == DoctorFinding("computing", "ok", text)
    short = doctor.check_computing("cpu in float32", False, "Python's headers are missing")
    assert short.state == "note" and "plain PyTorch; torch.compile cannot be used: Python's headers" in short.text
    assert (short.mend != "") == (sys.platform in ("linux", "darwin"))
    assert not doctor.check_computing("mps in float32", False, "it is not tried on Apple GPUs").mend


@pytest.mark.parametrize("there", [None, "/usr/bin/g++"])
def test_what_a_machine_lacks_to_compile_has_a_command(there: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: there)
    monkeypatch.setattr("pathlib.Path.exists", lambda _: False)  # no headers
    missing = runtime.missing_compiler(torch.device("cpu"))
    assert missing and doctor.check_computing("", False, missing).mend == "apt-get install -y g++ python3-dev"


def test_jupyter() -> None:
    assert doctor.check_jupyter("python", "/v/bin/python3").state == "ok"
    assert doctor.check_jupyter("/v/bin/python", "/v/bin/python3").state == "ok"
    other = doctor.check_jupyter("/usr/bin/python3", "/v/bin/python3")
    assert other.state == "problem"
    assert other.mend == "/v/bin/python3 -m ipykernel install --sys-prefix"
    assert doctor.check_jupyter("", "/v/bin/python3").state == "problem"


def test_atari_and_disk() -> None:
    assert doctor.check_atari("", "ale-py 0.12").state == "ok"
    assert doctor.check_atari("NamespaceNotFound: Namespace ALE not found", "").state == "problem"
    missing = doctor.check_atari("FileNotFoundError: No such file: 'tennis.bin'", "")
    assert missing.state == "problem" and "a ROM cannot be opened" in missing.text
    assert missing.mend == "pip install --force-reinstall --no-deps ale-py"
    states = [doctor.check_disk(free, "/").state for free in (10**8, 10**9, 10**10)]
    assert states == ["problem", "note", "ok"]


def test_what_cannot_be_examined_is_noted_and_the_rest_goes_on() -> None:
    def broken() -> DoctorFinding:
        raise OSError("no such\nthing")

    first, second = doctor.examine({"this": broken, "that": lambda: DoctorFinding("that", "ok", "fine.")})
    assert first == DoctorFinding("this", "note", "could not be examined (OSError: no such thing).")
    assert second.state == "ok"


def test_the_report_puts_the_mend_under_its_finding() -> None:
    findings = [DoctorFinding("disk", "ok", "fine."), DoctorFinding("atari", "problem", "broken.", "mend it")]
    text = doctor.report(findings)
    assert [line.split() for line in text.splitlines()] == [
        ["ok", "disk", "fine."],
        ["problem", "atari", "broken."],
        ["to", "mend:", "mend", "it"],
    ]


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_only_a_problem_is_an_error(
    state: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [DoctorFinding("x", state, "said.")])
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
    assert list(result) == list(doctor.PROBES)
    needed = ("python", "packages", "atari", "jupyter")
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


def test_the_driver_is_read_from_what_its_tool_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '| NVIDIA-SMI 570.86   Driver Version: 570.86   CUDA Version: 12.8     |'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert doctor.find_build().driver == "12.8"


def test_a_missing_tool_is_empty_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.find_build().driver == ""
