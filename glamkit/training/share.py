"""A run as one file to give away, or to put on the Hugging Face hub; `shared_runs` opens such files."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from glamkit.config import PRESETS, coerce, differences, preset
from glamkit.errors import GlamkitError, reason
from glamkit.runs import log
from glamkit.runs.files import read_json, replace
from glamkit.runs.folder import Run
from glamkit.training import checkpoint
from glamkit.training.load import LoadedRun, open_run
from glamkit.training.shared_runs import FORMAT, HUB_FILE, LONGEST, SUFFIX, most_steps, require_hub
from glamkit.training.snapshots import rounded

STEPS = 300  # stored steps that travel with a run, to start from
LINES = 200  # of the log that travel, besides the episodes
RIGHTS = (
    "Weights and stored pictures were made by playing the game named in the config. Atari games and their pictures "
    "belong to their owners; share such files for research only."
)


def share(run_dir: str | Path, file: str | Path = "", steps: int = STEPS) -> Path:
    """Writes a run's newest checkpoint as one file that opens everywhere.

    Args:
        run_dir: the run's folder.
        file: where to; empty takes the folder's name with ``.glam`` beside it; of a shared run, in the current folder.
        steps: how many of the newest stored steps travel with it.

    Returns:
        The file's path.

    Raises:
        GlamkitError: the folder holds no run with a checkpoint, a file of it is damaged, or the file cannot be written.
    """
    loaded = open_run(run_dir, snapshots=False)
    folder = loaded.run.folder
    place = Path() if loaded.run.shared else folder.parent  # a shared run's folder lies in a cache
    path = Path(file) if str(file) else place / (folder.name + SUFFIX)
    pack(loaded, path, steps)
    return path


def pack(loaded: LoadedRun, path: Path, steps: int) -> None:
    """Writes a run, opened at a checkpoint, as one file; arguments and errors as in `share`."""
    steps, run, replay = coerce("steps", steps, int), loaded.run, loaded.replay
    least = loaded.config.replay.sequence_length + loaded.config.imagination.context_length
    if steps < least:
        raise GlamkitError(f"steps = {steps} is too few to look at; use at least {least}.")
    if steps > (most := most_steps(loaded.config.env)):
        raise GlamkitError(f"steps = {steps} is too many for one file; use at most {most}.")
    first = max(replay.oldest, replay.count - steps)
    weights = {name: rounded(value).cpu().contiguous() for name, value in loaded.agent.state_dict().items()}
    about = {
        "format": FORMAT,
        "step": loaded.step,
        "first": first,
        "config": asdict(loaded.config),
        "provenance": _without_host(_table(run.provenance_file)),
        "rights": RIGHTS,
    }
    entries = {
        "run.json": json.dumps(about, indent=1).encode(),
        "agent.safetensors": safetensors.torch.save(weights),
        "steps.npz": _packed(replay.part(first, replay.count)),
        "evaluation.json": json.dumps(_table(run.evaluation_file)).encode(),
        "log.jsonl": _short_log(run).encode(),
    }
    replace(path, lambda stream: _write(stream, entries))


def upload(run_dir: str | Path, repo: str, steps: int = STEPS) -> str:
    """Puts a run on the Hugging Face hub as a shared file with a model card; ``hub:OWNER/NAME`` opens it.

    Args:
        run_dir: the run's folder.
        repo: ``owner/name`` on the hub; it is made if it is not there.
        steps: how many of the newest stored steps travel with it.

    Returns:
        The address of its page.

    Raises:
        GlamkitError: `huggingface_hub` is not installed, nobody is logged in, or the hub refuses; or as in `share`.
    """
    hub, loaded = require_hub(), open_run(run_dir, snapshots=False)
    with tempfile.TemporaryDirectory() as place:
        pack(loaded, Path(place) / HUB_FILE, steps)
        (Path(place) / "README.md").write_text(model_card(loaded, repo), encoding="utf-8")
        try:
            api = hub.HfApi()
            address = api.create_repo(repo, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=place, commit_message="A run of glamkit")
        except Exception as error:  # no network, no login, no such owner: the hub's library has many names for it
            raise GlamkitError(f"{repo!r} cannot be put on the hub: {reason(error)}.") from None
    return str(address)


def model_card(loaded: LoadedRun, repo: str) -> str:
    """The README of a run on the hub, from what the run knows: how it was made, what it scores, how to open it."""
    config, run = loaded.config, loaded.run
    report = _table(run.evaluation_file) or {}
    episodes = [entry for entry in log.read(run.log_file) if entry["kind"] == "episode"]
    returns = [entry["episode/return"] for entry in episodes if isinstance(entry.get("episode/return"), (int, float))]
    lines = [
        "---",
        "library_name: glamkit",
        "tags: [reinforcement-learning, world-model, atari, mamba]",
        "---",
        f"# GLAM on {config.env.game}",
        "",
        "A world model and its policy, trained by [GLAM](https://arxiv.org/abs/2501.11949) with glamkit.",
        "",
        "| what | value |",
        "|---|---|",
        f"| preset | {config.preset} |",
        f"| seed | {config.trainer.seed} |",
        f"| agent steps | {loaded.step:,} of {config.trainer.env_steps:,} |",
    ]
    changed = differences(preset(config.preset), config) if config.preset in PRESETS else {}
    named = ("env.game", "trainer.seed", "trainer.env_steps")
    lines += [f"| {key} | {value} |" for key, (_, value) in changed.items() if key not in named]
    with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError):  # no report, or a damaged one
        scores = [float(episode["return"]) for episode in report["episodes"]]
        score = [f"| mean return of {len(scores)} episodes | {float(report['mean_return']):.2f} |"]
        score += [f"| lowest and highest | {min(scores):g} and {max(scores):g} |"]
        score += [f"| protocol: {key} | {value} |" for key, value in report["protocol"].items() if value is not None]
        lines += score
    if returns:
        parts = [part for part in np.array_split(np.array(returns), min(10, len(returns))) if len(part)]
        curve = ", ".join(f"{part.mean():.2f}" for part in parts)
        lines += ["", f"Mean returns of {len(returns)} training episodes, in {len(parts)} parts: {curve}."]
    lines += ["", "```python", "import glamkit", "", f'run = glamkit.open_run("hub:{repo}")', "```", "", RIGHTS, ""]
    return "\n".join(lines)


def _write(stream: Any, entries: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _packed(part: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    checkpoint.write_part(buffer, part)
    return buffer.getvalue()


def _short_log(run: Run) -> str:
    """All episodes, or the newest that a shared file can hold, and some of the log's other lines."""
    entries = log.read(run.log_file)
    others = [entry for entry in entries if entry.get("kind") != "episode"]
    chosen = {id(entry) for entry in others[:: max(1, -(-len(others) // LINES))]}
    lines = [entry for entry in entries if entry.get("kind") == "episode" or id(entry) in chosen]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return text if len(text) <= LONGEST else text[-LONGEST:].partition("\n")[2]


def _table(path: Path) -> dict[str, Any] | None:
    """The table in a JSON file of the run; None where there is no file, or something else in it."""
    value = read_json(path) if path.exists() else None
    return value if isinstance(value, dict) else None


def _without_host(provenance: dict[str, Any] | None) -> dict[str, Any] | None:
    """Names of people's machines stay with them."""
    sessions = (provenance or {}).get("sessions")
    for session in sessions if isinstance(sessions, list) else []:
        if isinstance(session, dict) and isinstance(session.get("machine"), dict):
            session["machine"].pop("host", None)
    return provenance
