"""A run is a folder; nothing else holds state.

config.json      the settings, and what the machine made of them
metrics.jsonl    the log, one JSON object a line
checkpoint/      the newest states of the trainer
replay/          the stored steps, in parts
evaluation.json  the final score and its protocol
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glamkit.config import Config, differences
from glamkit.errors import GlamkitError
from glamkit.settings import coerce

FORMAT = 1


class Run:
    """The paths of a run folder and the rule that it holds one experiment only."""

    def __init__(self, folder: str | Path) -> None:
        if not str(folder):
            raise GlamkitError("run_dir is empty; name a folder for the run, such as runs/pong.")
        self.folder = Path(folder)
        self.config_file = self.folder / "config.json"
        self.log_file = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoint"
        self.replay = self.folder / "replay"
        self.evaluation_file = self.folder / "evaluation.json"

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
            GlamkitError: another config, a run that must not be resumed, or no permission.
        """
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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise GlamkitError(f"run_dir = {str(self.folder)!r} cannot be written: {error.strerror}.") from None

    def begin(self, config: Config, machine: Mapping[str, Any]) -> None:
        """Writes `config.json`, once; `machine` records what ran it (device, precision, kernel, versions)."""
        self.checkpoints.mkdir(exist_ok=True)
        self.replay.mkdir(exist_ok=True)
        if not self.started:
            text = json.dumps({"format": FORMAT, "config": asdict(config), "machine": dict(machine)}, indent=1)
            replace_text(self.config_file, text)

    def config(self) -> Config:
        """The config stored in the folder.

        Raises:
            GlamkitError: there is none, or it cannot be read.
        """
        try:
            data = json.loads(self.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise GlamkitError(f"{self.folder} holds no run: there is no config.json in it.") from None
        except (OSError, ValueError) as error:
            raise GlamkitError(f"{self.config_file} cannot be read: {error}.") from None
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise GlamkitError(f"{self.config_file} is not a glamkit config.")
        if data["format"] > FORMAT:
            raise GlamkitError(f"{self.config_file} was written by a newer glamkit; update glamkit to read it.")
        return Config.from_dict(data.get("config"))


def resolve(run_dir: str | Path) -> Path:
    """The path of a run folder that a notebook names: relative ones count from the checkout it is opened in.

    JupyterLab runs a notebook in its own folder, papermill in the caller's; outside a checkout that one counts.

    Raises:
        GlamkitError: it is empty or no text.
    """
    if not isinstance(run_dir, (str, Path)) or not str(run_dir):
        raise GlamkitError(f"run_dir = {run_dir!r} is no path; name a folder for the run, such as 'runs/pong'.")
    here = Path.cwd()
    checkouts = (folder for folder in (here, *here.parents) if (folder / "glamkit" / "run.py").exists())
    return next(checkouts, here) / Path(run_dir).expanduser()


def replace_text(path: Path, text: str) -> None:
    """Writes a small file at once or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
