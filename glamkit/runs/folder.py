"""A run is a folder; nothing else holds state.

config.json      the settings, and what the machine made of them
status.json      where the run is and why it does not go on, see `status`
STOP             put there by anyone, asks the run to save and stop; it is removed when that is done
metrics.jsonl    the log, one JSON object a line
checkpoint/      the newest states of the trainer
replay/          the stored steps, in parts
snapshots/       the agent's weights after a few steps of its training, to look back at (`keepsakes/` in older runs)
evaluation.json  the final score and its protocol
evaluations/     other scores: during training, of other checkpoints, by other protocols
videos/          pictures of training, and episodes of evaluations
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from glamkit.config import Config, coerce, differences
from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import inspect, read_json, replace_text

FORMAT = 1
SHARED = "shared.json"  # in the folder of an unpacked shared run


class Run:
    """The paths of a run folder and the rule that it holds one experiment only."""

    def __init__(self, folder: str | Path) -> None:
        if not str(folder):
            raise GlamkitError("run_dir is empty; name a folder for the run, such as runs/pong.")
        if not str(folder).isprintable():
            raise GlamkitError(f"run_dir = {str(folder)!r} has characters that cannot be seen; use others.")
        self.folder = Path(folder)
        self.config_file = self.folder / "config.json"
        self.log_file = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoint"
        self.replay = self.folder / "replay"
        older = self.folder / "keepsakes"  # what runs of before have instead
        self.snapshots = older if os.path.isdir(older) else self.folder / "snapshots"  # noqa: PTH112 - never raises
        older = self.folder / "passport.json"  # likewise
        self.provenance_file = older if os.path.isfile(older) else self.folder / "provenance.json"  # noqa: PTH113
        self.evaluation_file = self.folder / "evaluation.json"
        self.status_file = self.folder / "status.json"
        self.stop_file = self.folder / "STOP"
        self.lock_file = self.folder / ".trainer.lock"
        self.shared_file = self.folder / SHARED

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def started(self) -> bool:
        """Whether the folder already holds an experiment."""
        return self.config_file.exists()

    def check(self, config: Config, resume: bool) -> None:
        """Refuses, before any work, a folder that holds something else or cannot be written.

        A difference in the section `runtime` is none: it names the machine, not the experiment.

        Raises:
            GlamkitError: another config, a run that must not be resumed, no permission, or links and the like in it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            inspect(self.folder)
            if self.shared_file.exists():
                raise GlamkitError(f"{self.folder} is a shared run, which can be looked at but not trained on.")
            for path in (self.config_file, self.log_file, self.lock_file):
                if path.is_dir():
                    raise GlamkitError(f"{path} is a folder where a run has a file; use another run_dir.")
            for path in (self.checkpoints, self.replay, self.snapshots):
                if path.exists() and not path.is_dir():
                    raise GlamkitError(f"{path} is a file where a run has a folder; use another run_dir.")
        except (OSError, ValueError) as error:
            raise GlamkitError(f"run_dir = {str(self.folder)!r} cannot be written: {reason(error)}.") from None
        if self.started:
            if not coerce("resume", resume, bool):
                raise GlamkitError(f"{self.folder} already holds a run; use resume=True, or another run_dir.")
            stored = self.config()
            changed = {k: v for k, v in differences(stored, config).items() if not k.startswith("runtime.")}
            if changed:
                key, (theirs, ours) = next(iter(changed.items()))
                more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
                raise GlamkitError(
                    f"{self.folder} holds another experiment: {key} is {theirs!r} there and {ours!r} here{more}; "
                    f"use another run_dir."
                )

    def begin(self, config: Config, machine: Mapping[str, Any]) -> None:
        """Writes `config.json`, once; `machine` records what ran it (device, precision, kernel, versions)."""
        try:
            self.checkpoints.mkdir(exist_ok=True)
            self.replay.mkdir(exist_ok=True)
        except OSError as error:
            raise GlamkitError(f"run_dir = {str(self.folder)!r} cannot be written: {reason(error)}.") from None
        if not self.started:
            text = json.dumps({"format": FORMAT, "config": asdict(config), "machine": dict(machine)}, indent=1)
            replace_text(self.config_file, text)

    def config(self) -> Config:
        """The config stored in the folder.

        Raises:
            GlamkitError: there is none, or it cannot be read.
        """
        if not self.started:
            raise GlamkitError(f"{self.folder} holds no run: there is no config.json in it.")
        data = read_json(self.config_file)
        if not isinstance(data, dict) or type(data.get("format")) is not int:
            raise GlamkitError(f"{self.config_file} is not a glamkit config.")
        if data["format"] > FORMAT:
            raise GlamkitError(f"{self.config_file} was written by a newer glamkit; update glamkit to read it.")
        return Config.from_dict(data.get("config"))


def nearby(folder: Path) -> str:
    """The runs in a folder, or beside one that is not there, for the end of a sentence; empty where there are none."""
    place = folder if folder.is_dir() else folder.parent
    known = {path.parent for depth in ("*", "*/*") for path in place.glob(f"{depth}/config.json")}
    runs = sorted(known, key=lambda path: (-SequenceMatcher(None, path.name, folder.name).ratio(), path))
    names = ", ".join(str(path) for path in runs[:3])
    return f"; runs nearby: {names}" + (f" and {len(runs) - 3} more" if len(runs) > 3 else "") if runs else ""


def resolve(run_dir: str | Path) -> Path:
    """The path of a run folder that a notebook names: relative ones count from the checkout it is opened in.

    JupyterLab runs a notebook in its own folder, papermill in the caller's; outside a checkout that one counts.

    Raises:
        GlamkitError: it is empty or no text.
    """
    if not isinstance(run_dir, (str, Path)) or not str(run_dir):
        raise GlamkitError(f"run_dir = {run_dir!r} is no path; name a folder for the run, such as 'runs/pong'.")
    here = Path.cwd()
    checkouts = (folder for folder in (here, *here.parents) if (folder / "glamkit" / "runs" / "folder.py").exists())
    try:
        return next(checkouts, here) / Path(run_dir).expanduser()
    except RuntimeError as error:
        raise GlamkitError(f"run_dir = {str(run_dir)!r} is no path: {reason(error)}.") from None
