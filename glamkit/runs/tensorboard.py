"""The run's numbers for TensorBoard: scalars while it trains, and the final score once it is evaluated.

They are copied from metrics.jsonl, which stays the truth. So a run that goes on after a stop has every step once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from glamkit.errors import GlamkitError, install
from glamkit.runs import log
from glamkit.runs.files import make_folder, read_json, remove
from glamkit.runs.folder import Run, resolve
from glamkit.runs.session import Lock, held

FILES = "events.out.tfevents.*"  # as TensorBoard calls them; host and number of the process follow


def writer_class() -> Any:
    """What writes TensorBoard's files, or an error where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise GlamkitError(f"TensorBoard is not installed: {install('tensorboard')}.") from None
    return SummaryWriter


class TensorBoardLog:
    """Copies what is new in a run's log into its folder ``tensorboard``, which is begun anew."""

    def __init__(self, run: Run) -> None:
        make = writer_class()
        self.run, self.folder = run, run.folder / "tensorboard"
        make_folder(self.folder)
        for old in self.folder.glob(FILES):
            remove(old)
        self.writer: Any = make(str(self.folder))
        self.position = 0  # bytes that were copied

    def follow(self) -> None:
        """Copies the numbers of new lines."""
        entries, self.position = log.added(self.run.log_file, self.position)
        with contextlib.suppress(OSError):  # a full disk: what TensorBoard shows is not worth a run
            for entry in entries:
                step = entry.pop("step")
                for name, value in entry.items():
                    if isinstance(value, (int, float)):
                        self.writer.add_scalar(name, value, step)
            self.writer.flush()


def copy(run_dir: str | Path) -> Path:
    """Copies the log of a run and its final score for TensorBoard; returns the folder that it reads.

    Where a trainer at work writes them itself, nothing is copied.
    """
    run = Run(resolve(run_dir))
    run.config()  # refuses what is no run
    pid, host = (*Lock(run.lock_file).owner.split(), "", "")[:2]
    if any((run.folder / "tensorboard").glob(f"{FILES}.{host}.{pid}.*")) and held(run.lock_file):
        return run.folder / "tensorboard"
    mirror = TensorBoardLog(run)
    mirror.follow()
    with contextlib.suppress(GlamkitError, ValueError, KeyError, TypeError):
        report = read_json(run.evaluation_file)
        mirror.writer.add_scalar("evaluation/final", float(report["mean_return"]), int(report["step"]))
    mirror.writer.close()
    return mirror.folder
