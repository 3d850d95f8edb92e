"""A soak: many steps in one process, in which memory and open files must stay flat.

    python tests/programs/soak.py 50000 --every 50

Prints a table; ends with status 1 if the second half of the run used more than the first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from tiny_runs import short

from glamkit.training.trainer import Trainer

ROOM = 1.03  # of the memory after the first quarter: allocators are not exact
GAME = "Pong"  # its emulator is the part that glamkit did not write


class Sample(NamedTuple):
    """What the process holds at a step."""

    step: int
    seconds: float
    memory: float  # MiB, resident
    files: int
    disk: float  # MiB, of the run folder


def sample(step: int, began: float, folder: Path) -> Sample:
    """Now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    opened = len(list(Path("/proc/self/fd").iterdir()))
    return Sample(step, time.monotonic() - began, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, opened, disk / 2**20)


def soak(steps: int, every: int, folder: Path) -> list[Sample]:
    """A run of so many steps with an update every so often, looked at twenty times."""
    config = short(
        f"trainer.env_steps={steps} trainer.update_every={every} trainer.save_every={max(steps // 50, 100)} "
        f"trainer.log_every=100 replay.capacity=2048",
        game=GAME,
    )
    began, samples = time.monotonic(), list[Sample]()
    for event in Trainer(config, folder):
        if event.kind == "step" and event.step % (steps // 20) == 0:
            samples.append(sample(event.step, began, folder))
    return samples


def flat(samples: list[Sample]) -> bool:
    """Whether the end holds no more than there was once everything had happened a few times."""
    early, late = samples[len(samples) // 4 :][:5], samples[-5:]
    grown = min(s.memory for s in late) > ROOM * max(s.memory for s in early)
    return not grown and max(s.files for s in late) <= max(s.files for s in early)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=int)
    parser.add_argument("--every", type=int, default=50, help="steps between two updates")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(given.steps, given.every, Path(folder) / "run")
    rows = [("step", "seconds", "MiB of memory", "open files", "MiB on disk")]
    rows += [(f"{s.step:,}", f"{s.seconds:.0f}", f"{s.memory:.1f}", str(s.files), f"{s.disk:.2f}") for s in samples]
    sys.stdout.writelines("".join(f"{cell:>15}" for cell in row) + "\n" for row in rows)
    sys.stdout.write("flat\n" if flat(samples) else "NOT flat\n")
    return 0 if flat(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
