"""A run is a folder; nothing else holds state. What lies where is in README.md beside this."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from glamkit.config import Config, coerce, differences
from glamkit.errors import GlamkitError, reason
from glamkit.runs import status
from glamkit.runs.files import make_folder, named, read_json, replace_text

FORMAT = 1
SHARED = "shared.json"  # in the folder of an unpacked shared run
IDLE = ("trainer.log_every", "trainer.save_every")  # beside evaluation.* and runtime.*: they change no training
UNSCORED = {"evaluation.every", "evaluation.games"}  # they change no score
logger = logging.getLogger(__name__)


class Run:
    """The paths of a run folder and the rule that it holds one experiment only."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / "config.json"
        self.log_file = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoint"
        self.replay = self.folder / "replay"
        self.snapshots = self.folder / "snapshots"
        self.provenance_file = self.folder / "provenance.json"
        self.evaluation_file = self.folder / "evaluation.json"
        self.status_file = self.folder / "status.json"
        self.stop_file = self.folder / "STOP"
        self.lock_file = self.folder / ".trainer.lock"
        self.shared_file = self.folder / SHARED

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def evaluation_at(self, step: int) -> Path:
        """The file of the evaluation during training at a step."""
        return self.folder / "evaluations" / f"{step:09d}.json"

    @property
    def name(self) -> str:
        """The folder's name; of a shared run, the name of its file, as the folder's ends in a checksum."""
        return self.folder.name.rpartition("-")[0] if self.shared else self.folder.name

    @property
    def started(self) -> bool:
        """Whether the folder already holds an experiment."""
        return self.config_file.exists()

    @property
    def shared(self) -> bool:
        """Whether it was opened from a shared file: the folder lies in a cache, and nothing trains there."""
        return self.shared_file.exists()

    def check(self, config: Config, resume: bool) -> None:
        """Refuses, before any work, a folder that holds something else, must not be resumed or cannot be written."""
        make_folder(self.folder)
        if self.shared:
            raise GlamkitError(f"{self.folder} is a shared run, which can be looked at but not trained on.")
        for path in (self.config_file, self.log_file, self.lock_file):
            if path.is_symlink():  # through it others' files would be changed
                raise GlamkitError(f"{path} is no plain file, as a run has there; use another run_dir.")
        if not self.started:
            return
        if not coerce("resume", resume, bool):
            raise GlamkitError(f"{self.folder} already holds a run; use resume=True, or another run_dir.")
        self.changes(config)
        # To begin anew would remove the log and the stored steps too.
        there = any(path.stem.isdecimal() for path in self.checkpoints.glob("*.json"))
        if not there and self.status_file.exists() and (saved := status.read(self.status_file).saved):
            lost = f"holds no checkpoint, though {saved:,} steps of this run were saved"
            raise GlamkitError(f"{self.checkpoints} {lost}; put it back, or use another run_dir.")

    def changes(self, config: Config) -> dict[str, tuple[Any, Any]]:
        """Settings, with both values, in which the run goes on otherwise than it was begun; not the machine's.

        What would make it another experiment, or shorter, is refused.
        """
        changes = {k: v for k, v in differences(self.config(), config).items() if not k.startswith("runtime.")}
        refused = {k: v for k, v in changes.items() if k not in IDLE and not k.startswith("evaluation.")}
        before, after = refused.pop("trainer.env_steps", (0, 0))
        if refused:
            key, (theirs, ours) = next(iter(refused.items()))
            free = f"A run that goes on may change {', '.join(IDLE)}, evaluation.*, runtime.* and a larger env_steps"
            other = f"{key} is {theirs!r} there and {ours!r} here; use another run_dir"
            raise GlamkitError(f"{self.folder} holds another experiment: {other}. {free}.")
        if after < before:
            raise GlamkitError(f"{self.folder}: trainer.env_steps = {before} can be made longer but not {after}.")
        return changes

    def begin(self, config: Config, machine: Mapping[str, Any]) -> None:
        """Writes `config.json`, with what ran it at first; of a run that goes on, only its `changes`."""
        make_folder(self.checkpoints)
        make_folder(self.replay)
        if not self.started:
            content = {"format": FORMAT, "config": asdict(config), "machine": dict(machine)}
            replace_text(self.config_file, json.dumps(content, indent=1))
        elif changes := self.changes(config):
            self._change(changes)

    def _change(self, changes: Mapping[str, tuple[Any, Any]]) -> None:
        """Writes other settings into `config.json`, and below ``changes`` what they were; a score is put aside."""
        content, now = read_json(self.config_file), datetime.now(UTC)
        content["config"] = asdict(self.config().override({key: after for key, (_, after) in changes.items()}))
        content["changes"] = [*content.get("changes", []), {"time": now.isoformat(timespec="seconds"), **changes}]
        if self.evaluation_file.exists() and changes.keys() - IDLE - UNSCORED:
            kept = self.folder / "evaluations" / f"final-{now:%Y%m%dT%H%M%S}.json"
            make_folder(kept.parent)
            self.evaluation_file.rename(kept)
            logger.warning("The score of %s of before is in %s.", self.folder, kept)
        replace_text(self.config_file, json.dumps(content, indent=1))
        for key, (before, after) in changes.items():
            if key not in IDLE:
                logger.warning("%s goes on with %s = %r instead of %r.", self.folder, key, after, before)

    def config(self) -> Config:
        """The config stored in the folder.

        Raises:
            GlamkitError: there is none, or it cannot be read.
        """
        if not self.started:
            raise GlamkitError(f"{self.folder} holds no run: there is no config.json in it.")
        data = read_json(self.config_file)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GlamkitError(f"{self.config_file} is not a glamkit config, or that of a newer glamkit.")
        with named(self.config_file):
            return Config.from_dict(data.get("config"))


def nearby(folder: Path) -> str:
    """Some runs in a folder, or beside one that is not there, for the end of a sentence; empty where there are none."""
    place = folder if folder.is_dir() else folder.parent
    known = {str(path.parent) for depth in ("*", "*/*") for path in place.glob(f"{depth}/config.json")}
    names = get_close_matches(str(folder), sorted(known), cutoff=0)
    return f"; runs nearby: {', '.join(names)}" if names else ""


def resolve(run_dir: str | Path) -> Path:
    """The path of a run folder that a notebook or a command names.

    A relative one that is not there yet counts from the checkout, if any: JupyterLab runs a notebook in its own folder,
    papermill in the caller's.
    """
    if not isinstance(run_dir, (str, Path)) or not str(run_dir):
        raise GlamkitError(f"run_dir = {run_dir!r} is no path; name a folder for the run, such as 'runs/pong'.")
    here = Path.cwd()
    checkouts = (folder for folder in (here, *here.parents) if (folder / "glamkit" / "runs" / "folder.py").exists())
    try:
        path = Path(run_dir).expanduser()
        found = here / path if path.exists() else next(checkouts, here) / path
        (found / "config.json").exists()  # so that a folder without permission is refused here, and not everywhere
    except (OSError, RuntimeError) as error:
        raise GlamkitError(f"run_dir = {str(run_dir)!r} cannot be opened: {reason(error)}.") from None
    return found
