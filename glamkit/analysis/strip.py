"""One moment of play, real, reconstructed and imagined, at several steps of training: pictures that sharpen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from glamkit import plotting
from glamkit.analysis import rollouts
from glamkit.errors import GlamkitError, reason
from glamkit.runs.files import remove, replace
from glamkit.training.trainer import Trainer

SHARES = (0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.75, 1.0)  # of training, when pictures are taken: often where it is fast
AHEAD = 5  # steps dreamt for the strip's last row: a third of a second of play
logger = logging.getLogger(__name__)


class Strip:
    """One moment of play - real, reconstructed and imagined - at several steps of training; kept in the run folder.

    It is the same moment each time, so the columns differ by what was learned. After a resume it goes on.
    """

    columns: list[dict[str, Any]]

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, settings = trainer, trainer.config.trainer
        self.folder = trainer.run.folder / "videos"
        self.due = [settings.warmup + max(1, round(share * (settings.env_steps - settings.warmup))) for share in SHARES]
        self.columns = []
        for path in sorted(self.folder.glob("strip-*.npz")):
            column = read_column(path)
            if column and column["step"] <= trainer.step:
                self.columns.append(column)
            else:  # damaged, or taken after the checkpoint that training goes on from: it will be taken again
                remove(path)

    def extend(self, step: int) -> None:
        """Adds a column if a share of training has been reached since the last one."""
        last = self.columns[-1]["step"] if self.columns else 0
        replay = self.trainer.replay
        length = self.trainer.config.imagination.context_length + AHEAD
        if not any(last < due <= step for due in self.due) or len(replay) < length:
            return
        start = self.columns[-1]["start"] if self.columns else -1
        if start < replay.oldest:  # the first column, or a moment that the ring has forgotten
            start = rollouts.busiest(replay, length)
        seen = rollouts.dream(self.trainer, start, AHEAD)
        shown = {"real": seen.real[-1], "reconstructed": seen.reconstructed[-1], "imagined": seen.imagined[-1]}
        self.columns.append({"step": step, "start": start, "ahead": AHEAD, **shown})
        self.write(f"strip-{step:09d}.npz", lambda file: np.savez_compressed(file, **self.columns[-1]))

    def finish(self) -> None:
        """The strip as a picture file, for who trained without a notebook."""
        if self.columns:
            self.write("strip.png", lambda file: file.write(plotting.strip(self.columns).png()))

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> None:
        """Writes a file at once or not at all; a full disk is only reported, as pictures are not worth a run."""
        try:
            self.folder.mkdir(exist_ok=True)
            replace(self.folder / name, fill)
        except (OSError, GlamkitError) as error:
            logger.warning("%s cannot be written (%s); training goes on without it.", name, reason(error))


def read_column(path: Path) -> dict[str, Any] | None:
    """A saved column, or None for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers = {name: int(arrays[name]) for name in ("step", "start", "ahead")}
            return numbers | {name: arrays[name] for name in ("real", "reconstructed", "imagined")}
    except Exception:  # what readers of packed data raise for damaged ones has no end
        logger.warning("%s is damaged; the strip goes on without it.", path)
        return None
