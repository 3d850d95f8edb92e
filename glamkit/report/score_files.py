"""The score of one finished run as a JSON file, small enough to be kept beside a paper or in a repository.

    glamkit report runs/laptop --save notebooks/results/laptop

writes ``<game>-seed<n>.json`` of each finished run, and `glamkit report` reads such files as it reads run folders:

    game              its plain name, such as Pong
    seed              of training
    preset            the preset's name
    config            all settings
    env_steps         agent steps of training
    curve             [step, return] of each episode of training
    episodes          of the evaluation, whole ones, each with its `return` and `length` in agent steps
    mean_return       of these episodes
    human_normalised  0 is random play and 1 a human; null for a game without a known human score
    protocol          how the evaluation was made
    hours             in the training loop, by the log's own times; evaluations and pauses between sessions are no part
    machine           what it was trained on; of several, the one that made most steps
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from glamkit.config import Config, EvaluationConfig, differences, game_folder
from glamkit.envs.atari100k import game_of, normalise
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runs.files import make_folder, named, read_json, replace_text
from glamkit.runs.folder import Run, resolve
from glamkit.runs.provenance import sessions
from glamkit.sweeps.summary import VariantSummary, of_log

FIELDS = (
    "game", "seed", "preset", "config", "env_steps", "curve", "episodes", "mean_return", "human_normalised",
    "protocol", "hours", "machine",
)  # fmt: skip
MACHINE = ("device_name", "device", "system", "cores", "threads", "precision", "compiled", "torch", "python")
WHOLE = EvaluationConfig().episode_steps  # only what was cut before this is not whole: it is ALE's own rule


def score(run: Run, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of a finished run holds, by the report of its evaluation; an error says why there is none."""
    check(run)
    config, cut = run.config(), sum(episode["cut"] for episode in report["episodes"])
    mean = float(np.mean(returns_of(report, config)))
    if cut and report["protocol"]["episode_steps"] < WHOLE:
        raise GlamkitError(
            f"{run.folder}: {cut} of {len(report['episodes'])} evaluation episodes were cut; whole ones are played by: "
            f"glamkit evaluate {run.folder} --episode-steps {WHOLE} --save FILE"
        )
    machine = max(sessions(run.provenance_file), key=lambda entry: entry["step"] - entry["first_step"])["machine"]
    trained = of_log(log.read(run.log_file), config)
    return {
        **derived(config, mean),
        "config": asdict(config),
        "curve": [[int(step), float(value)] for step, value in zip(trained.steps, trained.returns, strict=True)],
        "episodes": [{"return": episode["return"], "length": episode["length"]} for episode in report["episodes"]],
        "mean_return": mean,
        "protocol": dict(report["protocol"]),
        "hours": round(trained.seconds / 3600, 3),
        "machine": {key: machine[key] for key in MACHINE if key in machine},
    }


def check(run: Run) -> None:
    """Refuses a shared run, and one that does not say what it was trained on: no score file can be made of them."""
    if run.shared:
        raise GlamkitError(f"{run.folder} is a shared run, whose log is not whole; use the folder it was made from.")
    if not sessions(run.provenance_file):
        raise GlamkitError(f"{run.provenance_file} does not say what machine the run was trained on.")


def derived(config: Config, mean: float) -> dict[str, Any]:
    """The fields that follow from others."""
    game = game_of(config.env.game)
    return {
        "game": game or config.env.game,
        "seed": config.trainer.seed,
        "preset": config.preset,
        "env_steps": config.trainer.env_steps,
        "human_normalised": float(normalise({game: np.array(mean)})[game]) if game else None,
    }


def returns_of(report: Any, config: Config) -> list[float]:
    """The returns of an evaluation's episodes, checked; null stands in strict JSON for what is not finite."""
    try:
        values = [episode["return"] for episode in report["episodes"]]
        returns = [math.nan if value is None else float(value) for value in values]
        bad = sum(not math.isfinite(value) for value in returns)
        if not returns:
            raise GlamkitError("its evaluation holds no episodes.")
        if bad:
            raise GlamkitError(f"{bad} of its {len(returns)} returns are not finite numbers.")
        step, mean, _ = int(report["step"]), float(report["mean_return"]), dict(report["protocol"])
    except (LookupError, TypeError, ValueError) as error:
        raise GlamkitError(f"its evaluation is not of the known form ({type(error).__name__}: {error}).") from None
    if not math.isclose(mean, np.mean(returns), rel_tol=1e-6, abs_tol=1e-6):
        raise GlamkitError(f"its mean return {mean:g} is not the mean of its episodes, {np.mean(returns):g}.")
    if step != config.trainer.env_steps:
        raise GlamkitError(f"it was evaluated at step {step:,} of {config.trainer.env_steps:,}, before its end.")
    return returns


def save(run_dir: str | Path, file: str | Path, report: Mapping[str, Any] | None = None) -> Path:
    """Writes the score file of a finished run; the folder it goes to is made if need be.

    Args:
        run_dir: the run folder.
        file: where to; a folder gets ``<game>-seed<n>.json``.
        report: of an evaluation; None takes the run's own, ``evaluation.json``.

    Raises:
        GlamkitError: as in `score`; or the file cannot be written, or holds the score of another run.
    """
    run = Run(resolve(run_dir))
    data = score(run, read_json(run.evaluation_file) if report is None else report)
    place = place_of(run, file, data["env_steps"])
    lines = [f" {json.dumps(key)}: {json.dumps(data[key], allow_nan=False)}" for key in FIELDS]  # one for each field
    replace_text(place, "{\n" + ",\n".join(lines) + "\n}\n")
    return place


def place_of(run: Run, file: str | Path, step: int) -> Path:
    """Where `save` writes the score of a step; its folder is made, so errors come before an hour of games."""
    check(run)
    config, place = run.config(), Path(file)
    if step != (last := config.trainer.env_steps):
        raise GlamkitError(f"{run.folder}: a score file is of the last step, {last:,}, not of {step:,}.")
    if place.suffix != ".json":
        place /= name_of(config)
    if place.exists() and (changed := differences(Config.from_dict(read(place)["config"]), config)):
        raise GlamkitError(f"{place} holds the score of a run with another {', '.join(changed)}; name another file.")
    make_folder(place.parent)
    return place


def name_of(config: Config) -> str:
    """``Pong-seed1.json``."""
    return f"{game_of(config.env.game) or game_folder(config.env.game)}-seed{config.trainer.seed}.json"


def read(file: Path) -> dict[str, Any]:
    """A score file, checked: its fields are there, and what can be computed from others comes out."""
    data = read_json(file)
    if not isinstance(data, dict) or set(data) != set(FIELDS):
        odd = sorted(set(data) ^ set(FIELDS)) if isinstance(data, dict) else FIELDS
        raise GlamkitError(f"{file} is no score file of a run: missing or unknown is {', '.join(odd)}.")
    with named(file):
        config = Config.from_dict(data["config"])
        returns_of(data | {"step": data["env_steps"]}, config)
    try:
        wrong = contradictions(data, config)
    except (LookupError, TypeError, ValueError) as error:
        raise GlamkitError(f"{file} is damaged ({type(error).__name__}: {error}).") from None
    if wrong:
        raise GlamkitError(f"{file} contradicts itself: {', '.join(wrong)} cannot be so beside its other fields.")
    return data


def contradictions(data: Mapping[str, Any], config: Config) -> list[str]:
    """The fields of a score file that cannot be so beside its others."""
    steps = [step for step, value in data["curve"] if math.isfinite(value)]
    whole = len(steps) == len(data["curve"]) and steps == sorted(steps)
    lengths = [episode["length"] for episode in data["episodes"]]
    checks = {
        **{key: data[key] == value for key, value in derived(config, data["mean_return"]).items()},
        "curve": whole and max(steps, default=0) <= data["env_steps"],
        "episodes": len(lengths) == data["protocol"]["episodes"] and min(lengths) >= 1,
        "hours": 0 <= data["hours"] < math.inf,
        "machine": bool(data["machine"]["device_name"]),
    }
    return [name for name, right in checks.items() if not right]


def training(file: Path) -> VariantSummary:
    """The learning curve that a score file holds."""
    data = read(file)
    lines = [{"step": step, "episode/return": value} for step, value in data["curve"]]
    trained = of_log(lines, Config.from_dict(data["config"]))
    return trained._replace(score=data["mean_return"], seconds=3600 * data["hours"])
