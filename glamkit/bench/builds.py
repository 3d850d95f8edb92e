"""The versions that have to match before mamba-ssm's compiled kernels load, and which of them does not.

These kernels are compiled C++ and CUDA. So torch, CUDA, the NVIDIA driver, the compiler and Python have to match what
they were compiled with. When one does not, the import error names none of them; this is the most frequent problem of
mamba-ssm's users. Here such an error becomes the mismatch and the command that corrects it. Nothing here needs a GPU.
mamba-ssm is optional: glamkit has kernels of its own for the scan.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# Its installer imports torch, so it cannot be isolated from it, and what it builds with has to be there before. Of its
# many dependencies the scan imports einops and transformers alone, and triton, which comes with torch.
TOOLS = "pip install 'setuptools>=77,<82' wheel packaging ninja einops transformers"  # torch 2.11 wants <82
PIP = "pip install --no-build-isolation --no-deps"
INSTALL = f"{TOOLS} && {PIP} mamba-ssm"
# Without FORCE_BUILD it would fetch a ready-made wheel again, and without the others pip would take its cached one.
REBUILD = f"{TOOLS} && MAMBA_FORCE_BUILD=TRUE {PIP} --no-cache-dir --force-reinstall mamba-ssm"
TOOLKIT = Path("/usr/local/cuda")  # where NVIDIA's installers put CUDA
# The CUDA versions for which the torch versions that glamkit allows can be had ready-made.
WHEELS = ("12.6", "12.8", "13.0")
TORCH = "torch>=2.8,<2.16"  # as in pyproject.toml


class Build(NamedTuple):
    """The versions installed here; a field is empty where there is none."""

    torch: str = ""
    torch_cuda: str = ""  # the CUDA that torch was built for
    nvcc: str = ""  # the CUDA compiler's version
    driver: str = ""  # the newest CUDA that the NVIDIA driver can run
    python: str = ""
    kernels_for: tuple[str, ...] = ()  # Python versions for which a compiled selective_scan_cuda lies there
    compiler: str = ""  # path of the C++ compiler
    cuda_home: str = ""  # the CUDA toolkit's folder, where torch looks in another that has no headers


def explain_import_error(message: str, build: Build) -> tuple[str, str]:
    """Which mismatch an error of mamba-ssm stands for, and the command that corrects it (empty if there is none).

    Args:
        message: what its import, or the first run of its kernel, raised.
        build: the versions here.
    """
    if not build.torch_cuda:
        text = f"torch {build.torch} is a CPU build, and mamba-ssm's kernels exist only for CUDA."
        return text, f"{torch_for(build.driver)} && {INSTALL}" if build.driver else ""
    if "causal_conv1d" in message:
        return "causal-conv1d is broken, and glamkit does not need it.", "pip uninstall -y causal-conv1d"
    if missing := re.search(r"No module named '([\w.]+)'", message):
        return _explain_missing(missing[1].split(".")[0], build)
    if "undefined symbol" in message:
        text = f"its kernels were compiled against another torch than the {build.torch} that is installed"
        return f"{text} (undefined symbol).", _compile(REBUILD, build)
    if library := re.search(r"lib(?:cudart|cublas\w*|nvrtc|c10_cuda|torch_cuda)\.so(?:\.([\d.]*\d))?", message):
        made = f"CUDA {library[1]}" if library[1] else "another torch"
        text = f"its kernels were compiled for {made}, but torch {build.torch} brings CUDA {build.torch_cuda}"
        return f"{text} ({library[0]} is not found).", _compile(REBUILD, build)
    if "GLIBC" in message:
        return "its kernels were compiled on a newer Linux than this one.", _compile(REBUILD, build)
    if "no kernel image" in message:
        return "its kernels were not compiled for this GPU.", _compile(REBUILD, build)
    if "driver version is insufficient" in message or "driver on your system is too old" in message:
        text = f"the NVIDIA driver (CUDA {build.driver or 'unknown'}) is too old for CUDA {build.torch_cuda}."
        return text, f"update the NVIDIA driver, or: {torch_for(build.driver)}"
    return f"its kernels do not load ({message}).", _compile(REBUILD, build)


def _explain_missing(module: str, build: Build) -> tuple[str, str]:
    if module == "mamba_ssm":
        text = "it is not installed (to do it without GitHub: export MAMBA_FORCE_BUILD=TRUE; it compiles for hours)."
        return text, _compile(INSTALL, build)
    if module == "selective_scan_cuda" and build.kernels_for:
        made = ", ".join(build.kernels_for)
        return f"its kernels were compiled for Python {made}, and this is {build.python}.", _compile(REBUILD, build)
    if module == "selective_scan_cuda":
        return "it was installed without its compiled kernels.", _compile(REBUILD, build)
    # triton, transformers, einops and the like: on PyPI they are named as they are imported.
    return f"it needs the package {module}, which is missing.", f"pip install {module}"


def _compile(command: str, build: Build) -> str:
    """`command`, after the commands that install what it needs.

    mamba-ssm's installer needs nvcc even where it then finds a compiled wheel.
    """
    if not build.nvcc or _number(build.nvcc)[0] != _number(build.torch_cuda)[0]:
        result = f"nvcc is {build.nvcc}" if build.nvcc else "nvcc is missing, or CUDA_HOME does not say where it is"
        return f"install the CUDA {build.torch_cuda} toolkit for torch {build.torch} ({result}), then: {command}"
    if build.cuda_home:
        command = f"export CUDA_HOME={build.cuda_home} && {command}"
    return command if build.compiler else f"apt-get install -y g++ && {command}"


def torch_for(driver: str) -> str:
    """The command that installs a torch for the newest CUDA that the driver supports, such as ``12.4``."""
    fitting = [cuda for cuda in WHEELS if _number(cuda) <= _number(driver)]
    if not fitting:
        return f"update the NVIDIA driver to one for CUDA {WHEELS[0]} or newer"
    index = f"https://download.pytorch.org/whl/cu{fitting[-1].replace('.', '')}"
    return f"pip install --force-reinstall '{TORCH}' --index-url {index}"


def driver_too_old(build: Build) -> bool:
    """Whether torch was built for a newer major version of CUDA than the driver supports."""
    return bool(build.driver and build.torch_cuda) and _number(build.torch_cuda)[0] > _number(build.driver)[0]


def find_build() -> Build:
    """The versions on this machine.

    Raises:
        ImportError: torch cannot be imported.
    """
    torch = importlib.import_module("torch")
    home, headers = _torch_cuda_home(), Path("include", "cuda_runtime.h")
    astray = (TOOLKIT / headers).exists() and not (home / headers).exists()
    nvcc = (TOOLKIT if astray else home) / "bin" / "nvcc"
    folders = [Path(folder) for folder in sys.path if Path(folder).is_dir()]
    kernels = [path.name for folder in folders for path in folder.glob("selective_scan_cuda*.so")]
    tags = [re.search(r"cpython-(\d)(\d+)", name) for name in kernels]
    return Build(
        torch=torch.__version__,
        torch_cuda=torch.version.cuda or "",
        nvcc=_ask([str(nvcc) if nvcc.exists() else "nvcc", "--version"], r"release (\d+\.\d+)"),
        driver=_ask(["nvidia-smi"], r"CUDA (?:\w+ )?Version: *(\d+\.\d+)"),
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        kernels_for=tuple(f"{tag[1]}.{tag[2]}" for tag in tags if tag),
        compiler=find_compiler(),
        cuda_home=str(TOOLKIT) if astray else "",
    )


def _torch_cuda_home() -> Path:
    """Where torch looks for the CUDA toolkit.

    This is wrong if the nvcc on the path is a wrapper in another folder.
    """
    named, nvcc = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"), shutil.which("nvcc")
    if named or not nvcc:
        return Path(named or TOOLKIT)
    return Path(nvcc).parent.parent


def find_compiler() -> str:
    """The path of the C++ compiler that torch.compile uses; empty if there is none."""
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None) or ""


def _ask(command: list[str], pattern: str) -> str:
    """The first group of `pattern` in the output of `command`; empty if it is missing or fails."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    result = re.search(pattern, text)
    return result[1] if result else ""


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major or 0), int(minor.partition(".")[0] or 0)
