"""provenance.json of a run: what it takes to make it again, for each time that it was begun or resumed."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from glamkit import __version__
from glamkit.config import Config
from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import read_json, replace_text
from glamkit.runs.folder import Run

FORMAT = 1
CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch", "numpy", "gymnasium", "ale-py", "opencv-python-headless", "pillow", "matplotlib",
    "papermill", "ipykernel", "triton", "mamba-ssm", "causal-conv1d",
)  # fmt: skip


class Provenance:
    """The record of one run, kept while it trains; `machine` is what it trains on, see `Machine.describe`."""

    def __init__(self, run: Run, config: Config, step: int, machine: Mapping[str, Any]) -> None:
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
            "machine": dict(machine),
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
    # Without a lock: it only looks, so it must not be in another git's way.
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2", "--branch", "-uno"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
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
