"""A run as one file to give away, or to put on the Hugging Face hub; `shared_runs` opens such files."""

from __future__ import annotations

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
from glamkit.runs.files import replace
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


def share(run_dir: str | Path, file: str | Path = "", steps: int = STEPS, rights: str = RIGHTS) -> Path:
    """Writes a run's newest checkpoint as one file that opens everywhere.

    Args:
        run_dir: the run's folder.
        file: where to; empty takes the folder's name with ``.glam`` beside it.
        steps: how many of the newest stored steps travel with it.
        rights: a note on rights, shown to whoever opens the file.

    Returns:
        The file's path.

    Raises:
        GlamkitError: the folder holds no run with a checkpoint, or the file cannot be written.
    """
    steps = coerce("steps", steps, int)
    loaded = open_run(run_dir, snapshots=False)
    run, replay = loaded.run, loaded.replay
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
        "provenance": _without_host(_json(run.provenance_file)),
        "rights": rights,
    }
    entries = {
        "run.json": json.dumps(about, indent=1).encode(),
        "agent.safetensors": safetensors.torch.save(weights),
        "steps.npz": _packed(replay.part(first, replay.count)),
        "evaluation.json": json.dumps(_json(run.evaluation_file)).encode(),
        "log.jsonl": _short_log(run).encode(),
    }
    path = Path(file) if str(file) else run.folder.with_name(run.folder.name + SUFFIX)
    replace(path, lambda stream: _write(stream, entries))
    return path


def upload(run_dir: str | Path, repo: str, private: bool = False) -> str:
    """Puts a run on the Hugging Face hub as a shared file with a model card; ``hub:OWNER/NAME`` opens it.

    Args:
        run_dir: the run's folder.
        repo: ``owner/name`` on the hub; it is made if it is not there.
        private: whether a new one is seen by its owner alone.

    Returns:
        The address of its page.

    Raises:
        GlamkitError: `huggingface_hub` is not installed, nobody is logged in, or the hub refuses.
    """
    hub = require_hub()
    with tempfile.TemporaryDirectory() as place:
        share(run_dir, Path(place) / HUB_FILE)
        (Path(place) / "README.md").write_text(model_card(open_run(run_dir), repo), encoding="utf-8")
        try:
            api = hub.HfApi()
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=place, commit_message="A run of glamkit")
        except Exception as error:  # no network, no login, no such owner: the hub's library has many names for it
            raise GlamkitError(f"{repo!r} cannot be put on the hub: {reason(error)}.") from None
    return str(address)


def model_card(loaded: LoadedRun, repo: str) -> str:
    """The README of a run on the hub, from what the run knows: how it was made, what it scores, how to open it."""
    config, run = loaded.config, loaded.run
    report = _json(run.evaluation_file)
    returns = [entry["episode/return"] for entry in log.entries(run.log_file) if entry.get("kind") == "episode"]
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
    if report:
        scores = [episode["return"] for episode in report["episodes"]]
        lines += [f"| mean return of {len(scores)} episodes | {report['mean_return']:.2f} |"]
        lines += [f"| lowest and highest | {min(scores):g} and {max(scores):g} |"]
        lines += [f"| protocol: {key} | {value} |" for key, value in report["protocol"].items() if value is not None]
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
    entries = log.entries(run.log_file)
    others = [entry for entry in entries if entry.get("kind") != "episode"]
    chosen = {id(entry) for entry in others[:: max(1, -(-len(others) // LINES))]}
    lines = [entry for entry in entries if entry.get("kind") == "episode" or id(entry) in chosen]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return text if len(text) <= LONGEST else text[-LONGEST:].partition("\n")[2]


def _json(path: Path) -> Any:
    """What a JSON file of the run holds, or nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _without_host(provenance: Any) -> Any:
    """Names of people's machines stay with them."""
    for session in (provenance or {}).get("sessions", []):
        session.get("machine", {}).pop("host", None)
    return provenance
