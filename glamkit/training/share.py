"""A run as one file to give away; `shared_runs` says what is in it and opens it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glamkit.config import coerce
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runs.files import replace
from glamkit.runs.folder import Run
from glamkit.training import checkpoint
from glamkit.training.load import open_run
from glamkit.training.shared_runs import FORMAT, SUFFIX
from glamkit.training.snapshots import rounded

STEPS = 300  # stored steps that travel with a run, to start from
LINES = 200  # of the log that travel, besides the episodes
RIGHTS = (
    "Weights and stored pictures were made by playing the game named in the config. Atari games and their pictures "
    "belong to their owners; share such files for research only."
)


def share(run_dir: str | Path, file: str | Path = "", steps: int = STEPS, rights: str = RIGHTS) -> Path:
    """Writes a run's newest checkpoint as one file that opens everywhere.

    Args:
        run_dir: the run's folder.
        file: where to; empty takes the folder's name with ``.glam`` beside it.
        steps: how many of the newest stored steps travel with it.
        rights: a note on rights, shown to whoever opens the file.

    Returns:
        The file's path.

    Raises:
        GlamkitError: the folder holds no run with a checkpoint, or the file cannot be written.
    """
    steps = coerce("steps", steps, int)
    loaded = open_run(run_dir)
    run, replay = loaded.run, loaded.replay
    least = loaded.config.replay.sequence_length + loaded.config.imagination.context_length
    if steps < least:
        raise GlamkitError(f"steps = {steps} is too few to look at; use at least {least}.")
    first = max(replay.oldest, replay.count - steps)
    weights = {name: rounded(value).cpu().contiguous() for name, value in loaded.agent.state_dict().items()}
    about = {
        "format": FORMAT,
        "step": loaded.step,
        "first": first,
        "config": asdict(loaded.config),
        "provenance": _json(run.folder / "passport.json"),
        "rights": rights,
    }
    entries = {
        "run.json": json.dumps(about, indent=1).encode(),
        "agent.safetensors": safetensors.torch.save(weights),
        "steps.npz": _packed(replay.part(first, replay.count)),
        "evaluation.json": json.dumps(_json(run.evaluation_file)).encode(),
        "log.jsonl": _short_log(run).encode(),
    }
    path = Path(file) if str(file) else run.folder.with_name(run.folder.name + SUFFIX)
    replace(path, lambda opened: _write(opened, entries))
    return path


def _write(opened: Any, entries: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _packed(part: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    checkpoint.write_part(buffer, part)
    return buffer.getvalue()


def _short_log(run: Run) -> str:
    """All episodes and some of the log's other lines."""
    entries = list(log.read(run.log_file)) if run.log_file.exists() else []
    others = [entry for entry in entries if entry.get("kind") != "episode"]
    chosen = {id(entry) for entry in others[:: max(1, -(-len(others) // LINES))]}
    lines = [entry for entry in entries if entry.get("kind") == "episode" or id(entry) in chosen]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _json(path: Path) -> Any:
    """What a JSON file of the run holds, or nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
