"""The process of one run: it trains and evaluates. When its starter asks or has ended, it saves and ends (see `local`).

If a notebook is named, papermill executes it into the run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glamkit.config import Config, differences, preset
from glamkit.errors import INTERRUPTED, GlamkitError, StoppedError
from glamkit.runs.folder import Run
from glamkit.runs.session import Lock
from glamkit.sweeps.job import BEAT, SHOWN, Job, JobRecord
from glamkit.training import evaluation
from glamkit.training.trainer import Trainer

PATIENCE = 90.0  # seconds to wait for another process that works in the same folder and may be about to end
OWN = {"env.game": "game", "trainer.seed": "seed", "trainer.env_steps": "env_steps"}  # settings with their own names


@contextlib.contextmanager
def recorded(folder: Path, attempt: int) -> Iterator[None]:
    """Context that keeps job.json: signs of life while the body works, and how it ended."""
    record, over = JobRecord.begin(attempt), threading.Event()
    record.write(folder)

    def beat() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError, GlamkitError):  # a full disk may have room again; the run will say so
                record.write(folder)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
        record = record._replace(state="done")
    except BaseException as error:
        state = "stopped" if isinstance(error, StoppedError) else "failed"
        record = record._replace(state=state, error=str(error).splitlines()[-SHOWN:])
        raise
    finally:
        over.set()
        heart.join()
        record.write(folder)


def train(config: Config, folder: Path) -> None:
    """Trains and evaluates one run; a StoppedError says that it was stopped and is saved."""
    trainer = Trainer(config, folder)
    kinds = [event.kind for event in trainer if event.kind in ("stopped", "done")]  # to its end: it closes itself
    if "stopped" in kinds:
        raise StoppedError(f"stopped at step {trainer.step} and saved ({trainer.session.stops.reason}).")
    evaluation.final(trainer)


def execute(notebook: Path, config: Config, folder: Path) -> None:
    """Has papermill execute the training notebook into the run folder; errors as in `train`."""
    # Here, as papermill takes a second to import.
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    try:
        given = parameters(config, folder)
        execute_notebook(notebook, folder / notebook.name, given, cwd=notebook.parent, progress_bar=False)
    except PapermillExecutionError as error:
        if error.ename == "StoppedError":
            raise StoppedError(error.evalue) from None
        raise GlamkitError(f"{error.ename}: {error.evalue}") from None  # the notebook has its traceback
    except DeadKernelError as error:
        raise GlamkitError(f"the kernel of the notebook died ({error}); was there memory enough?") from None


def parameters(config: Config, folder: Path) -> dict[str, Any]:
    """The parameters with which the training notebook makes exactly this run."""
    changes = {key: ours for key, (_, ours) in differences(preset(config.preset), config).items() if key not in OWN}
    overrides = " ".join(f"{key}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in changes.items())
    given = {name: getattr(getattr(config, key.split(".")[0]), name) for key, name in OWN.items()}
    return {**given, "preset": config.preset, "run_dir": str(folder.absolute()), "overrides": overrides, "resume": True}


def make(folder: Path) -> None:
    """Makes one run; errors as in `train`.

    The first line of the standard input is its order (JSON); the end of it asks to save and stop.
    """
    order, stop_file = json.loads(sys.stdin.readline()), folder / "STOP"
    config = Config.from_dict(order["config"])

    def listen() -> None:
        # Not through sys.stdin: a thread that sits in its lock breaks the end of Python.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop_file.touch()  # the trainer and the evaluation look for it, here and in a notebook's kernel

    # The trainer's own lock protects the run; this one, what is written about the job and the notebook.
    with contextlib.ExitStack() as inside:
        lock = inside.enter_context(Lock(folder / ".job.lock", PATIENCE))
        if Job(folder.name, Run(folder), config).done():  # by the process that was waited for
            return
        inside.enter_context(recorded(folder, order["attempt"]))
        lock.claim()
        stop_file.unlink(missing_ok=True)  # left by a process that was killed while it stopped
        threading.Thread(target=listen, daemon=True).start()  # here: the file asks whoever is in the folder
        try:
            if order["notebook"]:
                execute(Path(order["notebook"]), config, folder)
            else:
                train(config, folder)
        finally:
            stop_file.unlink(missing_ok=True)


def main(folder: Path) -> int:
    """Makes the run of a folder. Returns the exit status: 2 with a sentence for what can be mended."""
    try:
        make(folder)
    except GlamkitError as error:
        sys.stderr.write(f"{error}\n")
        return INTERRUPTED if isinstance(error, StoppedError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
