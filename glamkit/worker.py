"""The process of one run: trains, evaluates, and saves when its starter wants it to stop or is no more (see `jobs`)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from glamkit import evaluation
from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.trainer import Trainer

PATIENCE = 90.0  # seconds to wait for another process that works in the same folder and may be about to end


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes sure that no other process works in a run's folder.

    Raises:
        GlamkitError: one still does, after some patience.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with (folder / ".lock").open("w") as file:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise GlamkitError(
                        f"{folder} is being trained by another process; wait for it or end it."
                    ) from None
                time.sleep(0.1)
        yield


def work(config: Config, folder: Path, asked: threading.Event) -> None:
    """Trains and evaluates one run; `asked` to stop, it saves after the present step.

    Raises:
        GlamkitError: it was stopped, or whatever the trainer refuses.
    """
    with alone(folder):
        trainer = Trainer(config, folder)
        for _ in trainer:
            trainer.stop_requested |= asked.is_set()
        if trainer.step < config.trainer.env_steps:
            raise GlamkitError(f"stopped at step {trainer.step} and saved.")
        report = evaluation.evaluate(trainer.agent, config, trainer.machine, trainer.step)
        evaluation.save(report, trainer.run.evaluation_file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Its folder is the argument, its config the first line of the standard input, whose end means stop."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    asked = threading.Event()

    def listen() -> None:
        # Not through sys.stdin: a thread that sits in its lock breaks the end of Python.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        asked.set()

    try:
        config = Config.from_dict(json.loads(sys.stdin.readline()))
        threading.Thread(target=listen, daemon=True).start()
        work(config, Path(folder), asked)
    except GlamkitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
