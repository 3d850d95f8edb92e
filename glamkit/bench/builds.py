"""Which torch fits this machine: versions of torch, CUDA, the driver and the compiler. Nothing here needs a GPU."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

# The CUDA versions for which the torch versions that glamkit allows can be had ready-made.
WHEELS = ("12.6", "12.8", "13.0")
TORCH = "torch>=2.8,<2.16"  # as in pyproject.toml


class Build(NamedTuple):
    """The versions installed here; a field is empty where there is none."""

    torch: str = ""
    torch_cuda: str = ""  # the CUDA that torch was built for
    driver: str = ""  # the newest CUDA that the NVIDIA driver can run


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
    try:
        text = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    driver = re.search(r"CUDA (?:\w+ )?Version: *(\d+\.\d+)", text)
    return Build(torch.__version__, torch.version.cuda or "", driver[1] if driver else "")


def own_cores() -> int:
    """CPU cores that this process may use: fewer than the machine has where a batch system binds it to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_compiler() -> str:
    """The path of the C++ compiler that torch.compile uses; empty if there is none."""
    own = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # torch tries no other
    return shutil.which(os.environ.get("CXX", own)) or ""


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major or 0), int(minor.partition(".")[0] or 0)
