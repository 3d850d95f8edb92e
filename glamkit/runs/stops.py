"""What may ask a run to stop: the stop button, signals, a file named STOP, a time limit, or whoever runs the loop.

In a notebook's kernel the end of its parent asks too: of papermill, or of the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOOK = 0.5  # seconds between two looks for the file: on a network disk each is a request
ORPHANED = "the program that ran the notebook has ended"
REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end (SIGTERM)"}


class AnyParent:
    """What a kernel compares its parent's number with while a run has to be saved: it never differs."""

    def __eq__(self, other: object) -> bool:
        return True


class Stops:
    """Notes the first request to stop; a second SIGINT interrupts at once.

    Attributes:
        reason: why to stop after the present step; empty while nobody asked.

    Args:
        file: whose existence asks to stop.
        hours: from the beginning of `listening` to the limit; 0 for none.
    """

    def __init__(self, file: Path, hours: float) -> None:
        self.file, self.hours, self.reason = file, hours, ""
        self.began = self.next_look = 0.0
        self.before: dict[int, Any] = {}
        self.turn = 0
        self.parent: int | None = None  # of the kernel that we are in

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Context in which signals are requests.

        One that is left late, because a traceback kept it, leaves the signals to those that came after it.
        """
        self.reason, self.began, self.next_look = "", time.monotonic(), 0.0
        self.turn += 1
        turn = self.turn
        if threading.current_thread() is threading.main_thread():
            for number in REASONS:
                now = signal.getsignal(number)
                kept = getattr(now, "__self__", None)
                self.before[number] = kept.before[number] if isinstance(kept, Stops) else now
                signal.signal(number, self.request)
        # SIGTERM ends papermill at once. Its kernel, which does not get the signal, would exit within a second, as a
        # thread of it compares its parent's number; so the run would not be saved.
        poller: Any = getattr(kernel(), "poller", None)
        self.parent, anyone = (os.getppid() if getattr(poller, "parent_pid", 0) else None), AnyParent()
        try:
            if self.parent is not None:
                poller.parent_pid = anyone
            yield
        finally:
            if getattr(poller, "parent_pid", None) is anyone:  # else a later turn holds the kernel
                poller.parent_pid = self.parent
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

    def honour(self, sentence: str = "") -> None:
        """Removes the file once the run has stopped and is saved, so that running it again goes on.

        A kernel that is being ended writes the sentence to its terminal, as nobody reads what it says in a notebook;
        and nothing below it, where it would print a traceback of its own over its closed connections.
        """
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)
        app, ending = kernel(), self.reason in (ORPHANED, *REASONS.values())
        if sentence and ending and app is not None and not app.kernel._allow_stdin:
            app.log.critical(sentence)
            app.log.setLevel(logging.CRITICAL + 1)


def kernel() -> Any:
    """The Jupyter kernel that this process is, or None in plain Python."""
    kernels = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernels.instance() if kernels is not None and kernels.initialized() else None
