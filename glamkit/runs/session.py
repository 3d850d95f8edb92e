"""A trainer's turn at its run: alone in the folder, asked to stop by any means, its state written for others to see."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from glamkit.errors import GlamkitError, reason
from glamkit.runs import status
from glamkit.runs.files import read_bytes, remove, replace_text
from glamkit.runs.folder import Run

PATIENCE = 10.0  # seconds to wait for another process, which may be about to end
LOOK = 0.5  # seconds between two looks for the file: on a network disk each is a request
ORPHANED = "the program that ran the notebook has ended"
REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end (SIGTERM)"}
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
    again. Which of its trainers may go on is settled by `claim`, in a file ``.owner`` beside that of the lock.
    """

    def __init__(self, path: Path, patience: float | None = None) -> None:
        self.path, self.name = path.parent.resolve() / path.name, ""  # of the claim
        self.patience = PATIENCE if patience is None else patience
        self.lock = FileLock(self.path, thread_local=False, is_singleton=True)  # one for all trainers of the process

    def __enter__(self) -> Lock:
        try:
            self.lock.acquire(timeout=self.patience)
        except Timeout:
            pid, host = (*self.owner.split(), "?", "?")[:2]
            who = f"another process ({pid!r} on {host!r}); wait for it or end it, or use another run_dir"
            raise GlamkitError(f"{self.path.parent} is being trained by {who}.") from None
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
        """Refuses to go on where somebody else has claimed the run since; to be called inside."""
        if self.owner != self.name:
            raise GlamkitError(
                f"{self.path.parent} was opened anew since this trainer was made; make the trainer again "
                f"(in a notebook, run the cell that does) to go on."
            )


class Stops:
    """Notes the first request to stop, in `reason`; a second SIGINT interrupts at once. No limit is 0 `hours`."""

    def __init__(self, file: Path, hours: float) -> None:
        self.file, self.hours, self.reason = file, hours, ""
        self.began = self.next_look = 0.0
        self.before: dict[int, Any] = {}
        self.turn = 0
        self.parent: int | None = None  # of the kernel that we are in

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Context in which signals are requests; one that is left late leaves them to those that came after it."""
        self.reason, self.began, self.next_look = "", time.monotonic(), 0.0
        self.turn += 1
        turn = self.turn
        if threading.current_thread() is threading.main_thread():
            for number in REASONS:
                now = signal.getsignal(number)
                kept = getattr(now, "__self__", None)
                self.before[number] = kept.before[number] if isinstance(kept, Stops) else now
                signal.signal(number, self.request)
        try:
            with outliving_parent() as self.parent:
                yield
        finally:
            for sent, handler in self.before.items():
                if turn == self.turn and signal.getsignal(sent) == self.request:
                    signal.signal(sent, handler)

    def request(self, number: int, frame: Any) -> None:
        """The signals' handler."""
        if self.reason == REASONS[signal.SIGINT] and number == signal.SIGINT and callable(self.before[number]):
            self.before[number](number, frame)
        self.reason = REASONS[signal.Signals(number)]

    def requested(self, limit: bool = True) -> bool:
        """Whether to stop now; without `limit` the time limit is left for later."""
        now = time.monotonic()
        if not self.reason and now >= self.next_look:
            self.next_look = now + LOOK
            if self.parent not in (None, os.getppid()):
                self.reason = ORPHANED
            elif self.file.is_file():
                self.reason = f"found {self.file.name} in the run folder"
            elif limit and self.hours and now - self.began >= self.hours * 3600:
                self.reason = f"runtime.max_hours = {self.hours:g} is over"
        return bool(self.reason)

    def honour(self) -> None:
        """Removes the file once the run has stopped and is saved, so that running it again goes on."""
        remove(self.file)


class AnyParent:
    """What a kernel compares its parent's number with while a run has to be saved: it never differs."""

    def __eq__(self, other: object) -> bool:
        return True


@contextlib.contextmanager
def outliving_parent() -> Iterator[int | None]:
    """Context in which a Jupyter kernel outlives its parent, whose number it gives; None in plain Python.

    SIGTERM ends papermill at once. Its kernel looks each second for its parent, and would exit before the run is saved.
    """
    kernels = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    kernel = kernels.instance() if kernels is not None and kernels.initialized() else None
    poller: Any = getattr(kernel, "poller", None)
    if not getattr(poller, "parent_pid", 0):
        yield None
        return
    parent, anyone = os.getppid(), AnyParent()
    poller.parent_pid = anyone
    try:
        yield parent
    finally:
        if poller.parent_pid is anyone:  # else a later loop holds the kernel
            poller.parent_pid = parent


class Session:
    """What a trainer shares with others; `where` tells the agent steps made, and those in the newest checkpoint."""

    def __init__(self, run: Run, max_hours: float, where: Callable[[], tuple[int, int]]) -> None:
        self.file, self.where = run.status_file, where
        self.lock, self.stops = Lock(run.lock_file), Stops(run.stop_file, max_hours)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Context in which the run is read from its folder; afterwards it is this trainer's, and no other's."""
        with self.lock:
            yield
            self.lock.claim()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Context of the loop; however it ends, status.json says so, unless there was a later turn.

        Notebooks keep the traceback of a body that failed, and with it the loop, which then ends late.
        """
        with self.lock, self.stops.listening():
            self.lock.check()
            name = self.lock.claim()
            self.tell("running")
            try:
                yield
            except (KeyboardInterrupt, GeneratorExit):
                if self.lock.owner == name:
                    self.tell("stopped", "left at once, without saving")
                raise
            except Exception as error:
                if self.lock.owner == name:
                    self.tell("failed", reason(error))
                raise

    def tell(self, state: str, reason: str = "") -> None:
        """Writes status.json."""
        status.write(self.file, state, *self.where(), reason)

    def end(self, state: str) -> None:
        """The loop has come to its end, and everything is saved."""
        self.tell(state, self.stops.reason if state == "stopped" else "")
        self.stops.honour()
