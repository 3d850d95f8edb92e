"""What this machine can do, in plain words, and the command that corrects each problem.

Every `check_*` is a pure function of its arguments, so that the tests can describe machines they do not have.
`PROBES` at the end maps names to where the arguments come from. Nothing heavy is imported before it is examined.
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
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from glamkit.errors import DISTRIBUTION, install

LAB = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill")  # the extra `lab`
# The CUDA versions for which the torch versions that glamkit allows can be had ready-made.
WHEELS = ("12.6", "12.8", "13.0")
TORCH = "torch>=2.8,<2.16"  # as in pyproject.toml
ABSENT = "No module named 'mamba_ssm'"
OURS = "It is optional; glamkit/ops/README.md says how to install it and what its errors mean."


class Build(NamedTuple):
    """The versions installed here; a field is empty where there is none."""

    torch: str = ""
    torch_cuda: str = ""  # the CUDA that torch was built for
    driver: str = ""  # the newest CUDA that the NVIDIA driver can run


class DoctorFinding(NamedTuple):
    """One line of the report: `state` is ok, note (something is slower or missing) or problem (nothing works)."""

    name: str
    state: str
    text: str
    mend: str = ""


def check_packages(requirements: Iterable[str], installed: Mapping[str, str]) -> DoctorFinding:
    """Whether all packages that glamkit requires are installed, in versions that it supports."""
    from packaging.requirements import Requirement

    wrong = {}
    for need in map(Requirement, requirements):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            result = installed.get(need.name.lower().replace("_", "-"))
            if result is None or not need.specifier.contains(result, prereleases=True):
                text = "missing" if result is None else f"{result}, but {need.specifier} is needed"
                wrong[f"'{need.name}{need.specifier}'"] = f"{need.name} is {text}"
    if wrong:
        return DoctorFinding("packages", "problem", "; ".join(wrong.values()) + ".", f"pip install {' '.join(wrong)}")
    return DoctorFinding("packages", "ok", "everything glamkit asks for is installed.")


def check_torch(build: Build, error: str, threads: int, cores: int, limit: str | None = None) -> DoctorFinding:
    """Whether torch imports, its build, and how many threads it uses; `limit` is OMP_NUM_THREADS."""
    if error:
        text = f"torch cannot be imported ({error})."
        return DoctorFinding("torch", "problem", text, f"pip install --force-reinstall '{TORCH}'")
    kind = f"built for CUDA {build.torch_cuda}" if build.torch_cuda else "a CPU build"
    text = f"torch {build.torch}, {kind}; on the CPU it uses {threads} of {cores} cores"
    if limit and threads < cores:
        return DoctorFinding("torch", "note", f"{text}, because OMP_NUM_THREADS={limit}.", "unset OMP_NUM_THREADS")
    return DoctorFinding("torch", "ok", f"{text}.")


def check_device(build: Build, gpus: list[str], apple: bool = False) -> DoctorFinding:
    """What ``device=auto`` computes on and, if there is an NVIDIA driver but no usable GPU, why."""
    if gpus:
        return DoctorFinding("device", "ok", f"{len(gpus)} CUDA GPU(s): {', '.join(gpus)}.")
    if not build.driver:
        text = "no NVIDIA driver was found: everything runs on the CPU."
        text += " The Apple GPU can be asked for with device=mps." if apple else ""
        return DoctorFinding("device", "ok", text)
    if not build.torch_cuda:
        text = f"the NVIDIA driver can run CUDA {build.driver}, but torch is a CPU build: everything runs on the CPU."
        return DoctorFinding("device", "note", text, torch_for(build.driver))
    if _number(build.torch_cuda)[0] > _number(build.driver)[0]:  # minor versions are compatible
        text = f"torch was built for CUDA {build.torch_cuda}, but the NVIDIA driver only goes up to {build.driver}."
        return DoctorFinding("device", "note", text, f"update the NVIDIA driver, or: {torch_for(build.driver)}")
    text = "torch has CUDA and there is an NVIDIA driver, but torch sees no GPU (hidden by CUDA_VISIBLE_DEVICES?)."
    return DoctorFinding("device", "note", text, "nvidia-smi; unset CUDA_VISIBLE_DEVICES")


def torch_for(driver: str) -> str:
    """The command that installs a torch for the newest CUDA that the driver supports, such as ``12.4``."""
    fitting = [cuda for cuda in WHEELS if _number(cuda) <= _number(driver)]
    if not fitting:
        return f"update the NVIDIA driver to one for CUDA {WHEELS[0]} or newer"
    index = f"https://download.pytorch.org/whl/cu{fitting[-1].replace('.', '')}"
    return f"pip install --force-reinstall '{TORCH}' --index-url {index}"


def check_mamba(error: str) -> DoctorFinding:
    """Whether mamba-ssm's fused kernels load; `error` is the message of their import or first run."""
    if not error:
        return DoctorFinding("mamba-ssm", "ok", "its kernels load.")
    return DoctorFinding("mamba-ssm", "note", f"{'it is not installed' if ABSENT in error else error}. {OURS}")


def check_computing(machine: str, kernels: bool, missing: str) -> DoctorFinding:
    """What computes by default, and what torch.compile lacks here, if anything."""
    text = f"{machine}; scans by {'Triton kernels' if kernels else 'plain PyTorch'}; torch.compile "
    text += f"cannot be used: {missing}." if missing else "can be used."
    tools = {"linux": "apt-get install -y g++ python3-dev", "darwin": "xcode-select --install"}.get(sys.platform, "")
    mend = tools if re.search("compiler|headers", missing) else ""
    return DoctorFinding("computing", "note" if missing else "ok", text, mend)


def check_atari(error: str, versions: str) -> DoctorFinding:
    """Whether Pong makes a step and every game's ROM is there. The ROMs come with ale-py."""
    if not error:
        return DoctorFinding("atari", "ok", f"Pong runs ({versions}); the ROMs of all games come with ale-py.")
    if error.startswith(("FileNotFoundError", "NotADirectoryError", "OSError")):
        own = os.environ.get("ALE_ROMS_DIR")
        mend = "unset ALE_ROMS_DIR" if own else "pip install --force-reinstall --no-deps ale-py"
        return DoctorFinding("atari", "problem", f"a ROM cannot be opened ({error}).", mend)
    text = f"Pong does not start ({error})."
    return DoctorFinding("atari", "problem", text, "pip install --upgrade ale-py gymnasium")


def check_jupyter(kernel: str, python: str, missing: str = "") -> DoctorFinding:
    """Whether JupyterLab is installed, and whether the notebooks' kernel `python3` runs this Python."""
    if missing:
        text = f"{missing} is not installed: training and evaluating go without, the notebooks do not."
        return DoctorFinding("jupyter", "note", text, install("lab"))
    mend = f"{python} -m ipykernel install --sys-prefix"
    if not kernel:
        return DoctorFinding("jupyter", "problem", "there is no Jupyter kernel named python3.", mend)
    # A bare name is replaced by Jupyter with the Python that it runs in; folders are compared because python and
    # python3 in one of them are the same, and links are not followed because all virtual environments lead to one.
    if os.sep in kernel and Path(kernel).absolute().parent != Path(python).absolute().parent:
        return DoctorFinding("jupyter", "problem", f"the Jupyter kernel python3 runs {kernel}, not this Python.", mend)
    return DoctorFinding("jupyter", "ok", "the kernel python3 runs this Python.")


def check_disk(free: int, folder: str) -> DoctorFinding:
    """Whether the `free` bytes suffice for runs: a replay of 100,000 frames of 64 x 64 pixels has 1.2 GB."""
    text = f"{free / 1e9:.1f} GB free in {folder}; an atari100k run needs about 3 GB, a quick one 0.2 GB."
    return DoctorFinding("disk", "problem" if free < 2e8 else "note" if free < 3e9 else "ok", text)


def find_build() -> Build:
    """The versions on this machine.

    Raises:
        ImportError: torch cannot be imported.
    """
    torch = importlib.import_module("torch")
    try:
        text = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    driver = re.search(r"CUDA (?:\w+ )?Version: *(\d+\.\d+)", text)
    return Build(torch.__version__, torch.version.cuda or "", driver[1] if driver else "")


def probe_packages() -> DoctorFinding:
    """`check_packages` of what is installed here."""
    result = [(item.metadata["Name"] or "", item.version) for item in metadata.distributions()]
    # Reversed, so that of two with one name the first on the path is kept, which is the one that is imported.
    installed = {name.lower().replace("_", "-"): version for name, version in reversed(result)}
    owners = metadata.packages_distributions().get("glamkit", [])  # another project has files of that name too
    if not owners:
        return DoctorFinding("packages", "note", "glamkit is read from a folder, not installed.", "pip install -e .")
    needs = metadata.requires(DISTRIBUTION if DISTRIBUTION in owners else owners[0])
    return check_packages(needs or [], installed)


def probe_torch() -> DoctorFinding:
    """`check_torch` of this machine."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # compiled code fails to import in any way
        return check_torch(Build(), _one_line(error), 0, 0)
    cores, limit = importlib.import_module("glamkit.runtime").own_cores(), os.environ.get("OMP_NUM_THREADS")
    return check_torch(find_build(), "", torch.get_num_threads(), cores, limit)


def probe_device() -> DoctorFinding:
    """`check_device` of this machine."""
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    return check_device(find_build(), gpus, torch.backends.mps.is_available())


def probe_mamba() -> DoctorFinding:
    """`check_mamba` of this machine; on a CUDA device the kernel is also run, forward and backward."""
    torch, rules = importlib.import_module("torch"), importlib.import_module("glamkit.training.accelerate.rules")
    models = importlib.import_module("glamkit.models")
    error = rules.missing_mamba_ssm()
    device = importlib.import_module("glamkit.runtime").resolve_device("auto")
    if not error and device.type != "cpu":
        try:
            block = models.Mamba(16).to(device)
            rules.select_kernel(block, "mamba-ssm", device)
            block(torch.zeros(1, 4, 16, device=device)).sum().backward()
        except Exception as failure:  # whatever the kernel says is what is to be explained
            error = _one_line(failure)
    return check_mamba(error)


def probe_computing() -> DoctorFinding:
    """`check_computing` of this machine, by the functions that a run asks."""
    torch, config = importlib.import_module("torch"), importlib.import_module("glamkit.config")
    runtime, scan = importlib.import_module("glamkit.runtime"), importlib.import_module("glamkit.ops.scan")
    machine = runtime.Machine(config.RuntimeConfig())
    kernels = scan.by_kernels(torch.empty(0, device=machine.device))
    return check_computing(str(machine), kernels, runtime.missing_compiler(machine.device))


def probe_atari() -> DoctorFinding:
    """`check_atari` of this machine: Pong makes a step, and the ROM of every game is looked up."""
    try:
        gymnasium, ale = importlib.import_module("gymnasium"), importlib.import_module("ale_py")
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        gymnasium.register_envs(ale)
        env = gymnasium.make("ALE/Pong-v5")
        env.reset(seed=0)
        env.step(0)
        env.close()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the folder, once for each game
            for game in ale.roms.get_all_rom_ids():
                ale.roms.get_rom_path(game)
    except Exception as error:  # a missing ROM, a missing namespace, an old library: all are said
        return check_atari(_one_line(error), "")
    return check_atari("", f"ale-py {ale.__version__}, gymnasium {gymnasium.__version__}")


def probe_jupyter() -> DoctorFinding:
    """`check_jupyter` of the kernel that papermill and JupyterLab start."""
    if missing := next((name for name in LAB if importlib.util.find_spec(name) is None), ""):
        return check_jupyter("", sys.executable, missing)
    specs = importlib.import_module("jupyter_client.kernelspec")
    try:
        kernel = specs.KernelSpecManager().get_kernel_spec("python3").argv[0]
    except specs.NoSuchKernel:
        kernel = ""
    return check_jupyter(kernel, sys.executable)


PROBES: dict[str, Callable[[], DoctorFinding]] = {
    "python": lambda: DoctorFinding("python", "ok", f"Python {platform.python_version()} at {sys.executable}."),
    "packages": probe_packages,
    "torch": probe_torch,
    "device": probe_device,
    "mamba-ssm": probe_mamba,
    "computing": probe_computing,
    "atari": probe_atari,
    "jupyter": probe_jupyter,
    "disk": lambda: check_disk(shutil.disk_usage(Path.cwd()).free, str(Path.cwd())),
}


def examine(probes: Mapping[str, Callable[[], DoctorFinding]] = PROBES) -> list[DoctorFinding]:
    """All findings. A probe that fails, because something it needs is broken, becomes a note; nothing is raised."""
    findings = []
    for name, probe in probes.items():
        try:
            findings.append(probe())
        except Exception as error:
            findings.append(DoctorFinding(name, "note", f"could not be examined ({_one_line(error)})."))
    return findings


def report(findings: Iterable[DoctorFinding]) -> str:
    """The findings as text, each with the command that corrects it."""
    lines = []
    for name, state, text, mend in findings:
        lines.append(f"{state:8}{name:11}{text}")
        if mend:
            lines.append(f"{'':19}to mend: {mend}")
    return "\n".join(lines) + "\n"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major or 0), int(minor.partition(".")[0] or 0)
