"""Runs in one file, opened: whoever only looks needs nothing else. `share` writes them.

A shared run is unpacked, once, into a run folder in the user's cache; so everything that looks into a folder looks into
a file too. Reading one runs no code: its entries are JSON, safetensors and plain arrays of known sizes, and no module
is imported because the file names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import platformdirs
import safetensors.torch
import torch

from glamkit.config import Config, EnvConfig
from glamkit.errors import GlamkitError, install, nearest, reason
from glamkit.runs import log
from glamkit.runs.files import named, read_bytes
from glamkit.runs.folder import SHARED, Run, resolve
from glamkit.training import checkpoint

FORMAT = 1
SUFFIX = ".glam"
HUB = "hub:"  # before the name of a run on the Hugging Face hub
HUB_FILE = f"run{SUFFIX}"
LARGEST = 512 * 2**20  # bytes of the file, of one entry, and of the stored steps unpacked; the published size has 45 MB
LONGEST = 64 * 2**20  # bytes of an entry of text: read, they take many times as much memory
# The entries of the zip file, each with its most bytes.
ENTRIES = {
    "run.json": LONGEST,  # format, config, step, provenance, rights
    "agent.safetensors": LARGEST,  # the agent's weights, matrices in bfloat16
    "steps.npz": LARGEST,  # the newest stored steps, as a part of the replay
    "evaluation.json": LONGEST,  # the final score with its protocol, or null
    "log.jsonl": LONGEST,  # the returns in training and some lines of the log
}


def locate(what: str | Path) -> Run:
    """The run folder behind a folder, a shared file, a shipped run's name or ``hub:OWNER/NAME``.

    A file is unpacked at first; one on the Hugging Face hub is fetched before.

    Raises:
        GlamkitError: it is none of these, or the file is damaged or of a newer glamkit.
    """
    if str(what).startswith(HUB):
        return Run(unpack(fetch(str(what).removeprefix(HUB))))
    folder, names = resolve(what), shipped()
    if folder.is_dir():
        return Run(folder)
    if folder.is_file():
        return Run(unpack(folder))
    if str(what) in names:
        return Run(unpack(names[str(what)]))
    if len(Path(what).parts) > 1:
        raise GlamkitError(f"{folder} is no run folder and no shared file.")
    raise GlamkitError(f"{str(what)!r} is no run folder, shared file or shipped run; {nearest(what, names)}")


def unpacked(what: str | Path) -> Path:
    """The run folder behind a shared file, a shipped run's name or ``hub:OWNER/NAME``; else the path as it is."""
    path = Path(what)
    shared = path.suffix == SUFFIX or str(what).startswith(HUB) or (str(what) in shipped() and not path.exists())
    return locate(what).folder if shared and not path.is_dir() else path


def shipped() -> dict[str, Path]:
    """The runs that come with the package: their names and files."""
    folder = Path(__file__).parents[1] / "runs" / "shipped"
    return {file.stem: file for file in sorted(folder.glob(f"*{SUFFIX}"))}


def require_hub() -> Any:
    """The library of the Hugging Face hub; where that extra is not installed a GlamkitError says how."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise GlamkitError(f"the hub needs huggingface_hub, which is not installed: {install('hub')}.") from None


def fetch(repo: str) -> Path:
    """The shared file of a run on the Hugging Face hub, from its cache where it is there.

    Raises:
        GlamkitError: `huggingface_hub` is not installed, or the hub has no such run or cannot be reached.
    """
    hub = require_hub()
    try:
        return Path(hub.hf_hub_download(repo, HUB_FILE)).resolve()
    except Exception as error:  # no network, no such name, no permission: the hub's library has many names for it
        raise GlamkitError(f"{repo!r} cannot be fetched from the hub: {reason(error)}.") from None


def unpack(file: Path) -> Path:
    """The run folder of a shared file in the user's cache; made at the first call, found at later ones.

    Raises:
        GlamkitError: the file is no shared run, is damaged, or was written by a newer glamkit.
    """
    data = read_bytes(file.resolve(), LARGEST)  # a link to such a file will do
    root = Path(os.environ.get("GLAMKIT_CACHE") or platformdirs.user_cache_path("glamkit")) / "shared"
    folder = root / f"{file.stem[:40]}-{hashlib.sha256(data).hexdigest()[:16]}"
    if (folder / SHARED).exists():
        _trusted(file, Run(folder).config())
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as place:
            made = Path(place) / "run"
            _fill(made, file, data)
            if folder.exists() and not (folder / SHARED).exists():  # something cleaned the cache by half
                shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    except OSError as error:
        if (folder / SHARED).exists():  # another process was quicker
            return folder
        raise GlamkitError(f"{root} cannot be written: {reason(error)}; set GLAMKIT_CACHE to another folder.") from None
    return folder


def _fill(folder: Path, file: Path, data: bytes) -> None:
    """Makes the run folder of a shared file; what tells that it is whole comes last."""
    entries = _entries(file, data)
    about, config = _about(file, entries)
    _trusted(file, config)
    run, step, first = Run(folder), about["step"], about["first"]
    folder.mkdir()
    run.begin(config, {})
    part = checkpoint.ReplayPart(first, step, run.replay / f"{first:09d}-{step:09d}.npz")
    part.path.write_bytes(entries["steps.npz"])
    part.read(config.env.image_size)  # refuses a damaged one
    try:
        weights = safetensors.torch.load(entries["agent.safetensors"])
    except Exception as error:  # a stranger's file can be damaged in any way
        raise GlamkitError(f"{file} is damaged: its weights cannot be read ({reason(error)}).") from None
    state = {"agent": weights, "step": step, "replay": {"count": step, "generator": torch.Generator().get_state()}}
    checkpoint.write(run.checkpoints, step, state)
    run.provenance_file.write_text(json.dumps(about["provenance"]))
    if _table(file, entries, "evaluation.json"):
        run.evaluation_file.write_bytes(entries["evaluation.json"])
    run.log_file.write_bytes(entries["log.jsonl"])
    log.read(run.log_file)  # refuses a damaged one
    run.shared_file.write_bytes(entries["run.json"])


def _entries(file: Path, data: bytes) -> dict[str, bytes]:
    """The entries, none larger than it says and none larger than `ENTRIES` allows."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sorted(info.filename for info in infos) != sorted(ENTRIES):
                raise ValueError("it does not hold the entries of a shared run")
            if any(info.file_size > ENTRIES[info.filename] for info in infos):
                raise ValueError("an entry is too large")
            return {info.filename: archive.read(info) for info in infos}
    except Exception as error:  # what readers of packed data raise for damaged ones has no end
        raise GlamkitError(f"{file} is no shared run, or a damaged one ({reason(error)}).") from None


def _about(file: Path, entries: Mapping[str, bytes]) -> tuple[dict[str, Any], Config]:
    match about := _table(file, entries, "run.json"):
        case {"format": int(number)} if number > FORMAT:
            raise GlamkitError(f"{file} was written by a newer glamkit; update glamkit to read it.")
        case {"first": int(first), "step": int(step), "config": table, "provenance": _, "rights": str()} if (
            0 <= first < step < 10**9
        ):
            with named(file):
                config = Config.from_dict(table)
        case _:
            raise GlamkitError(f"{file} is no shared run of glamkit, or a damaged one: see its run.json.")
    if step - first > most_steps(config.env):
        raise GlamkitError(f"{file} is damaged: {step - first:,} stored steps are more than a shared run may hold.")
    return about, config


def _table(file: Path, entries: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The table in an entry of JSON; empty where it says null."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(entries[name]), (dict, NoneType)):
            return value or {}
    raise GlamkitError(f"{file} is damaged: its {name} is no table.")


def _trusted(file: Path, config: Config) -> None:
    """Refuses a game whose module nobody has imported yet: opening a stranger's file must not run code."""
    module, colon, _ = config.env.game.rpartition(":")
    if colon and module not in sys.modules:
        raise GlamkitError(
            f"{file} names the game {config.env.game!r}, whose module no shared run may import; "
            f"if you trust it, import {module} in Python before."
        )


def most_steps(config: EnvConfig) -> int:
    """How many stored steps a shared run may hold: so many that they fill `LARGEST` bytes when they are unpacked."""
    return LARGEST // (3 * config.image_size**2)
