"""provenance.json of a run: what it takes to make it again.

``sessions`` has an entry for each time that the run was begun or resumed, because any of it may have changed by then:
git state, versions, machine, and the steps it made.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from glamkit import __version__
from glamkit.config import Config
from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import read_json, replace_text
from glamkit.runs.folder import Run
from glamkit.runtime import device_name

FORMAT = 1
CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch", "numpy", "gymnasium", "ale-py", "opencv-python-headless", "pillow", "matplotlib",
    "papermill", "ipykernel", "triton", "mamba-ssm", "causal-conv1d",
)  # fmt: skip


class Provenance:
    """The record of one run, kept while it trains; sessions that are there already stay.

    This one goes on from `step`; `machine` says what its trainer knows: precision, kernel, whether compiled.
    """

    def __init__(self, run: Run, config: Config, step: int, device: torch.device, machine: Mapping[str, str]) -> None:
        self.path, self.seed = run.provenance_file, config.trainer.seed
        # Steps after the checkpoint that the run goes on from are made again, and are this session's then.
        self.sessions = [
            entry | {"step": min(entry["step"], step)}
            for entry in sessions(self.path)
            if entry["first_step"] < step or entry["step"] <= step
        ]
        self.session: dict[str, Any] = {
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "first_step": step,
            "step": step,
            "git": git_state(CHECKOUT),
            "versions": versions(),
            "machine": {**describe(device), **machine},
        }

    def write(self, step: int) -> None:
        """Writes the file; a full disk is left to the checkpoint to report."""
        self.session["step"] = step
        data = {"format": FORMAT, "seed": self.seed, "sessions": [*self.sessions, self.session]}
        with contextlib.suppress(GlamkitError):
            replace_text(self.path, json.dumps(data, indent=1))


def sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions that a provenance file records; none of one that is missing or damaged."""
    try:
        found = list(read_json(path)["sessions"])
    except (GlamkitError, LookupError, TypeError):
        return []
    entries = [entry for entry in found if isinstance(entry, dict)]
    return [entry for entry in entries if type(entry.get("first_step")) is type(entry.get("step")) is int]


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and whether tracked files were changed; or ``unknown`` with the reason."""
    if not (folder / ".git").exists():
        return {"unknown": "glamkit was not run from a git checkout"}
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    # A git hook names its own repository in GIT_DIR and the like. Configuration, as safe.directory, is kept.
    environment = {name: value for name, value in os.environ.items() if not re.match("GIT_(?!CONFIG_)", name)}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # only looks, so it must not be in another git's way
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=True)
    except (OSError, subprocess.SubprocessError) as error:  # no git, a damaged checkout, or no answer
        return {"unknown": reason(error)}
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that can change a result, as far as they are installed."""
    result = {"python": platform.python_version(), "glamkit": __version__}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            result[name] = metadata.version(name)
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
