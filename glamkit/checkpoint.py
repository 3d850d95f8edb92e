"""Atomic saves and verified loads of a trainer's state, and the replay in parts.

A checkpoint is ``NNNNNNNNN.pt`` with a manifest ``NNNNNNNNN.json`` that holds its checksum and is written last:
without a manifest, or with another checksum, a checkpoint does not count. The replay is saved incrementally: each
checkpoint writes one more part with the steps collected since the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from glamkit.errors import GlamkitError
from glamkit.replay import Replay

FORMAT = 1
KEEP = 2
logger = logging.getLogger(__name__)


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the state of `step` and removes all but the newest `KEEP` checkpoints."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    path = folder / f"{step:09d}.pt"
    _write(path, lambda file: file.write(data))
    manifest = {"format": FORMAT, "step": step, "sha256": hashlib.sha256(data).hexdigest()}
    _write(path.with_suffix(".json"), lambda file: file.write(json.dumps(manifest).encode()))
    for old in sorted(folder.glob("*.json"))[:-KEEP]:
        old.unlink()
        old.with_suffix(".pt").unlink(missing_ok=True)
    return path


def load(folder: Path) -> dict[str, Any] | None:
    """The newest undamaged state, or None where there is none; a damaged one is named in the log and passed over."""
    damaged = []
    for manifest in sorted(folder.glob("*.json"), reverse=True):
        try:
            return read(manifest.with_suffix(".pt"))
        except GlamkitError as error:
            damaged.append(str(error))
            logger.warning("%s The one before it is used.", error)
    if damaged:
        raise GlamkitError(f"no checkpoint in {folder} can be used: {damaged[0]}")
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in one checkpoint; runs no code from the file.

    Raises:
        GlamkitError: missing, damaged, or written by a newer glamkit.
    """
    try:
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = path.read_bytes()
        number, checksum = manifest["format"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GlamkitError(f"the checkpoint {path} cannot be read ({error}).") from None
    if number != FORMAT:
        raise GlamkitError(f"the checkpoint {path} has format {number}; this glamkit reads {FORMAT}, update it.")
    if hashlib.sha256(data).hexdigest() != checksum:
        raise GlamkitError(f"the checkpoint {path} is damaged (its checksum differs).")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise GlamkitError(
            f"the checkpoint {path} holds something else than plain data, so it is not opened."
        ) from None


def save_replay(folder: Path, replay: Replay, saved: int) -> int:
    """Writes the steps from number `saved` on as one part; returns the number up to which all is saved."""
    first = max(saved, replay.oldest)
    if replay.count > first:
        part = replay.part(first, replay.count)
        _write(folder / f"{first:09d}-{replay.count:09d}.npz", lambda file: _write_part(file, part))
        for old in folder.glob("*.npz"):
            # The checkpoint before this one may still be needed: keep what it can see.
            if _span(old)[1] <= saved - replay.config.capacity:
                old.unlink()
    return replay.count


def load_replay(folder: Path, replay: Replay) -> None:
    """Fills the replay with the stored steps below `replay.count`, and forgets parts written after it.

    Raises:
        GlamkitError: a part is missing or damaged.
    """
    count, position = replay.count, replay.oldest
    for path in sorted(folder.glob("*.npz")):
        first, last = _span(path)
        if last > count:  # written after the checkpoint that is loaded: those steps will be collected again
            path.unlink()
        elif last > position:
            if first > position:
                raise GlamkitError(f"the replay in {folder} lacks the steps {position} to {first - 1}.")
            replay.load_part(first, _read_part(path, last - first))
            position = last
    if position != count:
        raise GlamkitError(f"the replay in {folder} lacks the steps {position} to {count - 1}.")
    replay.count = count


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file at once or not at all: temporary name, sync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise GlamkitError(f"{path} cannot be written: {error.strerror}; what was saved before is intact.") from None


def _write_part(file: IO[bytes], part: dict[str, Tensor]) -> None:
    # Level 1 makes Atari frames some ten times smaller at a fraction of the default level's time.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in part.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values.numpy(), allow_pickle=False)


def _read_part(path: Path, count: int) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise GlamkitError(f"the replay part {path} is damaged ({error}).") from None
    if set(part) != {"frames", "actions", "rewards", "terminations"} or any(len(v) != count for v in part.values()):
        raise GlamkitError(f"the replay part {path} is damaged (it does not hold {count} steps).")
    return part


def _span(path: Path) -> tuple[int, int]:
    try:
        first, last = path.stem.split("-")
        return int(first), int(last)
    except ValueError:
        raise GlamkitError(f"{path} is not a part of a replay.") from None
