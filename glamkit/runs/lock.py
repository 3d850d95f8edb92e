"""One process at a time works in a run folder, and there only the trainer that was made last."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import IO

from glamkit.errors import GlamkitError

try:
    import fcntl
except ImportError:  # Windows: there only `claim` and `check` protect a run
    fcntl = None  # type: ignore[assignment]

PATIENCE = 10.0  # seconds to wait for another process, which may be about to end
logger = logging.getLogger(__name__)


class Lock:
    """A context that at most one process can be in; the system opens it when that process dies, however it does.

    A process may enter more than once: a training cell that failed in a notebook must not lock out the same cell run
    again. Which of its trainers may go on is settled by `claim`: the last one that was made.

    Args:
        path: a file that stays; who claimed it is written into it.
        patience: seconds to wait for another process; None for `PATIENCE`.
    """

    _open: dict[Path, IO[str]] = {}  # the files that this process has locked
    _inside: dict[Path, int] = {}  # and how many times over

    def __init__(self, path: Path, patience: float | None = None) -> None:
        self.path = path.parent.resolve() / path.name
        self.name, self.patience = "", PATIENCE if patience is None else patience

    def __enter__(self) -> Lock:
        if not self._inside.get(self.path):
            self._open[self.path] = self._acquire()
        self._inside[self.path] = self._inside.get(self.path, 0) + 1
        return self

    def __exit__(self, *_: object) -> None:
        self._inside[self.path] = self._inside.get(self.path, 1) - 1
        if self._inside[self.path] <= 0 and self.path in self._open:
            self._open.pop(self.path).close()

    def claim(self) -> str:
        """From now on the run is this one's; to be called inside. Returns the name of the claim."""
        self.name = f"{os.getpid()} {socket.gethostname()} {uuid.uuid4().hex}"
        file = self._open[self.path]
        file.seek(0)
        file.truncate()
        file.write(self.name)
        file.flush()
        return self.name

    @property
    def owner(self) -> str:
        """The name of the newest claim; to be asked for inside."""
        return self._read(self._open[self.path])

    def check(self) -> None:
        """Makes sure that nobody else has claimed the run since; to be called inside.

        Raises:
            GlamkitError: somebody has, so what this one remembers of the run may be out of date.
        """
        if self.owner != self.name:
            raise GlamkitError(
                f"{self.path.parent} was opened anew since this trainer was made; make the trainer again "
                f"(in a notebook, run the cell that does) to go on."
            )

    def _acquire(self) -> IO[str]:
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(self.path, flags, 0o644), "r+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise GlamkitError(f"{self.path} cannot be written: {error.strerror}.") from None
        deadline = time.monotonic() + self.patience
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pid, host, *_ = *self._read(file).split(), "?", "?"
                    file.close()
                    raise GlamkitError(
                        f"{self.path.parent} is being trained by another process ({pid!r} on {host!r}); wait for it or "
                        f"end it, or use another run_dir."
                    ) from None
                time.sleep(0.05)
            except OSError as error:  # some network disks
                logger.warning("%s cannot be locked (%s); see that only one process uses it.", self.path, error)
                break
        return file

    @staticmethod
    def _read(file: IO[str]) -> str:
        file.seek(0)
        return file.read(1000)


def _forget() -> None:
    """A forked process has locked nothing: the lock is its parent's."""
    Lock._inside.clear()
    Lock._open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
