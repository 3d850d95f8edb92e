"""One process at a time works in a run folder, and there only the trainer that was made last."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import read_bytes, replace_text

PATIENCE = 10.0  # seconds to wait for another process, which may be about to end
logger = logging.getLogger(__name__)


def held(path: Path) -> bool:
    """Whether anybody holds the lock of this file, this process too; yes where that cannot be asked."""
    try:
        with FileLock(path, timeout=0):
            return False
    except (OSError, NotImplementedError):  # a `Timeout` is an OSError
        return True


class Lock:
    """A context that at most one process can be in; the system opens it when that process dies, however it does.

    A process may enter more than once: a training cell that failed in a notebook must not lock out the same cell run
    again. Which of its trainers may go on is settled by `claim`: the last one that was made.

    Args:
        path: a file that stays; who claimed it is written into another beside it, named ``.owner``.
        patience: seconds to wait for another process; None for `PATIENCE`.
    """

    def __init__(self, path: Path, patience: float | None = None) -> None:
        self.path, self.name = path.parent.resolve() / path.name, ""  # of the claim
        self.patience = PATIENCE if patience is None else patience
        # One for all trainers of the process, in any thread.
        self.lock = FileLock(self.path, thread_local=False, is_singleton=True)

    def __enter__(self) -> Lock:
        try:
            self.lock.acquire(timeout=self.patience)
        except Timeout:
            pid, host = (*self.owner.split(), "?", "?")[:2]
            raise GlamkitError(
                f"{self.path.parent} is being trained by another process ({pid!r} on {host!r}); wait for it or "
                f"end it, or use another run_dir."
            ) from None
        except (OSError, NotImplementedError) as error:
            if not self.path.exists():
                raise GlamkitError(f"{self.path} cannot be written: {reason(error)}.") from None
            logger.warning("%s cannot be locked (%s); see that only one process uses it.", self.path, reason(error))
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def claim(self) -> str:
        """From now on the run is this one's; to be called inside. Returns the name of the claim."""
        self.name = f"{os.getpid()} {socket.gethostname()} {uuid.uuid4().hex}"
        replace_text(self.path.with_suffix(".owner"), self.name)
        return self.name

    @property
    def owner(self) -> str:
        """The name of the newest claim, or nothing."""
        with contextlib.suppress(GlamkitError):
            return read_bytes(self.path.with_suffix(".owner")).decode(errors="replace")
        return ""

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
