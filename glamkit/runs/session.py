"""A trainer's turn at its run: alone in the folder, asked to stop by any means, its state written for others to see."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from glamkit.errors import reason
from glamkit.runs import status
from glamkit.runs.folder import Run
from glamkit.runs.lock import Lock
from glamkit.runs.stops import Stops


class Session:
    """What a trainer shares with the world outside its process.

    A turn has `max_hours`, 0 for no limit; `where` tells the agent steps made, and those in the newest checkpoint.
    """

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
        """Context of the loop; however it ends, status.json says so.

        A loop whose body failed is left without an end as long as its traceback is kept, as notebooks do; when it ends
        at last, there may have been other turns, and it says nothing.
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
        self.stops.honour(
            f"{self.file.parent} {state} at step {self.where()[0]:,} and saved; the same command goes on."
        )
