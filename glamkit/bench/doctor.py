"""What this machine can do, in plain words, and the command that corrects each problem.

Every `check_*` is a pure function of its arguments, so that the tests can describe machines they do not have.
`PROBES` at the end maps names to where the arguments come from. Nothing heavy is imported before it is examined.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Container, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from glamkit.bench import builds
from glamkit.bench.builds import Build, driver_too_old, find_build, find_compiler, own_cores, torch_for
from glamkit.errors import DISTRIBUTION, install

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LAB = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill")  # the extra `lab`
ABSENT = "No module named 'mamba_ssm'"
OURS = "It is optional; glamkit/ops/README.md says how to install it and what its errors mean."


class DoctorFinding(NamedTuple):
    """One line of the report: `state` is ok, note (something is slower or missing) or problem (nothing works)."""

    name: str
    state: str
    text: str
    mend: str = ""


def check_python(version: tuple[int, ...]) -> DoctorFinding:
    """Whether Python is 3.11 or newer."""
    text = "Python " + ".".join(map(str, version[:3]))
    if version[:2] < (3, 11):
        return DoctorFinding("python", "problem", f"{text} is too old; glamkit needs 3.11.", "python3.11 -m venv .venv")
    return DoctorFinding("python", "ok", f"{text} at {sys.executable}.")


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
        return DoctorFinding("torch", "problem", text, f"pip install --force-reinstall '{builds.TORCH}'")
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
    if driver_too_old(build):
        text = f"torch was built for CUDA {build.torch_cuda}, but the NVIDIA driver only goes up to {build.driver}."
        return DoctorFinding("device", "note", text, f"update the NVIDIA driver, or: {torch_for(build.driver)}")
    text = "torch has CUDA and there is an NVIDIA driver, but torch sees no GPU (hidden by CUDA_VISIBLE_DEVICES?)."
    return DoctorFinding("device", "note", text, "nvidia-smi; unset CUDA_VISIBLE_DEVICES")


def check_mamba(error: str) -> DoctorFinding:
    """Whether mamba-ssm's fused kernels load; `error` is the message of their import or first run."""
    if not error:
        return DoctorFinding("mamba-ssm", "ok", "its kernels load.")
    return DoctorFinding("mamba-ssm", "note", f"{'it is not installed' if ABSENT in error else error}. {OURS}")


def check_scan(kernels: bool, device: str) -> DoctorFinding:
    """How GMamba's training scan is computed if ``runtime.kernel`` does not name another."""
    how = "glamkit's Triton kernels" if kernels else "glamkit's own scan in plain PyTorch"
    return DoctorFinding("scan", "ok", f"on {device}, GMamba trains with {how}.")


def check_precision(device: str, features: Container[str], chosen: str) -> DoctorFinding:
    """How fast bfloat16 is here, from the CPU's instructions, and what ``precision=auto`` takes.

    It is not timed: while other programs ran, the same two layers took 0.8 to 10 times as long as in float32.
    """
    if device != "cpu":
        return DoctorFinding("precision", "ok", f"precision=auto takes {chosen} on {device}.")
    speed, better = "emulated, which is slower than float32", "float32"
    if "amx_bf16" in features:
        speed, better = "much faster than float32 (AMX)", "bfloat16"
    elif "avx512_bf16" in features:
        speed, better = "up to twice as fast as float32 (AVX-512)", "bfloat16"
    elif "bf16" in features:  # Arm's instructions: not measured
        speed, better = "perhaps faster than float32 (it has the instructions)", chosen
    text = f"on this CPU bfloat16 is {speed}; precision=auto takes {chosen}."
    if better != chosen:
        return DoctorFinding("precision", "note", text, f"overrides='runtime.precision={better}'")
    return DoctorFinding("precision", "ok", text)


def check_compiler(compiler: str, error: str) -> DoctorFinding:
    """Whether torch.compile has what it needs: a C++ compiler and Python's headers."""
    if not compiler:
        text, mend = "there is no C++ compiler, so torch.compile cannot be used.", "apt-get install -y g++ python3-dev"
        return DoctorFinding("compiler", "note", text, "xcode-select --install" if sys.platform == "darwin" else mend)
    if "Python.h" in error:
        text = "Python's headers (Python.h) are missing, so torch.compile cannot be used."
        return DoctorFinding("compiler", "note", text, "apt-get install -y python3-dev")
    if error:
        text = f"{compiler} does not work ({error})."
        return DoctorFinding("compiler", "note", text, "apt-get install -y g++ python3-dev")
    return DoctorFinding("compiler", "ok", f"torch.compile can use {compiler}.")


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


def check_browser(path: str) -> DoctorFinding:
    """Whether there is a chromium for the tests that open notebooks; nothing else needs it."""
    if path:
        return DoctorFinding("browser", "ok", f"the browser tests use {path}.")
    text = "no chromium: the browser tests are skipped."
    return DoctorFinding("browser", "note", text, "apt-get install -y chromium")


def check_disk(free: int, folder: str) -> DoctorFinding:
    """Whether the `free` bytes suffice for runs: a replay of 100,000 frames of 64 x 64 pixels has 1.2 GB."""
    text = f"{free / 1e9:.1f} GB free in {folder}; an atari100k run needs about 3 GB, a quick one 0.2 GB."
    return DoctorFinding("disk", "problem" if free < 2e8 else "note" if free < 3e9 else "ok", text)


def find_browser() -> str:
    """The path of a chromium; empty if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), "") or ""


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
    return check_torch(find_build(), "", torch.get_num_threads(), own_cores(), os.environ.get("OMP_NUM_THREADS"))


def probe_device() -> DoctorFinding:
    """`check_device` of this machine."""
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    return check_device(find_build(), gpus, torch.backends.mps.is_available())


def probe_mamba() -> DoctorFinding:
    """`check_mamba` of this machine; on a CUDA device the kernel is also run, forward and backward."""
    torch, scans = importlib.import_module("torch"), importlib.import_module("glamkit.training.accelerate.scans")
    error = scans.available_kernels()["mamba-ssm"]
    device = importlib.import_module("glamkit.runtime").resolve_device("auto")
    if not error and device.type != "cpu":
        try:
            block = scans.Mamba(16).to(device)
            scans.select_kernel(block, "mamba-ssm", device)
            block(torch.zeros(1, 4, 16, device=device)).sum().backward()
        except Exception as failure:  # whatever the kernel says is what is to be explained
            error = _one_line(failure)
    return check_mamba(error)


def probe_scan() -> DoctorFinding:
    """`check_scan` of this machine, by the same function that the scan uses."""
    torch, scan = importlib.import_module("torch"), importlib.import_module("glamkit.ops.scan")
    device = importlib.import_module("glamkit.runtime").resolve_device("auto")
    return check_scan(scan.by_kernels(torch.empty(0, device=device)), str(device))


def probe_precision() -> DoctorFinding:
    """`check_precision` of this machine."""
    runtime, config = importlib.import_module("glamkit.runtime"), importlib.import_module("glamkit.config")
    machine, cpuinfo = runtime.Machine(config.RuntimeConfig()), Path("/proc/cpuinfo")
    features = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return check_precision(str(machine.device), features, str(machine.precision).removeprefix("torch."))


def probe_compiler() -> DoctorFinding:
    """`check_compiler` of this machine: a file that includes Python's headers is compiled."""
    compiler, headers = find_compiler(), sysconfig.get_paths()["include"]
    if not compiler:
        return check_compiler("", "")
    command = [compiler, "-x", "c++", "-fsyntax-only", f"-I{headers}", "-"]
    source = "#include <Python.h>\n#include <vector>\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60, check=False)
    return check_compiler(compiler, done.stderr.strip().partition("\n")[0] if done.returncode else "")


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
    "python": lambda: check_python(sys.version_info[:3]),
    "packages": probe_packages,
    "torch": probe_torch,
    "device": probe_device,
    "mamba-ssm": probe_mamba,
    "scan": probe_scan,
    "precision": probe_precision,
    "compiler": probe_compiler,
    "atari": probe_atari,
    "jupyter": probe_jupyter,
    "browser": lambda: check_browser(find_browser()),
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
