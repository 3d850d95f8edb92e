"""The run's log: means gathered on the device, one JSON line each time they are written."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from glamkit.errors import GlamkitError
from glamkit.files import read_bytes, reason


class Means:
    """Running means that never wait for the device: `add` sums there, `take` reads once."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor | float], prefix: str) -> None:
        """Adds one value for each name, as ``prefix/name``."""
        for name, value in metrics.items():
            key = f"{prefix}/{name}"
            value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
            self.sums[key] = self.sums[key] + value if key in self.sums else value
            self.counts[key] = self.counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, which starts new ones."""
        result = {key: float(total) / self.counts[key] for key, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return result

    def state_dict(self) -> dict[str, Any]:
        """The half-gathered means, for a checkpoint."""
        return {key: [total.item(), self.counts[key]] for key, total in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.sums = {str(key): torch.tensor(float(total)) for key, (total, _) in state.items()}
        self.counts = {str(key): max(int(count), 1) for key, (_, count) in state.items()}


class Log:
    """``metrics.jsonl`` of a run: appended line by line, cut back to a checkpoint's length on resume."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forgets what was written after `size` bytes: lines that a resumed run will write again."""
        if self.size > size:
            with self._open("r+b") as file:
                file.truncate(size)

    def write(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Appends one line; numbers that are not finite become null, as JSON has no word for them."""
        plain = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self._open("ab") as file:
            file.write(json.dumps({"step": step, "kind": kind, **plain}).encode() + b"\n")

    def sync(self) -> None:
        """Has what was written put on the disk, before a checkpoint counts on it."""
        if self.path.exists():
            with self._open("ab") as file:
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[IO[bytes]]:
        try:
            with self.path.open(mode) as file:
                yield file
        except OSError as error:
            raise GlamkitError(
                f"{self.path} cannot be written: {reason(error)}; what was saved before is intact."
            ) from None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; a half-written last line, as a killed process leaves, is passed over.

    Raises:
        GlamkitError: there is no such file, or a line before the last is damaged.
    """
    try:
        lines = read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise GlamkitError(f"the log {path} cannot be read: {error}.") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if type(entry["step"]) is not int or type(entry["kind"]) is not str:
                raise ValueError
        except (ValueError, LookupError, TypeError, RecursionError):
            if number == len(lines):
                return
            raise GlamkitError(f"line {number} of {path} is damaged; is it a glamkit log?") from None
        yield entry
