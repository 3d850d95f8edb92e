"""What this machine can do, in plain words, and what corrects each problem.

`CHECKS` at the end names the checks. What is heavy or may be broken is imported inside its check.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import NamedTuple

from glamkit.errors import DISTRIBUTION, install

LAB = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill")  # the extra `lab`
OTHER_TORCH = "choose another build of torch at https://pytorch.org/get-started/locally"


class DoctorFinding(NamedTuple):
    """What a check says: `state` is ok, note (something is slower or missing) or problem (nothing works)."""

    state: str
    text: str
    mend: str = ""


def check_packages() -> DoctorFinding:
    """Which Python this is, and whether all packages that glamkit requires are installed in versions it supports."""
    from packaging.requirements import Requirement

    wrong, python = [], f"Python {platform.python_version()} at {sys.executable}"
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return DoctorFinding("note", f"{python}; glamkit is read from a folder, not installed.", "pip install -e .")
    for need in map(Requirement, requirements):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            there = {found.version for found in metadata.distributions(name=need.name)}
            if not any(need.specifier.contains(version, prereleases=True) for version in there):
                wrong.append(f"'{need.name}{need.specifier}'")
    if wrong:
        text = f"{python}; missing, or there in another version: {', '.join(wrong)}."
        return DoctorFinding("problem", text, f"pip install {' '.join(wrong)}")
    return DoctorFinding("ok", f"{python}; everything glamkit asks for is installed.")


def check_torch() -> DoctorFinding:
    """Whether torch imports, its build, and how many threads it uses."""
    try:
        import torch
    except Exception as error:  # compiled code fails to import in any way
        text = f"torch cannot be imported ({_one_line(error)})."
        return DoctorFinding("problem", text, "pip install --force-reinstall torch, or reinstall glamkit")
    from glamkit.runtime import own_cores

    kind = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    threads = f"on the CPU it uses {torch.get_num_threads()} of {own_cores()} cores"
    return DoctorFinding("ok", f"torch {torch.__version__}, {kind}; {threads}.")


def check_device() -> DoctorFinding:
    """What ``device=auto`` computes on and, if there is an NVIDIA driver but no usable GPU, why."""
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return DoctorFinding("ok", f"{len(gpus)} CUDA GPU(s): {', '.join(gpus)}.")
    if not shutil.which("nvidia-smi"):
        apple = " The Apple GPU can be asked for with --set runtime.device=mps." * torch.backends.mps.is_available()
        return DoctorFinding("ok", f"no NVIDIA driver was found: everything runs on the CPU.{apple}")
    if not torch.version.cuda:
        text = "there is an NVIDIA driver, but torch is a CPU build: everything runs on the CPU."
        return DoctorFinding("note", text, OTHER_TORCH)
    text = f"there is an NVIDIA driver, but torch, built for CUDA {torch.version.cuda}, sees no GPU."
    mend = "unset CUDA_VISIBLE_DEVICES; if nvidia-smi shows an older CUDA, update the driver, or"
    return DoctorFinding("note", text, f"{mend} {OTHER_TORCH}")


def check_mamba() -> DoctorFinding:
    """Whether mamba-ssm's fused kernel loads; on a CUDA device it is also run, forward and backward."""
    import torch

    from glamkit.models import Mamba
    from glamkit.runtime import resolve_device
    from glamkit.training.accelerate import rules

    error, device = rules.missing_mamba_ssm(), resolve_device("auto")
    if not error and device.type != "cpu":
        try:
            block = Mamba(16).to(device)
            rules.select_kernel(block, "mamba-ssm", device)
            block(torch.zeros(1, 4, 16, device=device)).sum().backward()
        except Exception as failure:  # whatever the kernel says is what is to be explained
            error = _one_line(failure)
    if not error:
        return DoctorFinding("ok", "its kernels load.")
    why = "it is not installed" if "No module named 'mamba_ssm'" in error else error
    ours = "It is optional; glamkit/ops/README.md says how to install it and what its errors mean."
    return DoctorFinding("note", f"{why}. {ours}")


def check_computing() -> DoctorFinding:
    """What computes by default, and what torch.compile lacks here, if anything."""
    import torch

    from glamkit.config import RuntimeConfig
    from glamkit.ops.scan import by_kernels
    from glamkit.runtime import Machine, missing_compiler

    machine = Machine(RuntimeConfig())
    kernels = "Triton kernels" if by_kernels(torch.empty(0, device=machine.device)) else "plain PyTorch"
    missing = missing_compiler(machine.device)
    compiles = f"cannot be used: {missing}" if missing else "can be used"
    return DoctorFinding("note" if missing else "ok", f"{machine}; scans by {kernels}; torch.compile {compiles}.")


def check_atari() -> DoctorFinding:
    """Whether Pong makes a step; a build of ale-py has the ROMs of all games or, on conda-forge, of none."""
    try:
        import ale_py
        import gymnasium

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        gymnasium.register_envs(ale_py)
        env = gymnasium.make("ALE/Pong-v5")
        env.reset(seed=0)
        env.step(0)
        env.close()
    except Exception as error:  # a missing ROM or namespace, an old library: all are said
        mend = "pip install --force-reinstall ale-py gymnasium"
        mend = "unset ALE_ROMS_DIR" if os.environ.get("ALE_ROMS_DIR") else mend
        return DoctorFinding("problem", f"Pong does not start ({_one_line(error)}).", mend)
    return DoctorFinding("ok", f"Pong runs (ale-py {ale_py.__version__}, gymnasium {gymnasium.__version__}).")


def check_jupyter() -> DoctorFinding:
    """Whether the packages of the notebooks are installed."""
    if missing := next((name for name in LAB if importlib.util.find_spec(name) is None), ""):
        text = f"{missing} is not installed: training and evaluating go without, the notebooks do not."
        return DoctorFinding("note", text, install("lab"))
    return DoctorFinding("ok", "the notebooks have what they need.")


CHECKS: dict[str, Callable[[], DoctorFinding]] = {
    "packages": check_packages,
    "torch": check_torch,
    "device": check_device,
    "mamba-ssm": check_mamba,
    "computing": check_computing,
    "atari": check_atari,
    "jupyter": check_jupyter,
}


def examine() -> dict[str, DoctorFinding]:
    """All findings by name. A check that fails, because something it needs is broken, becomes a note."""
    findings = {}
    for name, check in CHECKS.items():
        try:
            findings[name] = check()
        except Exception as error:
            findings[name] = DoctorFinding("note", f"could not be examined ({_one_line(error)}).")
    return findings


def report(findings: Mapping[str, DoctorFinding]) -> str:
    """The findings as text, each with what corrects it."""
    lines = []
    for name, (state, text, mend) in findings.items():
        lines.append(f"{state:8}{name:11}{text}")
        if mend:
            lines.append(f"{'':19}to mend: {mend}")
    return "\n".join(lines) + "\n"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
