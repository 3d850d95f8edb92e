"""The run's log: means gathered on the device, one JSON line each time they are written."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from glamkit.config import Config
from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import read_bytes

TAIL = 65_536  # bytes of a log in which its last lines are looked for
logger = logging.getLogger(__name__)


class Means:
    """Running means that never wait for the device: `add` sums there, all values at once; `take` reads them."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}  # of the values that come together
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, metrics: Mapping[str, Tensor | float], prefix: str) -> None:
        """Adds one value for each name, as ``prefix/name``."""
        keys = tuple(f"{prefix}/{name}" for name in metrics)
        device = next((value.device for value in metrics.values() if isinstance(value, Tensor)), None)
        # A number is written there by a kernel: a copy would wait for the device.
        parts = [v.detach() if isinstance(v, Tensor) else torch.full((), v, device=device) for v in metrics.values()]
        values = torch.stack([part.float() for part in parts])
        self.sums[keys] = self.sums[keys].to(values.device) + values if keys in self.sums else values
        self.counts[keys] = self.counts.get(keys, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, which starts new ones."""
        totals, counts = dict[str, float](), dict[str, int]()
        for keys, values in self.sums.items():
            for key, value in zip(keys, values.tolist(), strict=True):
                totals[key] = totals.get(key, 0.0) + value
                counts[key] = counts.get(key, 0) + self.counts[keys]
        self.sums, self.counts = {}, {}
        return {key: total / counts[key] for key, total in totals.items()}

    def state_dict(self) -> list[Any]:
        """The half-gathered means, for a checkpoint: names of values that come together, sums so far, how many."""
        return [[list(keys), totals.tolist(), self.counts[keys]] for keys, totals in self.sums.items()]

    def load_state_dict(self, state: Any) -> None:
        """Inverse of `state_dict`."""
        if isinstance(state, Mapping):
            state = []  # of an older checkpoint: the next line of the log goes without what came before it
        self.sums = {tuple(keys): torch.tensor(totals) for keys, totals, _ in state}
        self.counts = {tuple(keys): count for keys, _, count in state}


class Log:
    """``metrics.jsonl`` of a run: appended line by line, cut back to a checkpoint's length on resume."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Forgets what was written after `size` bytes, which a resumed run writes again; whole lines stay."""
        with self._open("a+b") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n", 0, size) + 1
            file.truncate(whole)
        if whole < size:
            logger.warning("%s holds %d of the %d bytes of its checkpoint: lines are missing.", self.path, whole, size)

    def write(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Appends one line; numbers that are not finite become null, as JSON has no word for them."""
        plain = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self._open("ab") as file:
            file.write(json.dumps({"step": step, "kind": kind, **plain}).encode() + b"\n")

    def sync(self) -> None:
        """Has what was written put on the disk, before a checkpoint counts on it."""
        with self._open("ab") as file:
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[IO[bytes]]:
        try:
            with self.path.open(mode) as file:
                yield file
        except OSError as error:
            why = f"{reason(error)}; what was saved before is intact"
            raise GlamkitError(f"{self.path} cannot be written: {why}.") from None


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, none without a file; a half-written last line, as a killed process leaves, is left out."""
    if not path.exists():
        return []
    entries = [_entry(line) for line in read_bytes(path).splitlines()]
    if None in entries[:-1]:
        raise GlamkitError(f"line {entries.index(None) + 1} of {path} is damaged; is it a glamkit log?")
    return [entry for entry in entries if entry is not None]


def added(path: Path, begin: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after the first `begin` bytes (before the end if negative), and the bytes up to their end.

    It is for one who looks while the log is written: what is damaged or not there is left out.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, size + begin) if begin < 0 else begin)
            text = file.read()
    except OSError:
        return [], begin
    whole = text[: text.rfind(b"\n") + 1]
    return [entry for line in whole.splitlines() if (entry := _entry(line)) is not None], begin + len(whole)


def last_step(path: Path) -> int:
    """Agent steps that a log has reached; 0 if it says nothing."""
    return next((entry["step"] for entry in reversed(added(path, -TAIL)[0])), 0)


def speed(entries: Sequence[Mapping[str, Any]], config: Config) -> float:
    """Agent steps per second as last written; 0 until a line is of steps with updates of the policy alone."""
    trained = config.random_steps + config.trainer.log_every  # the line before counts what is compiled
    speeds = (entry.get("time/steps_per_second") for entry in reversed(entries) if entry["step"] > trained)
    return float(next(filter(None, speeds), 0.0))


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if type(entry["step"]) is int and type(entry["kind"]) is str else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
