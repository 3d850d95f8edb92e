"""The machine: device, precision, compiling, recording. What computes where is decided here alone."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import logging
import math
import os
import platform
import re
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from glamkit.config import RuntimeConfig
from glamkit.errors import GlamkitError
from glamkit.runtime.cuda_graphs import Recorded, Recorder

CORES_ALLOWED = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time, and in how many
LONG = 4_000  # updates after which a minute or two of compiling is saved: on a CPU it saves a sixth of 160 ms

# malloc.h: M_MMAP_MAX is -4, M_MMAP_THRESHOLD -3, M_TRIM_THRESHOLD -1. Blocks of their own none, giving back never; and
# where glibc arrives by itself after the first large tensors.
KEEPING = {-4: 0, -1: -1}
USUAL = {-4: 65536, -3: 32 << 20, -1: 64 << 20}

logger = logging.getLogger(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])


def resolve_device(name: str) -> torch.device:
    """The device a setting stands for; ``auto`` prefers a GPU. One that this machine lacks is refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device, count = None, torch.cuda.device_count()
    with contextlib.suppress(RuntimeError, ValueError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise GlamkitError(f"runtime.device = {name!r} is not a device; allowed: auto, cpu, cuda, cuda:N or mps.")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise GlamkitError(f"runtime.device = {name!r}, but torch sees {count} CUDA GPUs here; use cpu or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise GlamkitError(f"runtime.device = {name!r}, but this machine has no Apple GPU; use cpu or auto.")
    return device


def available(config: RuntimeConfig, device: str | None = None) -> RuntimeConfig:
    """The same settings, with ``auto`` for a device or compiler that is not here; a `device` that is named is taken."""
    wanted = config.device if device is None else device
    try:
        here = resolve_device(wanted)
    except GlamkitError:
        if device is not None:
            raise
        wanted, here = "auto", resolve_device("auto")
        logger.warning("The run was made on another device than there is here: it is opened on %s.", here)
    lacking = config.compile == "on" and missing_compiler(here)
    return replace(config, device=wanted, compile="auto" if lacking else config.compile)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, for `only_gpu`; none on a machine without."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.replace(" ", "").split(",")[:count] if named else [str(number) for number in range(count)]


def only_gpu(name: str) -> dict[str, str]:
    """The environment variable with which a process that is started sees one GPU alone."""
    return {"CUDA_VISIBLE_DEVICES": name}


class Machine:
    """Where a run computes and how: resolved once from `config.RuntimeConfig`, then passed around.

    `precision` is the dtype of convolutions and matrix products under `autocast`. How many `updates` the run will make
    counts, as compiling has to save more than it costs.
    """

    def __init__(self, config: RuntimeConfig, updates: int = 0) -> None:
        self.device = resolve_device(config.device)
        rounded = config.precision == "bfloat16" or (config.precision == "auto" and _fast_bfloat16(self.device))
        self.precision = torch.bfloat16 if rounded else torch.float32
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            if config.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
            torch.backends.cudnn.benchmark = not config.deterministic  # shapes stay the same: a search is worth it
            torch.use_deterministic_algorithms(config.deterministic, warn_only=config.deterministic)
        plain = config.accelerate == "off"
        choice = "off" if plain and config.compile == "auto" else config.compile
        self.compiles = _resolve_compile(choice, self.device, updates)
        records = self.device.type == "cuda" and config.record and not plain
        self.recorder = Recorder(self.device) if records else None
        self.kernel = "glamkit" if config.deterministic else config.kernel  # mamba-ssm's gradients do not repeat

    def __repr__(self) -> str:
        return f"{self.device} in {str(self.precision).removeprefix('torch.')}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which convolutions and matrix products run in `precision`."""
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)

    def fuse(self, function: Function, dynamic: bool = False) -> Function:
        """The same function through torch.compile, if that was chosen; once for all sizes of inputs if `dynamic`."""
        if not self.compiles:
            return function
        compiled = torch.compile(function, dynamic=dynamic, options={"fallback_random": True})
        return cast(Function, _undisturbed_children(compiled))

    def record(self, function: Function) -> Function:
        """The same function, on a GPU as a recording; see `cuda_graphs.Recorded` for what that asks of it."""
        return function if self.recorder is None else cast(Function, Recorded(function, self.recorder))

    def describe(self) -> dict[str, Any]:
        """What computes here and with what, for the record."""
        return {
            "host": socket.gethostname(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "device_name": _name(self.device),
            "precision": str(self.precision).removeprefix("torch."),
            "compiled": "yes" if self.compiles else "no",
            "recorded": "yes" if self.recorder else "no",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def memory(self) -> int:
        """Bytes there are for models and replay: the GPU's, else this machine's, or as many as its container allows."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        there = 2**63
        if hasattr(os, "sysconf"):  # not on Windows
            there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            there = min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
        return there

    def synchronize(self) -> None:
        """Waits until the device has done its work, so that a clock can be read."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def own_cores() -> int:
    """CPU cores that this process may use: fewer than the machine has where a batch system or a container says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        quota, period = map(int, CORES_ALLOWED.read_text(encoding="ascii").split())
        cores = min(cores, math.ceil(quota / period))
    return cores


def _name(device: torch.device) -> str:
    """The GPU's or the processor's own name."""
    if device.type != "cpu" and hasattr(torch.get_device_module(device), "get_device_name"):
        return str(torch.get_device_module(device).get_device_name(device))
    listed = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", listed.read_text()) if listed.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 here: any recent GPU, and CPUs with instructions for it (Zen 4, AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return device.type == "cpu" and any(probe is not None and probe() for probe in probes)


def _resolve_compile(choice: str, device: torch.device, updates: int) -> bool:
    """Whether to compile, see `config.RuntimeConfig.compile`."""
    missing = missing_compiler(device)
    if choice == "on" and missing:
        raise GlamkitError(f"runtime.compile = 'on' cannot be used here ({missing}); use auto or off.")
    return choice == "on" or (choice == "auto" and not missing and updates >= LONG)


def missing_compiler(device: torch.device) -> str:
    """What torch.compile lacks on this machine, or nothing."""
    if device.type == "cuda":
        if not importlib.util.find_spec("triton"):
            return "triton is not installed"
        found = any(map(shutil.which, (os.environ.get("CC", ""), "gcc", "clang")))
        return "" if found else "no C compiler was found: gcc or clang"
    if device.type == "mps":
        return "it is not tried on Apple GPUs"
    own = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # torch tries no other
    compiler = os.environ.get("CXX", own)
    if not shutil.which(compiler):
        return f"its C++ compiler was not found: {compiler}; CXX may name another"
    headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    return "" if headers else "Python's headers, Python.h, are missing: on Debian and Ubuntu the package python3-dev"


def _undisturbed_children(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose child processes, such as a C++ compiler, do not notice Ctrl+C: this process stops and saves."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return function

    @functools.wraps(function)
    def held(*given: Any, **named: Any) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return function(*given, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return held


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device, without waiting for what a GPU has still to do."""
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextlib.contextmanager
def any_shapes() -> Iterator[None]:
    """Context for work whose shapes change from call to call: no search for each one's fastest convolutions."""
    searches, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches


@contextlib.contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Memory freed inside stays in this process for the tensors to come, and goes back to the system at the end.

    glibc returns every large block at once, and clearing its pages anew is a sixth of a CPU's update at full size.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for option, value in KEEPING.items():
            libc.mallopt(option, value)
        yield
    finally:
        for option, value in USUAL.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
