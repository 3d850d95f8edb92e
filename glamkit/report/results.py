"""Finished runs, read from their folders or result files and grouped by experiment; what cannot count says why.

A result file is what is kept of a run without its folder (`notebooks/results`): game, seed, preset, config, env_steps,
curve, episodes, mean_return, protocol, hours and machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glamkit.config import PRESETS, Config, differences, override, preset
from glamkit.envs.atari100k import game_of
from glamkit.errors import GlamkitError
from glamkit.plotting import count
from glamkit.runs import provenance
from glamkit.runs.folder import Run
from glamkit.sweeps import summary
from glamkit.sweeps.job import Job
from glamkit.sweeps.summary import VariantSummary

NAMED = 3  # settings in which a group's name says how it differs; of more, their number
KEPT = "*-seed[0-9]*.json"  # names of result files
BENCHMARK = "atari100k"  # the preset whose runs are compared with published ones
STEPS = (100_000, 102_000)  # agent steps of an Atari 100k result, fewest and most


class Result(NamedTuple):
    """A run with its final score.

    Attributes:
        place: its folder, or the result file that is kept of it.
        game: among the 26 by its plain name, else as in the config.
        atari: whether it is among the 26, so that a human's score is known.
        score: mean of `returns`, raw.
        returns: of the evaluation's episodes.
        cut: how many of them were cut short.
        protocol: as saved with the score.
        hours: in the training loop; None where nothing says.
        machine: what it was trained on; empty where nothing says.
        curve: (step, return) of episodes in training, of a result file; a folder has its log.
    """

    place: Path
    config: Config
    game: str
    atari: bool
    score: float
    returns: list[float]
    cut: int
    protocol: Mapping[str, Any]
    hours: float | None = None
    machine: str = ""
    curve: Sequence[tuple[float, float]] = ()

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.trainer.seed


class LeftOut(NamedTuple):
    """A run that does not count, and why."""

    folder: Path
    reason: str


def find(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders and result files at or below some paths, each once.

    Raises:
        GlamkitError: there is no such folder or file.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.suffix == ".json" and path.is_file():
            found[path] = None
            continue
        if not path.is_dir():
            raise GlamkitError(f"{path} is not a folder; name run folders, or a folder that holds some.")
        here = [path] if (path / "config.json").exists() else sorted(file.parent for file in path.rglob("config.json"))
        # A folder that looks like a run but lacks its config is half a run, and is named as such.
        halves = {file.parent for name in ("metrics.jsonl", "evaluation.json") for file in path.rglob(name)}
        found |= dict.fromkeys([*here, *sorted(half for half in halves if not (half / "config.json").exists())])
        found |= dict.fromkeys(sorted(file for file in path.rglob(KEPT) if file.is_file()))
    return list(found)


def collect(paths: Sequence[str | Path]) -> tuple[list[Result], list[LeftOut]]:
    """All runs at or below some paths: those that count, and the others with the reason."""
    results: list[Result] = []
    left: list[LeftOut] = []
    taken: dict[Any, Path] = {}
    for place in find(paths):
        try:
            result = read_file(place) if place.is_file() else read(place)
            key = (experiment(result.config), result.game, result.seed)
            if key in taken:
                raise GlamkitError(f"the same game, seed and settings as {taken[key]}, which counts.")
        except GlamkitError as error:
            left.append(LeftOut(place, str(error)))
            continue
        taken[key] = place
        results.append(result)
    return results, left


def read(folder: Path) -> Result:
    """The final score of a run.

    Args:
        folder: of the run.

    Raises:
        GlamkitError: it has none that counts, with the reason.
    """
    run = Run(folder)
    config = run.config()
    try:
        data = json.loads(run.evaluation_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        step = last_step(run)
        raise GlamkitError(f"not finished: at step {step:,} of {config.trainer.env_steps:,}, no evaluation.") from None
    except (OSError, ValueError) as error:
        raise GlamkitError(f"evaluation.json cannot be read ({error}).") from None
    return scored(folder, config, data, "evaluation.json", *cost(run))


def read_file(path: Path) -> Result:
    """The final score of a run of which a result file is kept.

    Args:
        path: of the JSON file.

    Raises:
        GlamkitError: it is of another form, or its score does not count, with the reason.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        config = Config.from_dict(data["config"])
        own = {"game": config.env.game, "seed": config.trainer.seed, "preset": config.preset}
        stated = {key: data[key] for key in own}
        data["step"] = data["env_steps"]
        hours, machine = float(data["hours"]), str(data["machine"])
        curve = [(float(step), float(value)) for step, value in data["curve"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GlamkitError(f"it is no result file of a run ({type(error).__name__}: {error}).") from None
    if game_of(str(stated["game"])) != game_of(config.env.game) or {**stated, "game": ""} != {**own, "game": ""}:
        raise GlamkitError(f"its config is of {own}, and it names {stated}.")
    return scored(path, config, data, path.name, hours, machine)._replace(curve=curve)


def scored(place: Path, config: Config, data: Any, name: str, hours: float | None, machine: str) -> Result:
    """A score that counts, from what an evaluation left.

    Raises:
        GlamkitError: it does not count, with the reason.
    """
    try:
        returns = [float(episode["return"]) for episode in data["episodes"]]
        cut = sum(bool(episode.get("cut")) for episode in data["episodes"])
        protocol = dict(data["protocol"])
        score, step = float(data["mean_return"]), int(data["step"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GlamkitError(f"{name} is not of the known form ({type(error).__name__}: {error}).") from None
    if not returns:
        raise GlamkitError(f"{name} holds no episodes.")
    if not all(map(math.isfinite, [score, *returns])):
        bad = sum(not math.isfinite(value) for value in returns)
        raise GlamkitError(f"{bad} of its {len(returns)} returns are not finite numbers.")
    if not math.isclose(score, float(np.mean(returns)), rel_tol=1e-6, abs_tol=1e-6):
        raise GlamkitError(f"its mean return {score:g} is not the mean of its episodes, {np.mean(returns):g}.")
    if step != config.trainer.env_steps:
        raise GlamkitError(f"it was evaluated at step {step:,} of {config.trainer.env_steps:,}, before its end.")
    plain = game_of(config.env.game)
    game = plain or config.env.game
    return Result(place, config, game, plain is not None, score, returns, cut, protocol, hours, machine)


def cost(run: Run) -> tuple[float | None, str]:
    """Hours in the training loop, and the machine, from a run's provenance."""
    sessions = provenance.sessions(run.provenance_file)
    seconds = [entry.get("seconds") for entry in sessions]
    known = [float(value) for value in seconds if isinstance(value, (int, float))]
    table = sessions[-1].get("machine") if sessions else None
    machine = [str(table[key]) for key in ("device_name", "threads") if key in table] if isinstance(table, dict) else []
    text = f"{machine[0]}, {count(int(machine[1]), 'thread')}" if len(machine) == 2 and machine[1].isdigit() else ""
    return (sum(known) / 3600 if known else None), text or "".join(machine[:1])


def training(result: Result) -> VariantSummary:
    """The episodes of a run's training.

    Raises:
        GlamkitError: its log cannot be read.
    """
    if result.place.is_dir():
        return summary.read(Job(Run(result.place), result.config))
    steps, returns = np.array(result.curve or np.zeros((0, 2)), float).T
    return VariantSummary(result.score, steps, returns, returns[:0], 3600 * (result.hours or 0.0))


def benchmark(config: Config) -> bool:
    """Whether a run of these settings is an Atari 100k result: the published preset with its budget.

    Small presets are not, whatever they score; nor is training that was shorter or longer.
    """
    low, high = STEPS
    return config.preset == BENCHMARK and low <= config.trainer.env_steps <= high


def last_step(run: Run) -> int:
    """Agent steps that the log has reached; 0 if it says nothing."""
    try:
        lines = run.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return int(json.loads(next(line for line in reversed(lines) if line.endswith("}")))["step"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return 0


def experiment(config: Config) -> Config:
    """What runs that may be averaged have in common: all but game, seed, machine, and what changes no score."""
    plain = Config()
    own = {"env.game": plain.env.game, "trainer.seed": plain.trainer.seed}
    idle = {"evaluation.every": plain.evaluation.every, "evaluation.games": plain.evaluation.games}
    return replace(override(config, own | idle), runtime=plain.runtime)


def group(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by experiment: unequal settings are never averaged. The name says how a group differs from its preset."""
    groups: dict[Config, list[Result]] = {}
    for result in results:
        groups.setdefault(experiment(result.config), []).append(result)
    names = Counter[str]()
    named: dict[str, list[Result]] = {}
    for config, members in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        name = name_of(config)
        names[name] += 1
        unique = name if names[name] == 1 else f"{name} ({names[name]})"
        named[unique] = sorted(members, key=lambda result: (result.game, result.seed))
    return named


def name_of(config: Config) -> str:
    """``glamkit quick, trainer.env_steps=300``."""
    if config.preset not in PRESETS:
        return f"glamkit {config.preset}"
    changed = list(differences(experiment(preset(config.preset)), config).items())
    settings = [f"{key}={ours}" for key, (_, ours) in changed[:NAMED]]
    more = [f"{len(changed) - NAMED} more"] if len(changed) > NAMED else []
    return ", ".join([f"glamkit {config.preset}", *settings, *more])


def scores(results: Sequence[Result], atari: bool) -> dict[str, np.ndarray]:
    """Game -> (seeds,) scores, of the 26 games or of all others."""
    table: dict[str, list[float]] = {}
    for result in results:
        if result.atari == atari:
            table.setdefault(result.game, []).append(result.score)
    return {game: np.array(values) for game, values in sorted(table.items())}


def protocols(results: Sequence[Result]) -> Iterator[tuple[str, list[Any]]]:
    """Entries of the protocol cards in which runs differ, with their values; not the game."""
    for key in dict.fromkeys(key for result in results for key in result.protocol):
        values = list(dict.fromkeys(json.dumps(result.protocol.get(key), sort_keys=True) for result in results))
        if key != "game" and len(values) > 1:
            yield key, values
