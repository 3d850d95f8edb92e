"""Atomic saves and verified loads of a trainer's state and of the replay, and snapshots of the agent.

A checkpoint is ``NNNNNNNNN.pt`` with a manifest ``NNNNNNNNN.json`` that holds its checksum and is written last:
without a manifest, or with another checksum, a checkpoint does not count. The replay is saved in parts: each
checkpoint adds one with the steps collected since the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.config import TrainerConfig
from glamkit.errors import GlamkitError, reason
from glamkit.models.agent import Agent
from glamkit.runs.files import make_folder, read_bytes, read_json, remove, replace, replace_text, sweep
from glamkit.runtime import random_state, set_random_state
from glamkit.training.replay import Replay

FORMAT = 1
KEEP = 2
NUMBER = "[0-9]{9,18}"  # a step in the name of a file of ours; files of other names are left alone
SNAPSHOTS = 8  # parts of the training; each but the last ends with a snapshot, and the last with a checkpoint
# The arrays in a part of the replay and their types on disk.
ARRAYS = {"frames": np.uint8, "actions": np.int64, "rewards": np.float32, "terminations": np.float32}
logger = logging.getLogger(__name__)


class NewerFormatError(GlamkitError):
    """A checkpoint of a newer glamkit: to go on from an older one would throw away what it holds."""


# The trainer's state: all from which its run can go on but the stored steps -------------------------------------------


def gather(trainer: Any) -> dict[str, Any]:
    """The state in plain numbers, text and tensors."""
    return {
        "step": trainer.step,
        "agent": trainer.agent.state_dict(),
        **{f"{name}_optimizer": optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        "replay": trainer.replay.state_dict(),
        "past": trainer.past.state_dict(),
        "means": trainer.means.state_dict(),
        "log_size": trainer.log.size,
        "episode": dict(trainer.episode),
        "frame": torch.from_numpy(trainer.frame.copy()),
        "env": trainer.env.clone(),
        "random": random_state(),
    }


def restore(trainer: Any, state: dict[str, Any]) -> None:
    """Inverse of `gather`, but for the game and the random numbers; stored steps are read from the run folder."""
    trainer.agent.load_state_dict(state["agent"])
    for name, optimizer in trainer.optimizers.items():
        optimizer.load_state_dict(state[f"{name}_optimizer"])
    trainer.replay.load_state_dict(state["replay"])
    load_replay(trainer.run.replay, trainer.replay)
    sweep(trainer.run.replay)
    trainer.past.load_state_dict(state["past"])
    trainer.means.load_state_dict(state["means"])
    trainer.log.cut(state["log_size"])
    trainer.step = trainer.saved = trainer.stored = state["step"]
    trainer.episode, trainer.frame = state["episode"], state["frame"].numpy()


def resume(trainer: Any) -> bool:
    """Goes on from the newest checkpoint that can be used; returns whether there is one. Errors are those of `load`."""
    state = load(trainer.run.checkpoints, lambda state: restore(trainer, state))
    if state is None:
        return False
    try:  # last: a game that cannot be played is no fault of the checkpoint, and loses none
        trainer.env.restore(state["env"])
    except Exception as error:  # a game with randomness of its own, or whatever a stranger's game raises
        logger.warning("%s. A new episode is started.", reason(error))
        trainer.restart_game()
    if not trainer.env.running:  # the game crashed when its next episode should have begun
        trainer.new_game()
    set_random_state(state["random"])  # a game may have drawn
    return True


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes the state of `step` and keeps the newest `KEEP` up to it; later ones turned out to be damaged."""
    write(folder, step, state)
    kept = {f"{number:09d}" for number in [number for number in steps(folder) if number <= step][-KEEP:]}
    for old in [*folder.glob("*.json"), *folder.glob("*.pt")]:
        if old.stem not in kept and re.fullmatch(NUMBER, old.stem):
            remove(old)
    sweep(folder)


def write(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes a state and then its manifest, each at once or not at all."""
    buffer, path = io.BytesIO(), folder / f"{step:09d}.pt"
    torch.save(state, buffer)
    data = buffer.getbuffer()
    replace(path, lambda file: file.write(data))
    manifest = {"format": FORMAT, "step": step, "sha256": hashlib.sha256(data).hexdigest()}
    replace_text(path.with_suffix(".json"), json.dumps(manifest))


def steps(folder: Path) -> list[int]:
    """The steps of which there are checkpoints, damaged or not, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if re.fullmatch(NUMBER, path.stem))


def load(folder: Path, take: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, Any] | None:
    """Hands the newest state to `take`, or the one before if it is damaged or refused; returns the one that was taken.

    None where there is none; a GlamkitError where none can be used, or where the newest is of a newer glamkit.
    """
    problem = ""
    for step in reversed(steps(folder)):
        try:
            take(state := read(folder, step))
            return state
        except NewerFormatError:
            raise
        except GlamkitError as error:
            text = str(error)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            text = f"the checkpoint of step {step} does not fit this experiment ({misfit(error)})."
        problem = problem or text
        logger.warning("%s The one before it is used.", text)
    if problem:
        raise GlamkitError(f"no checkpoint in {folder} can be used: {problem}")
    return None


def misfit(error: Exception) -> str:
    """Why a state does not fit: the last of the lines that torch says of it."""
    return str(error).strip().rpartition("\n")[2].strip().rstrip(".")


def read(folder: Path, step: int) -> dict[str, Any]:
    """The state of one step; runs no code from the file. A missing, damaged or newer one is a GlamkitError."""
    path = folder / f"{step:09d}.pt"
    match read_json(path.with_suffix(".json")):
        case {"format": int(number)} if number > FORMAT:
            raise NewerFormatError(f"{path} has format {number}; this glamkit reads {FORMAT}, update it.")
        case {"format": int(), "sha256": str(checksum)}:
            data = read_bytes(path)
        case _:
            raise GlamkitError(f"the checkpoint {path} cannot be read (its manifest is damaged).")
    if hashlib.sha256(data).hexdigest() != checksum:
        raise GlamkitError(f"the checkpoint {path} is damaged (its checksum differs).")
    try:
        # A zip file and plain data in it; other things that torch.load takes are older and less strict.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if data[:2] == b"PK" else None
    except Exception:  # a stranger's file makes readers of pickled data fail in any way they can
        state = None
    if not isinstance(state, dict):
        raise GlamkitError(f"the checkpoint {path} holds something else than plain data, so it is not opened.")
    return state


class ReplayPart(NamedTuple):
    """A file of the replay, with the steps first .. last - 1."""

    first: int
    last: int
    path: Path

    def read(self, size: int, names: Collection[str] = tuple(ARRAYS)) -> dict[str, Tensor]:
        """The named arrays, of frames of size x size pixels; a missing or damaged part is a GlamkitError."""
        count = self.last - self.first
        largest = 3 * size**2 * count + 1024  # bytes: more is not unpacked, whatever the file claims to hold
        try:
            if not self.path.is_file():
                raise ValueError("it is no file")
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                if any(info.file_size > largest for info in arrays.zip.infolist()):
                    raise ValueError("it is too large")
                part = {name: arrays[name] for name in names}
            for name, values in part.items():
                shape = (count, size, size, 3) if name == "frames" else (count,)
                if values.dtype != ARRAYS[name] or values.shape != shape:
                    raise ValueError(f"its {name} are not those of {count} steps")
        except Exception as error:  # what readers of packed data raise for damaged ones has no end
            raise GlamkitError(f"the replay part {self.path} is damaged ({reason(error)}).") from None
        return {name: torch.from_numpy(values) for name, values in part.items()}


def save_replay(folder: Path, replay: Replay, saved: int) -> int:
    """Writes the steps from number `saved` on as one part; returns the number up to which all is saved."""
    first, last = max(saved, replay.oldest), replay.count
    for old in stored_parts(folder):
        # Later steps were played after the checkpoint that was gone on from; of earlier ones stays what it can see.
        if old.last > saved or old.last <= saved - replay.config.capacity:
            remove(old.path)
    if last > first:
        part: dict[str, Any] = {name: values.numpy() for name, values in replay.part(first, last).items()}
        replace(folder / f"{first:09d}-{last:09d}.npz", lambda file: np.savez_compressed(file, **part))
    return last


def load_replay(folder: Path, replay: Replay) -> None:
    """Fills the replay with the stored steps below `replay.count`."""
    for part in parts(folder, replay.oldest, replay.count):
        replay.load_part(part.first, part.read(replay.size))


def parts(folder: Path, oldest: int, count: int) -> list[ReplayPart]:
    """The parts that hold the steps oldest .. count - 1, in order; a missing one is a GlamkitError, nothing is read."""
    needed, position = [], oldest
    for part in stored_parts(folder):
        if part.first <= position < part.last <= count:
            needed.append(part)
            position = part.last
    if position != count:
        raise GlamkitError(f"the replay in {folder} lacks the steps from {position} on.")
    return needed


def stored_parts(folder: Path) -> list[ReplayPart]:
    """The parts of a replay that are there, oldest first; files of other names, such as a Mac's, are passed over."""
    found = []
    for path in folder.glob("*.npz"):
        if numbers := re.fullmatch(f"({NUMBER})-({NUMBER})", path.stem):
            found.append(ReplayPart(int(numbers[1]), int(numbers[2]), path))
    return sorted(found)


# Snapshots: the agent at a few steps of its training, to look back at. Nothing needs them; they may be deleted. -------


def snapshot_steps(settings: TrainerConfig) -> list[int]:
    """The agent steps after which a snapshot is saved: close together at first, when most changes."""
    first, length = settings.warmup, settings.env_steps - settings.warmup
    found = {first + round(length * (part / SNAPSHOTS) ** 2) for part in range(1, SNAPSHOTS)}
    return sorted(found - {first, settings.env_steps})


def save_snapshot(folder: Path, step: int, agent: Agent) -> None:
    """Writes the agent's weights, rounded, after `step` agent steps."""
    make_folder(folder)
    sweep(folder)
    write(folder, step, {"step": step, "agent": rounded(agent)})


def rounded(agent: Agent) -> dict[str, Tensor]:
    """The weights with matrices in bfloat16, as a GPU multiplies them anyway; others as they are."""
    state = agent.state_dict()
    matrices = [name for name, value in state.items() if value.is_floating_point() and value.dim() > 1]
    return state | {name: state[name].to(torch.bfloat16) for name in matrices}
