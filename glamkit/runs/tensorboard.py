"""The run's log for TensorBoard: scalars while it trains, the final score, videos and strips once it is evaluated.

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
from glamkit.runs.lock import Lock, held

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
    """Copies what is new in a run's log into its folder ``tensorboard``, which is begun anew.

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
        self.position, self.step = 0, 0  # bytes and agent steps that were copied

    def follow(self) -> None:
        """Copies the numbers of new lines."""
        entries, self.position = log.added(self.run.log_file, self.position)
        try:
            for entry in entries:
                self.step = entry.pop("step")
                for name, value in entry.items():
                    if isinstance(value, (int, float)):
                        self.writer.add_scalar(name, value, self.step)
            self.writer.flush()
        except OSError as error:  # a full disk: what TensorBoard shows is not worth a run
            logger.warning("%s cannot be written (%s); the run goes on without it.", self.folder, error.strerror)


def followed(run: Run) -> bool:
    """Whether a trainer at work writes the run's log for TensorBoard: the file that it holds open bears its number."""
    pid, host = (*Lock(run.lock_file).owner.split(), "", "")[:2]
    return any((run.folder / "tensorboard").glob(f"events.out.tfevents.*.{host}.{pid}.*")) and held(run.lock_file)


def copy(run_dir: str | Path) -> Path:
    """Copies the log of a run, its final score and its videos for TensorBoard; returns the folder that it reads.

    Raises:
        GlamkitError: the folder holds no run, or TensorBoard is not installed.
    """
    run = Run(resolve(run_dir))
    run.config()  # refuses what is no run
    mirror = TensorBoardLog(run)
    mirror.follow()
    with contextlib.suppress(GlamkitError, ValueError, KeyError, TypeError):
        report = read_json(run.evaluation_file)
        mirror.writer.add_scalar("evaluation/final", float(report["mean_return"]), int(report["step"]))
    for path in sorted((run.folder / "videos").glob("*.gif")):
        numbers = re.findall(r"\d{3,}", path.stem)
        step = int(numbers[0]) if numbers else mirror.step
        _add_video(mirror.writer, "videos/" + re.sub(r"-?\d{3,}", "", path.stem), path.read_bytes(), step)
    for path in sorted((run.folder / "videos").glob("*.npz")):  # the strips of `analysis.monitor`
        with (
            contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(path, allow_pickle=False) as saved,
        ):
            rows = [saved[name] for name in ("real", "reconstructed", "imagined")]
            mirror.writer.add_image("strip", np.concatenate(rows), int(saved["step"]), dataformats="HWC")
    mirror.writer.close()
    return mirror.folder


def _add_video(writer: Any, name: str, gif: bytes, step: int) -> None:
    """A GIF as it is: TensorBoard plays it if it is given as a picture."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(encoded_image_string=gif)
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
