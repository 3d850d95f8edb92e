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
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import read_bytes, read_json, remove, replace, sweep
from glamkit.training.replay import Replay

FORMAT = 1
KEEP = 2
# The arrays in a part and their types on disk.
ARRAYS = {"frames": np.uint8, "actions": np.int64, "rewards": np.float32, "terminations": np.float32}
NAMES = tuple(ARRAYS)
logger = logging.getLogger(__name__)


class NewerFormatError(GlamkitError):
    """A checkpoint of a newer glamkit: to go on from an older one would throw away what it holds."""


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the state of `step` and removes all but the newest `KEEP` checkpoints up to it.

    Later ones are removed too: they turned out to be damaged, or the run would not have come to this step again.
    """
    path = folder / f"{step:09d}.pt"
    write(path, step, state)
    kept = {f"{number:09d}" for number in [number for number in steps(folder) if number <= step][-KEEP:]}
    for old in [*folder.glob("*.json"), *folder.glob("*.pt")]:
        if old.stem not in kept:
            remove(old)
    sweep(folder)
    return path


def write(path: Path, step: int, state: dict[str, Any]) -> None:
    """Writes a state and then its manifest, each at once or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    replace(path, lambda file: file.write(data))
    manifest = {"format": FORMAT, "step": step, "sha256": hashlib.sha256(data).hexdigest()}
    replace(path.with_suffix(".json"), lambda file: file.write(json.dumps(manifest).encode()))


def steps(folder: Path) -> list[int]:
    """The steps of which there are checkpoints, damaged or not, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if re.fullmatch(r"[0-9]{9,18}", path.stem))


def load(folder: Path, take: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, Any] | None:
    """Hands the newest state to `take`; if it is damaged or refused, the one before it.

    Returns:
        The one that was taken; None where there is none.

    Raises:
        GlamkitError: there are some, but none can be used, or the newest was written by a newer glamkit.
    """
    problems = []
    for step in reversed(steps(folder)):
        path = folder / f"{step:09d}.pt"
        try:
            take(state := read(path))
            return state
        except NewerFormatError:
            raise
        except GlamkitError as error:
            problems.append(str(error))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            problems.append(f"the checkpoint {path} does not fit this experiment ({reason(error)}).")
        logger.warning("%s The one before it is used.", problems[-1])
    if problems:
        raise GlamkitError(f"no checkpoint in {folder} can be used: {problems[0]}")
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in one checkpoint; runs no code from the file.

    Raises:
        GlamkitError: missing, damaged, or written by a newer glamkit.
    """
    manifest = read_json(path.with_suffix(".json"))
    number, checksum = (manifest.get(key) if isinstance(manifest, Mapping) else None for key in ("format", "sha256"))
    if type(number) is not int or not isinstance(checksum, str):
        raise GlamkitError(f"the checkpoint {path} cannot be read (its manifest is damaged).")
    if number > FORMAT:
        raise NewerFormatError(f"the checkpoint {path} has format {number}; this glamkit reads {FORMAT}, update it.")
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise GlamkitError(f"the checkpoint {path} is damaged (its checksum differs).")
    try:
        # A zip file and plain data in it; other things that torch.load takes are older and less strict.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if data[:2] == b"PK" else None
    except Exception:  # a stranger's file makes readers of pickled data fail in any way they can
        state = None
    if not isinstance(state, dict):
        raise GlamkitError(f"the checkpoint {path} holds something else than plain data, so it is not opened.")
    return state


def require_like(own: Any, other: Any, name: str) -> None:
    """Makes sure that a stored state has the parts, types and shapes of one's own.

    Raises:
        ValueError: it has not.
    """
    if type(own) is not type(other):
        raise ValueError(f"{name} is a {type(other).__name__}, not a {type(own).__name__}")
    if isinstance(own, Tensor) and (own.shape != other.shape or own.dtype != other.dtype):
        raise ValueError(f"{name} is {tuple(other.shape)} {other.dtype}, not {tuple(own.shape)} {own.dtype}")
    if isinstance(own, Mapping):
        if own.keys() != other.keys():
            raise ValueError(f"{name} has other parts")
        for key, value in own.items():
            require_like(value, other[key], f"{name}.{key}")
    if isinstance(own, (list, tuple)):
        if len(own) != len(other):
            raise ValueError(f"{name} has {len(other)} values, not {len(own)}")
        for number, value in enumerate(own):
            require_like(value, other[number], f"{name}[{number}]")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict`, and the checks that it lacks.

    Raises:
        ValueError: the state is another model's.
    """
    groups = optimizer.state_dict()["param_groups"]
    require_like(groups, state["param_groups"], "param_groups")
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        own = {"step": torch.zeros(()), "exp_avg": parameter.detach(), "exp_avg_sq": parameter.detach()}
        require_like(own, dict(moments), "the optimiser's moments")


def save_replay(folder: Path, replay: Replay, saved: int) -> int:
    """Writes the steps from number `saved` on as one part; returns the number up to which all is saved.

    Parts of later steps, which were played after the checkpoint that the run went on from, are removed only now.
    """
    first = max(saved, replay.oldest)
    for old in folder.glob("*.npz"):
        if span(old)[1] > saved:
            remove(old)
    if replay.count > first:
        part = replay.part(first, replay.count)
        replace(folder / f"{first:09d}-{replay.count:09d}.npz", lambda file: write_part(file, part))
        for old in folder.glob("*.npz"):
            # The checkpoint before this one may still be needed: keep what it can see.
            if span(old)[1] <= saved - replay.config.capacity:
                remove(old)
    return replay.count


class ReplayPart(NamedTuple):
    """A file of the replay, with the steps first .. last - 1."""

    first: int
    last: int
    path: Path


def load_replay(folder: Path, replay: Replay) -> None:
    """Fills the replay with the stored steps below `replay.count`.

    Raises:
        GlamkitError: a part is missing or damaged.
    """
    for first, last, path in parts(folder, replay.oldest, replay.count):
        replay.load_part(first, read_part(path, last - first, replay.size))
    sweep(folder)


def parts(folder: Path, oldest: int, count: int) -> list[ReplayPart]:
    """The files that hold the steps oldest .. count - 1, in order; newer ones are passed over, nothing is read.

    Raises:
        GlamkitError: a part is missing.
    """
    files, position = [], oldest
    for path in sorted(folder.glob("*.npz"), key=span):
        first, last = span(path)
        if position < last <= count:
            if first > position:
                raise GlamkitError(f"the replay in {folder} lacks the steps {position} to {first - 1}.")
            files.append(ReplayPart(first, last, path))
            position = last
    if position != count:
        raise GlamkitError(f"the replay in {folder} lacks the steps {position} to {count - 1}.")
    return files


def write_part(file: IO[bytes], part: dict[str, Tensor]) -> None:
    """Writes the arrays of some steps into an open file."""
    # Level 1 makes Atari frames some ten times smaller at a fraction of the default level's time.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in part.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values.numpy(), allow_pickle=False)


def read_part(path: Path, count: int, size: int, names: Collection[str] = NAMES) -> dict[str, Tensor]:
    """The named arrays of a part of `count` steps of size x size pixels; what is not named is not read.

    Raises:
        GlamkitError: the part is missing or damaged.
    """
    largest = 3 * size**2 * count + 1024  # bytes: more is not unpacked, whatever the file claims to hold
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if any(info.file_size > largest for info in arrays.zip.infolist()):
                raise ValueError("it is too large")
            part = {name: arrays[name] for name in NAMES if name in names}
        for name, values in part.items():
            shape = (count, size, size, 3) if name == "frames" else (count,)
            if values.dtype != ARRAYS[name] or values.shape != shape:
                raise ValueError(f"its {name} are not those of {count} steps")
    except Exception as error:  # what readers of packed data raise for damaged ones has no end
        raise GlamkitError(f"the replay part {path} is damaged ({reason(error)}).") from None
    return {name: torch.from_numpy(values) for name, values in part.items()}


def span(path: Path) -> tuple[int, int]:
    """The steps in a part of the replay by its name: the first, and the one after the last.

    Raises:
        GlamkitError: it is not named like a part.
    """
    numbers = re.fullmatch(r"([0-9]{9,18})-([0-9]{9,18})", path.stem)
    if not numbers:
        raise GlamkitError(f"{str(path)!r} is not a part of a replay.")
    return int(numbers[1]), int(numbers[2])
