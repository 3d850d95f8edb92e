"""A dream as a small file that replays it exactly.

The file holds the real steps that the dream saw, and every step that was taken in it: a model with the same numbers
dreams it again from those. It is a NumPy archive of plain arrays; opening one runs no code from it.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.models.agent import Agent
from glamkit.runs import files
from glamkit.training.load import LoadedRun
from glamkit.types import Batch

FORMAT = 1
NEAR = 1e-3  # another kind of machine may round otherwise; a dream that went another way is farther off than this


def save(dream: Dream, path: str | Path) -> Path:
    """Writes the dream, at once or not at all; ``.npz`` is added to a name without it.

    Raises:
        GlamkitError: it cannot be written there.
    """
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    rules = list(dict.fromkeys([dream.begun, dream.rules, *(call[3] for call in dream.journal)]))
    head = {
        "format": FORMAT,
        "model": fingerprint(dream.run.agent),
        "run": f"{dream.run.run.folder.name} after {dream.run.step} steps",
        "game": dream.run.config.env.game,
        "start": dream.start,
        "seed": dream.seed,
        "here": dream.here,
        "branches": dream.branches,
        "rules": [asdict(rule) for rule in rules],
        "begun": rules.index(dream.begun),
        "present": rules.index(dream.rules),
    }
    calls = dream.journal
    arrays = {
        "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        "frames": dream.seen.frames.cpu().numpy(),
        "seen_actions": dream.seen.actions.cpu().numpy(),
        "sizes": np.array([len(call[0]) for call in calls], np.int64),
        "rule_numbers": np.array([rules.index(call[3]) for call in calls], np.int64),
        "parents": np.array([parent for call in calls for parent in call[0]], np.int64),
        "actions": np.array([action for call in calls for action in call[1]], np.int64),
        "lucks": np.array([luck for call in calls for luck in call[2]], np.int64),
        "said": predictions(dream),
    }
    return write(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def write(path: Path, fill: Callable[[IO[bytes]], object]) -> Path:
    """Writes a file and the folders it lies in, at once or not at all.

    Raises:
        GlamkitError: it cannot be written there.
    """
    files.make_folder(path.parent)
    files.replace(path, fill)
    return path


def load(path: str | Path, run: LoadedRun) -> Dream:
    """Dreams a saved dream again, on the model that dreamt it.

    Raises:
        GlamkitError: the file is missing or damaged, of another model, or does not come out the same here.
    """
    arrays, head = _read(Path(path))
    if head["model"] != fingerprint(run.agent):
        raise GlamkitError(
            f"{path} was dreamt by another model: {head['run']}, playing {head['game']}; "
            f"open that run and that checkpoint, this is {run.run.folder.name} after {run.step} steps."
        )
    rules = [Rules(**rule) for rule in head["rules"]]
    frames, actions = (torch.from_numpy(arrays[name]).to(run.machine.device) for name in ("frames", "seen_actions"))
    nothing = torch.zeros(actions.shape, device=actions.device)
    seen = Batch(frames, actions, nothing, nothing)
    dream = Dream(run, head["start"], head["seed"], actions.shape[1], rules[head["begun"]], seen)
    ends = np.cumsum(arrays["sizes"])
    for end, size, rule in zip(ends.tolist(), arrays["sizes"].tolist(), arrays["rule_numbers"].tolist(), strict=True):
        dream.rules = rules[rule]
        dream.grow(*(arrays[name][end - size : end].tolist() for name in ("parents", "actions", "lucks")))
    dream.rules = rules[head["present"]]
    for end in [*head.get("branches", []), head["here"]]:  # older files name no branches
        dream.go(end)
    here = predictions(dream)
    if here.shape != arrays["said"].shape or not np.allclose(here, arrays["said"], NEAR, NEAR):
        raise GlamkitError(f"{path} does not come out the same on this machine, whose arithmetic rounds otherwise.")
    return dream


def predictions(dream: Dream) -> np.ndarray:
    """What the model predicted in every node, by which a replay is checked: reward, termination, value."""
    return np.array([(node.reward, node.ended, node.value) for node in dream.nodes], np.float32)


def fingerprint(agent: Agent) -> str:
    """A short text that differs between agents whose numbers differ."""
    digest = hashlib.sha256()
    for name, value in agent.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(arrays["head"].tobytes())
        number = head["format"]
    except FileNotFoundError:
        raise GlamkitError(f"there is no saved dream {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error, zipfile.BadZipFile):
        raise GlamkitError(f"{path} is no saved dream, or a damaged one.") from None
    if number != FORMAT:
        raise GlamkitError(f"{path} has format {number}; this glamkit reads {FORMAT}, update it.")
    return arrays, head
