"""Files written whole or not at all, and read with suspicion: a run folder may come from a stranger or a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from glamkit.errors import GlamkitError, reason

SMALL = 16 * 2**20  # bytes; no JSON file of a run comes near


@contextlib.contextmanager
def named(file: Path) -> Iterator[None]:
    """Context in which an error for the user begins with the name of the file at fault."""
    try:
        yield
    except GlamkitError as error:
        raise GlamkitError(f"{file}: {error}") from None


def replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Writes a file at once or not at all: what `fill` writes takes the place of the old one when it is on the disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # what a killed process left, or a link to somewhere else
        with temporary.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        remove(temporary)
        raise GlamkitError(f"{path} cannot be written: {reason(error)}; what was saved before is intact.") from None
    with contextlib.suppress(OSError, AttributeError):  # the rename lasts through a power cut, where that can be done
        number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def replace_text(path: Path, text: str) -> None:
    """Writes a small file at once or not at all."""
    replace(path, lambda file: file.write(text.encode()))


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where they are not there; refuses one that cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise GlamkitError(f"{path} cannot be written: {reason(error)}.") from None


def sweep(folder: Path) -> None:
    """Removes what processes that were killed while they wrote have left behind."""
    for path in folder.glob("*.tmp"):
        remove(path)


def remove(path: Path) -> None:
    """Removes a file that is of no use any more; where that cannot be done it stays, which does no harm."""
    with contextlib.suppress(OSError):
        path.unlink()


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The contents of a plain file of at most so many bytes; a pipe or device, which might never end, is refused."""
    try:
        kind = path.lstat()
        if not stat.S_ISREG(kind.st_mode):
            raise GlamkitError(f"{str(path)!r} is not a plain file.")
        if most is not None and kind.st_size > most:
            raise GlamkitError(f"{path} has {kind.st_size:,} bytes, and no such file of a run has more than {most:,}.")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise GlamkitError(f"{str(path)!r} cannot be read: {reason(error)}.") from None


def read_json(path: Path) -> Any:
    """What a small JSON file says."""
    data = read_bytes(path, SMALL)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GlamkitError(f"{path} cannot be read: {reason(error)}.") from None
