"""The run's log for TensorBoard: scalars, and the videos of its evaluations.

It is copied from metrics.jsonl and the run folder, which stay the truth. So a run that goes on after a stop has every
step once. ``glamkit tensorboard RUN ...`` does the same for runs that were made without.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from glamkit.errors import GlamkitError, install
from glamkit.runs import log
from glamkit.runs.files import make_folder, remove
from glamkit.runs.folder import Run, resolve

WRITING: dict[Path, TensorBoardLog] = {}  # by folder; each copies the rest when the process ends
logger = logging.getLogger(__name__)


class TensorBoardLog:
    """Copies what is new in a run folder into its folder ``tensorboard``, which is begun anew.

    Args:
        run: whose log it follows.
        wanted: False does nothing at all.

    Raises:
        GlamkitError: TensorBoard is not installed, or its folder in the run's cannot be written.
    """

    def __init__(self, run: Run, wanted: bool = True) -> None:
        self.run, self.folder = run, run.folder / "tensorboard"
        self.writer: Any = None
        self.position, self.step, self.shown = 0, 0, set[tuple[str, int]]()
        if not wanted:
            return
        make = writer_class()
        if self.folder in WRITING:
            WRITING[self.folder].close()  # its files go
        make_folder(self.folder)
        for old in self.folder.glob("events.out.tfevents.*"):
            remove(old)
        self.writer = make(str(self.folder))
        WRITING[self.folder] = self
        # The final evaluation comes after training; whoever made it need not know of us.
        atexit.register(self.follow)

    def follow(self) -> None:
        """Copies what has been added since the last call; a folder that is gone is left alone."""
        if self.writer is None or not self.run.folder.exists():
            return
        try:
            self.copy()
            self.writer.flush()
        except OSError as error:  # a full disk: what TensorBoard shows is not worth a run
            logger.warning("%s cannot be written (%s); the run goes on without it.", self.folder, error.strerror)

    def copy(self) -> None:
        """What is new: the log, the final score and what is in the folder of videos."""
        entries, self.position = log.added(self.run.log_file, self.position)
        for entry in entries:
            self.step = entry.pop("step")
            self.scalars(entry, self.step)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            report = json.loads(self.run.evaluation_file.read_text(encoding="utf-8"))
            self.scalars({"evaluation/final": float(report["mean_return"])}, int(report["step"]))
        for path in sorted((self.run.folder / "videos").glob("*")):
            key = (path.name, path.stat().st_mtime_ns)
            if key not in self.shown and path.suffix in (".gif", ".npz"):
                self.shown.add(key)
                self.video(path) if path.suffix == ".gif" else self.strip(path)

    def scalars(self, entry: dict[str, Any], step: int) -> None:
        """The numbers of one line, each of which a step has once."""
        for name, value in entry.items():
            if isinstance(value, (int, float)) and (name, step) not in self.shown:
                self.shown.add((name, step))
                self.writer.add_scalar(name, value, step)

    def video(self, path: Path) -> None:
        """A video as it is, once: TensorBoard plays GIFs that are given as pictures."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = re.findall(r"\d{3,}", path.stem)
        step = int(numbers[0]) if numbers else self.step
        name = "videos/" + re.sub(r"-?\d{3,}", "", path.stem)
        picture = Summary.Image(encoded_image_string=path.read_bytes())
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)

    def strip(self, path: Path) -> None:
        """A moment of play as it was, as it is reconstructed and as it is dreamt, from `monitor.Strip`."""
        with (
            contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(path, allow_pickle=False) as saved,
        ):
            rows = [saved[name] for name in ("real", "reconstructed", "imagined")]
            self.writer.add_image("strip", np.concatenate(rows), int(saved["step"]), dataformats="HWC")

    def close(self) -> None:
        """Copies the rest and closes the files."""
        atexit.unregister(self.follow)
        self.follow()
        self.writer.close()
        self.writer = None
        del WRITING[self.folder]


def require(wanted: bool) -> None:
    """Refuses, before any work, what cannot be done here; errors as in `TensorBoardLog`."""
    if wanted:
        writer_class()


def writer_class() -> Any:
    """What writes TensorBoard's files.

    Raises:
        GlamkitError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise GlamkitError(f"TensorBoard is not installed: {install('tensorboard')}.") from None
    return SummaryWriter


def copy(run_dir: str | Path) -> Path:
    """Copies the log of a run for TensorBoard; returns the folder that TensorBoard reads.

    Raises:
        GlamkitError: the folder holds no run, or TensorBoard is not installed.
    """
    run = Run(resolve(run_dir))
    run.config()  # refuses what is no run
    mirror = TensorBoardLog(run)
    mirror.close()
    return mirror.folder
