"""The Jupyter kernel that a run may be in: it is ended a second after its parent is gone, unless a run holds it."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any


class _AnyParent(int):
    """What the kernel's poller compares the parent's number with: it never differs."""

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def application() -> Any:
    """The kernel that this process is, or None in plain Python."""
    kernels = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernels.instance() if kernels is not None and kernels.initialized() else None


@contextlib.contextmanager
def held() -> Iterator[bool]:
    """Context in which the end of the kernel's parent does not end the kernel: a run has to be saved first.

    SIGTERM ends papermill at once. Its kernel, which does not get the signal, would exit within a second, unsaved.

    Yields:
        Whether there is such a kernel; then whoever is inside has to look for the end of the parent.
    """
    poller: Any = getattr(application(), "poller", None)
    before = getattr(poller, "parent_pid", None)
    if not before:
        yield False
        return
    mine = poller.parent_pid = _AnyParent(before)
    try:
        yield True
    finally:
        if poller.parent_pid is mine:  # else somebody else holds it since
            poller.parent_pid = int(mine)


def last_word(sentence: str) -> None:
    """Writes a sentence to the terminal of a kernel that is being ended, and nothing below it.

    Such a kernel would print a traceback of its own, as it finds its connections closed.
    """
    app = application()
    if app is not None and not getattr(app.kernel, "_allow_stdin", True):
        app.log.critical(sentence)
        app.log.setLevel(logging.CRITICAL + 1)
