"""The run's log for TensorBoard: scalars, and the videos of its evaluations.

It is copied from metrics.jsonl and the run folder, which stay the truth. So a run that goes on after a stop has every
step once. ``glamkit tensorboard RUN ...`` does the same for runs that were made without.
"""

from __future__ import annotations

import contextlib
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from glamkit.errors import GlamkitError, install
from glamkit.runs import log
from glamkit.runs.files import make_folder, read_json, remove
from glamkit.runs.folder import Run, resolve

logger = logging.getLogger(__name__)


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


class TensorBoardLog:
    """Copies what is new in a run folder into its folder ``tensorboard``, which is begun anew.

    Raises:
        GlamkitError: TensorBoard is not installed, or its folder in the run's cannot be written.
    """

    def __init__(self, run: Run) -> None:
        make = writer_class()
        self.run, self.folder = run, run.folder / "tensorboard"
        make_folder(self.folder)
        for old in self.folder.glob("events.out.tfevents.*"):
            remove(old)
        self.writer: Any = make(str(self.folder))
        self.position, self.step, self.shown = 0, 0, set[tuple[str, int]]()

    def follow(self) -> None:
        """Copies what is new: the log, the final score and what is in the folder of videos."""
        try:
            entries, self.position = log.added(self.run.log_file, self.position)
            for entry in entries:
                self.step = entry.pop("step")
                for name, value in entry.items():
                    if isinstance(value, (int, float)):
                        self.writer.add_scalar(name, value, self.step)
            self.final_score()
            for path in sorted((self.run.folder / "videos").glob("*.*")):
                if self.is_new(path):
                    self.picture(path)
            self.writer.flush()
        except OSError as error:  # a full disk: what TensorBoard shows is not worth a run
            logger.warning("%s cannot be written (%s); the run goes on without it.", self.folder, error.strerror)

    def is_new(self, path: Path) -> bool:
        """Whether a file, as it is now, has not been copied yet; from then on it has."""
        key = (path.name, path.stat().st_mtime_ns)
        new = key not in self.shown
        self.shown.add(key)
        return new

    def final_score(self) -> None:
        """The mean return of the run's evaluation, where it has one."""
        with contextlib.suppress(GlamkitError, OSError, ValueError, KeyError, TypeError):
            if self.is_new(self.run.evaluation_file):
                report = read_json(self.run.evaluation_file)
                self.writer.add_scalar("evaluation/final", float(report["mean_return"]), int(report["step"]))

    def picture(self, path: Path) -> None:
        """A video as it is, which TensorBoard plays if it is given as a picture; or the strip of `analysis.strip`."""
        if path.suffix == ".gif":
            from tensorboard.compat.proto.summary_pb2 import Summary

            numbers = re.findall(r"\d{3,}", path.stem)
            name = "videos/" + re.sub(r"-?\d{3,}", "", path.stem)
            image = Summary.Image(encoded_image_string=path.read_bytes())
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self.writer.file_writer.add_summary(summary, int(numbers[0]) if numbers else self.step)
        elif path.suffix == ".npz":
            with (
                contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile),
                np.load(path, allow_pickle=False) as saved,
            ):
                rows = [saved[name] for name in ("real", "reconstructed", "imagined")]
                self.writer.add_image("strip", np.concatenate(rows), int(saved["step"]), dataformats="HWC")


def copy(run_dir: str | Path) -> Path:
    """Copies the log of a run for TensorBoard; returns the folder that TensorBoard reads.

    Raises:
        GlamkitError: the folder holds no run, or TensorBoard is not installed.
    """
    run = Run(resolve(run_dir))
    run.config()  # refuses what is no run
    mirror = TensorBoardLog(run)
    mirror.follow()
    mirror.writer.close()
    return mirror.folder
