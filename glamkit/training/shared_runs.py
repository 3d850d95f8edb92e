"""Runs in one file, opened: each is unpacked, once, into a run folder in the user's cache. `share` writes them.

Reading one runs no code: its entries are JSON, safetensors and plain arrays, and no module is imported because the
file names it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
import safetensors.torch
import torch

from glamkit.config import Config, EnvConfig
from glamkit.errors import GlamkitError, nearest, reason
from glamkit.notebook import require
from glamkit.runs import log
from glamkit.runs.files import read_bytes
from glamkit.runs.folder import SHARED, Run, nearby, resolve
from glamkit.training import checkpoint

FORMAT = 1
SUFFIX = ".glam"
HUB = "hub:"  # before the name of a run on the Hugging Face hub
HUB_FILE = f"run{SUFFIX}"
LARGEST = 512 * 2**20  # bytes of the file and of one entry unpacked; a run of the published size has 45 MB
ENTRIES = {"run.json", "agent.safetensors", "steps.npz", "evaluation.json", "log.jsonl"}


def locate(what: str | Path) -> Run:
    """The run folder behind a folder, a shared file, a shipped run's name or ``hub:OWNER/NAME``.

    A file is unpacked at first; one on the Hugging Face hub is fetched before. What is none is a GlamkitError.
    """
    if str(what).startswith(HUB):
        return Run(unpack(fetch(str(what).removeprefix(HUB))))
    folder, names = resolve(what), shipped()
    if folder.is_dir():
        return Run(folder)
    if file := folder if folder.is_file() else names.get(str(what)):
        return Run(unpack(file))
    if len(Path(what).parts) > 1:
        raise GlamkitError(f"{folder} is no run folder and no shared file{nearby(folder)}.")
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


def fetch(repo: str) -> Path:
    """The shared file of a run on the Hugging Face hub, from its cache where it is there."""
    require("huggingface_hub", "hub")
    try:
        return Path(importlib.import_module("huggingface_hub").hf_hub_download(repo, HUB_FILE)).resolve()
    except Exception as error:  # no network, no such name, no permission: the hub's library has many names for it
        raise GlamkitError(f"{repo!r} cannot be fetched from the hub: {reason(error)}.") from None


def unpack(file: Path) -> Path:
    """The run folder of a shared file in the user's cache; made at the first call, found at later ones.

    What is no shared run, damaged or of a newer glamkit is a GlamkitError.
    """
    data = read_bytes(file.resolve(), LARGEST)  # a link to such a file will do
    root = Path(os.environ.get("GLAMKIT_CACHE") or platformdirs.user_cache_path("glamkit")) / "shared"
    folder = root / f"{file.stem[:40]}-{hashlib.sha256(data).hexdigest()[:16]}"
    if not (folder / SHARED).exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root) as place:
                _fill(Path(place) / "run", file, data)
                (Path(place) / "run").replace(folder)
        except OSError as error:
            if not (folder / SHARED).exists():  # else another process was quicker
                raise GlamkitError(f"{root} cannot be written: {reason(error)}; set GLAMKIT_CACHE.") from None
    game = Run(folder).config().env.game
    module, colon, _ = game.rpartition(":")
    if colon and module not in sys.modules:  # opening a stranger's file must not run code
        raise GlamkitError(
            f"{file} names the game {game!r}, whose module no shared run may import; "
            f"if you trust it, import {module} in Python before."
        )
    return folder


def _fill(folder: Path, file: Path, data: bytes) -> None:
    """Makes the run folder of a shared file; what tells that it is whole comes last."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if {info.filename for info in infos} != ENTRIES or any(info.file_size > LARGEST for info in infos):
                raise ValueError("it does not hold the entries of a shared run, or too large ones")
            entries = {info.filename: archive.read(info) for info in infos}
        about = json.loads(entries["run.json"])
        if about["format"] > FORMAT:
            raise ValueError("it was written by a newer glamkit; update glamkit to read it")
        first, step, config = int(about["first"]), int(about["step"]), Config.from_dict(about["config"])
        if not 0 < step - first <= most_steps(config.env):
            raise ValueError(f"{step - first:,} stored steps are outside 1 to {most_steps(config.env):,}")
        weights = safetensors.torch.load(entries["agent.safetensors"])
        score = dict(json.loads(entries["evaluation.json"]) or {})
    except Exception as error:  # what readers of packed data raise for damaged ones has no end
        raise GlamkitError(f"{file} cannot be opened as a shared run: {reason(error)}.") from None
    run = Run(folder)
    run.begin(config, {})
    part = checkpoint.ReplayPart(first, step, run.replay / f"{first:09d}-{step:09d}.npz")
    part.path.write_bytes(entries["steps.npz"])
    part.read(config.env.image_size)  # refuses a damaged one
    state = {"agent": weights, "step": step, "replay": {"count": step, "generator": torch.Generator().get_state()}}
    checkpoint.write(run.checkpoints, step, state)
    run.provenance_file.write_text(json.dumps(about.get("provenance")))
    if score:
        run.evaluation_file.write_bytes(entries["evaluation.json"])
    run.log_file.write_bytes(entries["log.jsonl"])
    log.read(run.log_file)  # refuses a damaged one
    run.shared_file.write_bytes(entries["run.json"])


def most_steps(config: EnvConfig) -> int:
    """How many stored steps a shared run may hold: so many that they fill `LARGEST` bytes when they are unpacked."""
    return LARGEST // (3 * config.image_size**2)
