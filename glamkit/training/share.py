"""A run as one file to give away, or to put on the Hugging Face hub; `shared_runs` opens such files."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from glamkit.config import coerce
from glamkit.errors import GlamkitError, reason
from glamkit.notebook import require
from glamkit.runs import log
from glamkit.runs.files import make_folder, read_json, replace
from glamkit.runs.folder import Run
from glamkit.runs.provenance import sessions
from glamkit.training.checkpoint import rounded
from glamkit.training.evaluation import in_words
from glamkit.training.load import LoadedRun, open_run
from glamkit.training.shared_runs import FORMAT, HUB_FILE, SUFFIX, most_steps

STEPS = 300  # stored steps that travel with a run, to start from
RIGHTS = (
    "Weights and stored pictures were made by playing the game named in the config. Atari games and their pictures "
    "belong to their owners; share such files for research only."
)
CARD = """\
---
library_name: glamkit
tags: [reinforcement-learning, world-model, atari, mamba]
---
# GLAM on {game}

A world model and its policy, trained by [GLAM](https://arxiv.org/abs/2501.11949) with glamkit: preset `{preset}`,
seed {seed}, {step:,} of {steps:,} agent steps{score}.

```python
import glamkit

run = glamkit.open_run("hub:{repo}")
```

Its settings and the protocol of its score are in the run: `run.config`, and `evaluation.json` in `run.run.folder`.

{rights}
"""


def share(run_dir: str | Path, file: str | Path = "", steps: int = STEPS) -> Path:
    """Writes a run's newest checkpoint as one file that opens everywhere.

    Args:
        run_dir: the run's folder.
        file: where to, made if need be; a folder, or a name without ``.glam``, gets a file of the run's name. Empty is
            the folder that the run lies in; of a shared run, the current one.
        steps: how many of the newest stored steps travel with it.

    Raises:
        GlamkitError: the folder holds no run with a checkpoint, a file of it is damaged, or the file cannot be written.
    """
    loaded = open_run(run_dir)
    beside = Path() if loaded.run.shared else loaded.run.folder.parent  # a shared run's folder lies in a cache
    place = Path(file) if str(file) else beside
    path = place if place.suffix == SUFFIX and not place.is_dir() else place / f"{loaded.run.name}{SUFFIX}"
    pack(loaded, path, steps)
    return path


def pack(loaded: LoadedRun, path: Path, steps: int) -> None:
    """Writes a run, opened at a checkpoint, as one file; arguments and errors as in `share`."""
    steps, run, replay, config = coerce("steps", steps, int), loaded.run, loaded.replay, loaded.config
    least, most = config.replay.sequence_length + config.imagination.context_length, most_steps(config.env)
    if not least <= steps <= most:
        raise GlamkitError(f"steps = {steps} is outside {least} to {most}, enough to look at and few enough to open.")
    first = max(replay.oldest, replay.count - steps)
    made = sessions(run.provenance_file)
    for session in made:
        if isinstance(session.get("machine"), dict):
            session["machine"].pop("host", None)  # names of people's machines stay with them
    about = {
        "format": FORMAT,
        "step": loaded.step,
        "first": first,
        "config": asdict(config),
        "provenance": {"sessions": made},
        "rights": RIGHTS,
    }
    stored = io.BytesIO()
    part: dict[str, Any] = {name: values.numpy() for name, values in replay.part(first, replay.count).items()}
    np.savez_compressed(stored, **part)
    weights = {name: value.cpu().contiguous() for name, value in rounded(loaded.agent).items()}
    entries = {
        "run.json": json.dumps(about, indent=1).encode(),
        "agent.safetensors": safetensors.torch.save(weights),
        "steps.npz": stored.getvalue(),
        "evaluation.json": json.dumps(_score(run)).encode(),
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log.read(run.log_file)).encode(),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # of no time: the same run, same bytes
    make_folder(path.parent)
    replace(path, lambda file: file.write(packed.getbuffer()))


def upload(run_dir: str | Path, repo: str, steps: int = STEPS) -> str:
    """Puts a run on the Hugging Face hub as a shared file with a model card; returns the address of its page.

    The `repo` ``owner/name`` is made if it is not there; ``hub:owner/name`` opens the run. Errors are those of `share`,
    and of the hub: `huggingface_hub` is not installed, nobody is logged in, or it refuses.
    """
    require("huggingface_hub", "hub")
    loaded = open_run(run_dir)
    with tempfile.TemporaryDirectory() as place:
        pack(loaded, Path(place) / HUB_FILE, steps)
        (Path(place) / "README.md").write_text(model_card(loaded, repo), encoding="utf-8")
        try:
            api = importlib.import_module("huggingface_hub").HfApi()
            address = api.create_repo(repo, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=place, commit_message="A run of glamkit")
        except Exception as error:  # no network, no login, no such owner: the hub's library has many names for it
            raise GlamkitError(f"{repo!r} cannot be put on the hub: {reason(error)}.") from None
    return str(address)


def model_card(loaded: LoadedRun, repo: str) -> str:
    """The README of a run on the hub: how it was made, what it scores, how to open it."""
    settings, score = loaded.config.trainer, ""
    with contextlib.suppress(LookupError, TypeError, ValueError):  # no score, or a damaged one
        score = f"; {in_words(_score(loaded.run) or {})}"
    about = {"game": loaded.config.env.game, "preset": loaded.config.preset, "seed": settings.seed}
    return CARD.format(**about, step=loaded.step, steps=settings.env_steps, score=score, repo=repo, rights=RIGHTS)


def _score(run: Run) -> dict[str, Any] | None:
    """The run's evaluation.json; None where there is none, or something else in it."""
    value = read_json(run.evaluation_file) if run.evaluation_file.exists() else None
    return value if isinstance(value, dict) else None
