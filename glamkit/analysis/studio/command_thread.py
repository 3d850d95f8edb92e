"""Commands that are carried out one after the other in a thread of their own, with a clock between them.

Commands may come from any thread. So no notebook cell has to run for a dream to go on, and none is held up by it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from glamkit.errors import GlamkitError

logger = logging.getLogger(__name__)


class CommandThread:
    """Carries out its own methods by name; while `playing`, `tick` is called whenever it is due.

    After each, `shown` is called with the object itself; what went wrong is in `note`.
    """

    def __init__(self) -> None:
        self.playing, self.note, self.due = False, "", 0.0
        self.shown: Callable[[Any], None] = lambda _: None
        self.todo: queue.Queue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = queue.Queue()
        self.thread: threading.Thread | None = None

    def do(self, command: str, *values: Any, **named: Any) -> None:
        """Asks for a command by its name, and returns at once."""
        self.todo.put((command, values, named))
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, daemon=True, name="glamkit-player")
            self.thread.start()

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self.todo.join()

    def close(self) -> None:
        """Ends the thread."""
        if self.thread is not None:
            self.todo.put(None)
            self.thread.join()
            self.thread = None

    def working(self, note: str) -> None:
        """Shows at once what a command that takes long is doing."""
        self.note = note
        self.shown(self)
        self.note = ""

    def tick(self) -> None:
        """What the clock does; it sets when it is `due` again."""
        raise NotImplementedError

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread; see `one_thread`
        while True:
            pause = max(0.0, self.due - time.perf_counter()) if self.playing else None
            try:
                command = self.todo.get(timeout=pause)
            except queue.Empty:
                self._try("tick", (), {})
                continue
            if command is not None:
                self.note = self.note if command[0] == "keys" else ""  # a key that is let go wipes no message away
                self._try(*command)
            self.todo.task_done()
            if command is None:
                return

    def _try(self, command: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            getattr(self, command)(*values, **named)
            self.shown(self)
        except Exception as error:  # in a thread nobody would see it
            known = isinstance(error, GlamkitError)
            self.playing, self.note = False, str(error) if known else f"{type(error).__name__}: {error}"
            if not known:
                logger.exception("The player stopped.")
            try:
                self.shown(self)
            except Exception:  # what cannot be drawn must not end the thread: the next command may go elsewhere
                logger.exception("The player cannot be shown.")
