"""What this machine can do, in plain words, and what corrects each problem.

Every check finds out about one thing and says it; `CHECKS` at the end names them. What is heavy or may be broken is
imported inside its check.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from glamkit.errors import DISTRIBUTION, install

LAB = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill")  # the extra `lab`
OTHER_TORCH = "choose another build of torch at https://pytorch.org/get-started/locally"


class DoctorFinding(NamedTuple):
    """What a check says: `state` is ok, note (something is slower or missing) or problem (nothing works)."""

    state: str
    text: str
    mend: str = ""


def check_python() -> DoctorFinding:
    """Which Python this is."""
    return DoctorFinding("ok", f"Python {platform.python_version()} at {sys.executable}.")


def check_packages() -> DoctorFinding:
    """Whether all packages that glamkit requires are installed, in versions that it supports."""
    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return DoctorFinding("note", "glamkit is read from a folder, not installed.", "pip install -e .")
    wrong: dict[str, str] = {}
    for need in map(Requirement, requirements):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            try:
                version = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                version = ""
            if not version or not need.specifier.contains(version, prereleases=True):
                text = f"{need.name} is {version or 'missing'}, but {need.specifier} is needed"
                wrong[f"'{need.name}{need.specifier}'"] = text
    if wrong:
        return DoctorFinding("problem", "; ".join(wrong.values()) + ".", f"pip install {' '.join(wrong)}")
    return DoctorFinding("ok", "everything glamkit asks for is installed.")


def check_torch() -> DoctorFinding:
    """Whether torch imports, its build, and how many threads it uses."""
    try:
        import torch
    except Exception as error:  # compiled code fails to import in any way
        text = f"torch cannot be imported ({_one_line(error)})."
        return DoctorFinding("problem", text, "pip install --force-reinstall torch, or reinstall glamkit")
    from glamkit.runtime import own_cores

    threads, cores = torch.get_num_threads(), own_cores()
    kind = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    text = f"torch {torch.__version__}, {kind}; on the CPU it uses {threads} of {cores} cores"
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit and threads < cores:
        return DoctorFinding("note", f"{text}, because OMP_NUM_THREADS={limit}.", "unset OMP_NUM_THREADS")
    return DoctorFinding("ok", f"{text}.")


def check_device() -> DoctorFinding:
    """What ``device=auto`` computes on and, if there is an NVIDIA driver but no usable GPU, why."""
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return DoctorFinding("ok", f"{len(gpus)} CUDA GPU(s): {', '.join(gpus)}.")
    return without_gpu(torch.version.cuda or "", newest_cuda(), torch.backends.mps.is_available())


def without_gpu(built: str, driver: str, apple: bool = False) -> DoctorFinding:
    """Why there is no usable NVIDIA GPU.

    Args:
        built: the CUDA that torch was built for, such as ``12.8``; empty for a CPU build.
        driver: the newest CUDA that the NVIDIA driver can run; empty where there is none.
        apple: whether there is an Apple GPU.
    """
    if not driver:
        text = "no NVIDIA driver was found: everything runs on the CPU."
        if apple:
            text += " The Apple GPU can be asked for with --set runtime.device=mps."
        return DoctorFinding("ok", text)
    if not built:
        text = f"the NVIDIA driver can run CUDA {driver}, but torch is a CPU build: everything runs on the CPU."
        return DoctorFinding("note", text, OTHER_TORCH)
    if int(built.partition(".")[0]) > int(driver.partition(".")[0]):  # minor versions are compatible
        text = f"torch was built for CUDA {built}, but the NVIDIA driver only goes up to {driver}."
        return DoctorFinding("note", text, f"update the NVIDIA driver, or {OTHER_TORCH}")
    text = "torch has CUDA and there is an NVIDIA driver, but torch sees no GPU (hidden by CUDA_VISIBLE_DEVICES?)."
    return DoctorFinding("note", text, "nvidia-smi; unset CUDA_VISIBLE_DEVICES")


def newest_cuda() -> str:
    """The newest CUDA that the NVIDIA driver can run, such as ``12.8``; empty where there is no driver."""
    try:
        text = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"CUDA (?:\w+ )?Version: *(\d+\.\d+)", text)
    return found[1] if found else ""


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
    """Whether Pong makes a step and every game's ROM is there. The ROMs come with ale-py."""
    try:
        import ale_py
        import gymnasium

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        gymnasium.register_envs(ale_py)
        env = gymnasium.make("ALE/Pong-v5")
        env.reset(seed=0)
        env.step(0)
        env.close()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the folder, once for each game
            for game in ale_py.roms.get_all_rom_ids():
                ale_py.roms.get_rom_path(game)
    except OSError as error:
        mend = "pip install --force-reinstall --no-deps ale-py"
        mend = "unset ALE_ROMS_DIR" if os.environ.get("ALE_ROMS_DIR") else mend
        return DoctorFinding("problem", f"a ROM cannot be opened ({_one_line(error)}).", mend)
    except Exception as error:  # a missing namespace, an old library: all are said
        return DoctorFinding(
            "problem", f"Pong does not start ({_one_line(error)}).", "pip install --upgrade ale-py gymnasium"
        )
    versions = f"ale-py {ale_py.__version__}, gymnasium {gymnasium.__version__}"
    return DoctorFinding("ok", f"Pong runs ({versions}); the ROMs of all games come with ale-py.")


def check_jupyter() -> DoctorFinding:
    """Whether JupyterLab is installed, and whether the notebooks' kernel `python3` runs this Python."""
    if missing := next((name for name in LAB if importlib.util.find_spec(name) is None), ""):
        text = f"{missing} is not installed: training and evaluating go without, the notebooks do not."
        return DoctorFinding("note", text, install("lab"))
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    mend = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        kernel = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return DoctorFinding("problem", "there is no Jupyter kernel named python3.", mend)
    # A bare name is replaced by Jupyter with the Python that it runs in; folders are compared because python and
    # python3 in one of them are the same, and links are not followed because all virtual environments lead to one.
    if os.sep in kernel and Path(kernel).absolute().parent != Path(sys.executable).absolute().parent:
        return DoctorFinding("problem", f"the Jupyter kernel python3 runs {kernel}, not this Python.", mend)
    return DoctorFinding("ok", "the kernel python3 runs this Python.")


def check_disk() -> DoctorFinding:
    """Whether there is room for runs: checkpoints, snapshots and the packed replay, see runs/README.md."""
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1e9:.1f} GB free in {Path.cwd()}; an atari100k run needs about 1 GB, a quick one 0.1 GB."
    return DoctorFinding("problem" if free < 2e8 else "note" if free < 1e9 else "ok", text)


CHECKS: dict[str, Callable[[], DoctorFinding]] = {
    "python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "device": check_device,
    "mamba-ssm": check_mamba,
    "computing": check_computing,
    "atari": check_atari,
    "jupyter": check_jupyter,
    "disk": check_disk,
}


def examine(checks: Mapping[str, Callable[[], DoctorFinding]] = CHECKS) -> dict[str, DoctorFinding]:
    """All findings by name. A check that fails, because something it needs is broken, becomes a note."""
    findings = {}
    for name, check in checks.items():
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
