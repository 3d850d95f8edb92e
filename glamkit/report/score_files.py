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
from glamkit.runs.files import make_folder, read_json, replace_text
from glamkit.runs.folder import Run
from glamkit.runs.provenance import sessions
from glamkit.sweeps.summary import VariantSummary, of_log

FIELDS = (
    "game", "seed", "preset", "config", "env_steps", "curve", "episodes", "mean_return", "human_normalised",
    "protocol", "hours", "machine",
)  # fmt: skip
MACHINE = ("device_name", "device", "system", "cores", "threads", "precision", "compiled", "torch", "python")
WHOLE = EvaluationConfig().episode_steps  # only what was cut before this is not whole: it is ALE's own rule


def score(run: Run, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of a finished run holds.

    Args:
        run: its folder.
        report: of its evaluation, as `glamkit.training.evaluation` returns it.

    Raises:
        GlamkitError: the run was evaluated before its end or not by whole episodes, or `check` refuses it.
    """
    check(run)
    config = run.config()
    game, cut = game_of(config.env.game), [bool(episode["cut"]) for episode in report["episodes"]]
    if report["step"] != config.trainer.env_steps:
        raise GlamkitError(f"{run.folder} was evaluated at step {report['step']:,}, before its end.")
    if any(cut) and report["protocol"]["episode_steps"] < WHOLE:
        raise GlamkitError(
            f"{run.folder}: {sum(cut)} of {len(cut)} evaluation episodes were cut; whole ones are played by: "
            f"glamkit evaluate {run.folder} --episode-steps {WHOLE} --save FILE"
        )
    machine = max(sessions(run.provenance_file), key=lambda entry: entry["step"] - entry["first_step"])["machine"]
    trained = of_log(log.read(run.log_file), config)
    mean = float(np.mean([episode["return"] for episode in report["episodes"]]))
    return {
        "game": game or config.env.game,
        "seed": config.trainer.seed,
        "preset": config.preset,
        "config": asdict(config),
        "env_steps": config.trainer.env_steps,
        "curve": [[int(step), float(value)] for step, value in zip(trained.steps, trained.returns, strict=True)],
        "episodes": [{"return": episode["return"], "length": episode["length"]} for episode in report["episodes"]],
        "mean_return": mean,
        "human_normalised": human_normalised(game, mean),
        "protocol": dict(report["protocol"]),
        "hours": round(trained.seconds / 3600, 3),
        "machine": {key: machine[key] for key in MACHINE if key in machine},
    }


def check(run: Run) -> None:
    """Refuses a run of which no score file can be made.

    Raises:
        GlamkitError: it is a shared run, or does not say what it was trained on.
    """
    if run.shared:
        raise GlamkitError(f"{run.folder} is a shared run, whose log is not whole; use the folder it was made from.")
    if not sessions(run.provenance_file):
        raise GlamkitError(f"{run.provenance_file} does not say what machine the run was trained on.")


def human_normalised(game: str | None, value: float) -> float | None:
    """0 is random play and 1 a human; None of a game that is not among the 26."""
    return None if game is None else float(normalise({game: np.array([value])})[game][0])


def save(run_dir: str | Path, file: str | Path, report: Mapping[str, Any] | None = None) -> Path:
    """Writes the score file of a finished run; the folder it goes to is made if need be.

    Args:
        run_dir: the run folder.
        file: where to; a folder gets ``<game>-seed<n>.json``.
        report: of an evaluation; None takes the run's own, ``evaluation.json``.

    Raises:
        GlamkitError: as in `score`; or the file cannot be written, or holds the score of another run.
    """
    run = Run(run_dir)
    data = score(run, read_json(run.evaluation_file) if report is None else report)
    place = Path(file)
    if place.suffix != ".json":
        place /= name_of(run.config())
    write(data, place)
    return place


def name_of(config: Config) -> str:
    """``Pong-seed1.json``."""
    plain = game_of(config.env.game) or game_folder(config.env.game)
    return f"{plain}-seed{config.trainer.seed}.json"


def write(data: Mapping[str, Any], file: Path) -> None:
    """Writes what `score` returned, one line for each field."""
    if file.exists() and (there := Config.from_dict(read(file)["config"])) != Config.from_dict(data["config"]):
        changed = ", ".join(differences(there, Config.from_dict(data["config"])))
        raise GlamkitError(f"{file} holds the score of a run with another {changed}; name another file.")
    make_folder(file.parent)
    lines = [f" {json.dumps(key)}: {json.dumps(data[key], allow_nan=False)}" for key in FIELDS]
    replace_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def read(file: Path) -> dict[str, Any]:
    """A score file, checked: its fields are there, and what can be computed from others comes out.

    Raises:
        GlamkitError: it cannot be read, or a field is missing, unknown or wrong.
    """
    data = read_json(file)
    if not isinstance(data, dict) or set(data) != set(FIELDS):
        odd = sorted(set(data) ^ set(FIELDS)) if isinstance(data, dict) else list(FIELDS)
        raise GlamkitError(f"{file} is no score file of a run: missing or unknown is {', '.join(map(str, odd))}.")
    try:
        for problem in faults(data):
            raise GlamkitError(f"{file} contradicts itself: {problem}.")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GlamkitError(f"{file} is damaged ({type(error).__name__}: {error}).") from None
    return data


def faults(data: Mapping[str, Any]) -> list[str]:
    """What in a score file does not fit together."""
    config = Config.from_dict(data["config"])
    game = game_of(config.env.game)
    returns = [float(episode["return"]) for episode in data["episodes"]]
    lengths = [int(episode["length"]) for episode in data["episodes"]]
    steps = [step for step, _ in data["curve"]]
    normal = human_normalised(game, float(data["mean_return"]))
    own = data["human_normalised"]
    known = normal is None if own is None else normal is not None and math.isclose(own, normal, abs_tol=1e-9)
    checks = {
        "it has no episodes": not returns or min(lengths) < 1,
        "a number is not finite": not all(map(math.isfinite, [*returns, data["hours"]])),
        "mean_return is not the mean of its episodes": not returns
        or not math.isclose(data["mean_return"], float(np.mean(returns)), rel_tol=1e-9, abs_tol=1e-9),
        "game is not the config's": data["game"] != (game or config.env.game),
        "seed is not the config's": data["seed"] != config.trainer.seed,
        "preset is not the config's": data["preset"] != config.preset,
        "env_steps is not the config's": data["env_steps"] != config.trainer.env_steps,
        "human_normalised does not come out": not known,
        "the curve's steps are not in order": steps != sorted(steps) or steps[-1:] > [data["env_steps"]],
        "it took no time": not data["hours"] >= 0,
        "the number of episodes is not the protocol's": len(returns) != data["protocol"]["episodes"],
        "the machine has no name": not data["machine"]["device_name"],
    }
    return [words for words, wrong in checks.items() if wrong]


def training(data: Mapping[str, Any]) -> VariantSummary:
    """The learning curve that a score file holds."""
    lines = [{"step": step, "episode/return": value} for step, value in data["curve"]]
    return of_log(lines, Config.from_dict(data["config"]))._replace(
        score=data["mean_return"], seconds=3600 * data["hours"]
    )
