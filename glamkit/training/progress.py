"""How far an evaluation is, and who may stop it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from glamkit.config import EvaluationConfig
from glamkit.errors import GlamkitError, StoppedError
from glamkit.notebook import Tell, duration
from glamkit.runs.folder import Run
from glamkit.runs.lock import Lock
from glamkit.runs.stops import Stops


class Progress:
    """Tells how far an evaluation is, and ends it if that is asked for.

    Args:
        settings: episodes, and how long they may be.
        stop: says after each step whether to stop.
        tell: is given a line after each step.
    """

    def __init__(
        self, settings: EvaluationConfig, stop: Callable[[], bool] | None = None, tell: Tell | None = None
    ) -> None:
        self.count, self.most, self.stop, self.tell = settings.episodes, settings.episode_steps, stop, tell
        self.done, self.rounds, self.began = 0, 0, 0.0

    def begin_round(self, done: int, games: int) -> None:
        """To be called before each round: with the episodes that are over, and how many are played side by side."""
        self.done, self.rounds, self.began = done, math.ceil((self.count - done) / games), time.perf_counter()

    def check(self, finished: int, steps: int) -> None:
        """To be called after each step.

        Args:
            finished: episodes of this round that are over.
            steps: of this round.

        Raises:
            StoppedError: it was asked to stop.
        """
        if self.tell is not None:
            self.tell(self.line(finished, steps))
        if self.stop is not None and self.stop():
            done = self.done + finished
            raise StoppedError(
                f"the evaluation was stopped after {done} of {self.count} episodes; run again, it plays all of them."
            )

    def line(self, finished: int, steps: int) -> str:
        """``evaluation 7/20 episodes  step 900/27000  85 steps/s  at most 5m07s left``: it fits into 80 columns."""
        speed = steps / max(time.perf_counter() - self.began, 1e-9)
        left = duration((self.rounds * self.most - steps) / speed)
        text = f"evaluation {self.done + finished}/{self.count} episodes  step {steps}/{self.most}"
        return f"{text}  {speed:.3g} steps/s  at most {left} left"


@contextmanager
def asked(run: Run) -> Iterator[Callable[[], bool]]:
    """Context that gives what says whether to stop: the stop button, Ctrl+C, SIGTERM, or the file STOP of the run.

    The file is removed once it has ended the evaluation, unless a trainer at work in the folder has yet to see it.
    """
    requests = Stops(run.stop_file, 0)
    try:
        with requests.listening():
            yield requests.requested
    except StoppedError:
        with suppress(GlamkitError), Lock(run.lock_file, 0):
            requests.honour()
        raise
