"""provenance.json of a run: what it takes to make it again, and what it cost.

``sessions`` has an entry for each time that the run was begun or resumed, because any of it may have changed by then:
git state, versions, machine; the steps it made, seconds in the training loop, steps per second and peak memory.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from glamkit import __version__
from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run, replace_text
from glamkit.runtime import device_name

FORMAT = 1
CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch", "numpy", "gymnasium", "ale-py", "opencv-python-headless", "pillow", "matplotlib",
    "papermill", "ipykernel", "triton", "mamba-ssm", "causal-conv1d",
)  # fmt: skip


class Provenance:
    """The record of one run, kept while it trains; a context around the loop, in which the clock runs.

    Args:
        run: whose folder holds it; sessions that are there already stay.
        config: the run's.
        step: from which this session goes on.
        device: what it trains on.
        machine: what else the trainer knows of it: precision, kernel, whether compiled.
    """

    def __init__(self, run: Run, config: Config, step: int, device: torch.device, machine: Mapping[str, str]) -> None:
        self.path, self.device, self.seed = run.provenance_file, device, config.trainer.seed
        self.began: float | None = None
        # Steps after the checkpoint that the run goes on from are made again, and are this session's then.
        self.sessions = [
            entry | {"step": min(entry["step"], step)}
            for entry in sessions(self.path)
            if all(type(entry.get(key)) is int for key in ("first_step", "step"))
            and (entry["first_step"] < step or entry["step"] <= step)
        ]
        self.session: dict[str, Any] = {
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "first_step": step,
            "step": step,
            "seconds": 0.0,
            "steps_per_second": None,
            "peak_bytes": None,
            "git": git_state(CHECKOUT),
            "versions": versions(),
            "machine": {**describe(device), **machine},
        }

    def __enter__(self) -> Provenance:
        self.began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tick()
        self.began = None

    def tick(self) -> None:
        """Adds the time since the last call, if the loop is at work."""
        if self.began is not None:
            now = time.monotonic()
            self.session["seconds"] += now - self.began
            self.began = now

    def write(self, step: int) -> None:
        """Writes the file; a full disk is left to the checkpoint to report."""
        self.tick()
        session, seconds = self.session, self.session["seconds"]
        session |= {"step": step, "peak_bytes": peak_bytes(self.device)}
        session["steps_per_second"] = (step - session["first_step"]) / seconds if seconds else None
        data = {"format": FORMAT, "seed": self.seed, "sessions": [*self.sessions, session]}
        try:
            replace_text(self.path, json.dumps(data, indent=1))
        except (OSError, GlamkitError):
            return


def sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions that a provenance file records; none of one that is missing or damaged."""
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        return [entry for entry in sessions if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def git_state(folder: Path) -> dict[str, Any]:
    """Commit, branch and whether tracked files were changed; or ``unknown`` with the reason."""
    if not (folder / ".git").exists():
        return {"unknown": "glamkit was not run from a git checkout"}
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # only looks, so it must not be in another git's way
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=False)
    except FileNotFoundError:
        return {"unknown": "git is not installed"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unknown": f"git did not answer ({error})"}
    if done.returncode:
        return {"unknown": (done.stderr.strip().splitlines() or ["git failed"])[-1]}
    lines = done.stdout.splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and line.count(" ") > 1)
    changed = [line for line in lines if not line.startswith("#")]
    return {"commit": heads.get("branch.oid", ""), "branch": heads.get("branch.head", ""), "dirty": len(changed) > 0}


def versions() -> dict[str, str]:
    """Of Python and of the packages that can change a result, as far as they are installed."""
    result = {"python": platform.python_version(), "glamkit": __version__}
    for name in PACKAGES:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return result


def describe(device: torch.device) -> dict[str, Any]:
    """The machine: host, system, cores, threads, and the name of what computes."""
    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": device_name(device),
    }


def peak_bytes(device: torch.device) -> int | None:
    """The most memory in use so far: allocated on a GPU, of this process on a CPU; None where that is not known."""
    if device.type != "cpu":
        gpu = torch.get_device_module(device)
        return int(gpu.max_memory_allocated(device)) if hasattr(gpu, "max_memory_allocated") else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
