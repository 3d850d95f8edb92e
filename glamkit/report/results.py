"""Finished runs read from their folders, grouped by experiment; what cannot count is left out with its reason."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glamkit.config import PRESETS, Config, differences, preset
from glamkit.envs.atari100k import game_of
from glamkit.errors import GlamkitError
from glamkit.report import score_files
from glamkit.runs import log
from glamkit.runs.files import read_json
from glamkit.runs.folder import IDLE, UNSCORED, Run
from glamkit.sweeps import summary
from glamkit.sweeps.job import Job

NAMED = 3  # settings in which a group's name says how it differs; of more, their number
BENCHMARK = "atari100k"  # the preset whose runs are compared with published ones
STEPS = (100_000, 102_000)  # agent steps of an Atari 100k result, fewest and most


class Result(NamedTuple):
    """A run with its final score.

    Attributes:
        run: its folder; `Run.folder` is the file where a score file stands for it.
        game: among the 26 by its plain name, else as in the config.
        atari: whether it is among the 26, so that a human's score is known.
        score: mean of `returns`, raw.
        returns: of the evaluation's episodes.
        cut: how many of them were cut short.
        protocol: as saved with the score.
    """

    run: Run
    config: Config
    game: str
    atari: bool
    score: float
    returns: list[float]
    cut: int
    protocol: Mapping[str, Any]

    @property
    def console(self) -> bool:
        """Whether frame skip, sticky actions and lives mean anything to its game, by its protocol card."""
        return self.atari or self.protocol.get("frame_skip") is not None

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.trainer.seed

    def training(self) -> summary.VariantSummary:
        """Its learning curve, and how long it took."""
        if self.run.folder.is_file():
            return score_files.training(score_files.read(self.run.folder))
        return summary.read(Job(self.run, self.config))


class LeftOut(NamedTuple):
    """A run that does not count, and why."""

    folder: Path
    reason: str


def find(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders at or below some paths, and the score files among them or in them, each once.

    Raises:
        GlamkitError: there is no such folder or file.
    """
    result: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_file() and path.suffix == ".json":
            result[path] = None
            continue
        if not path.is_dir():
            raise GlamkitError(
                f"{path} is not a folder; name run folders, a folder that holds some, or score files (.json)."
            )
        here = [path] if (path / "config.json").exists() else sorted(file.parent for file in path.rglob("config.json"))
        # A folder that looks like a run but lacks its config is half a run, and is named as such.
        halves = {file.parent for name in ("metrics.jsonl", "evaluation.json") for file in path.rglob(name)}
        here += sorted(half for half in halves if not (half / "config.json").exists())
        # Score files lie beside run folders, or anywhere below a folder that holds no run.
        files = path.glob("*-seed*.json") if here else path.rglob("*-seed*.json")
        result |= dict.fromkeys([*here, *sorted(files)])
    return list(result)


def collect(paths: Sequence[str | Path]) -> tuple[list[Result], list[LeftOut]]:
    """All runs at or below some paths: those that count, and the others with the reason."""
    results: list[Result] = []
    left: list[LeftOut] = []
    taken: dict[Any, Path] = {}
    for folder in find(paths):
        try:
            result = read(folder)
            key = (experiment(result.config), result.game, result.seed)
            if key in taken:
                raise GlamkitError(f"the same game, seed and settings as {taken[key]}, which counts.")
        except GlamkitError as error:
            left.append(LeftOut(folder, str(error)))
            continue
        taken[key] = folder
        results.append(result)
    return results, left


def read(folder: Path) -> Result:
    """The final score of a run, from its folder or its score file.

    Raises:
        GlamkitError: it has none that counts, with the reason.
    """
    if folder.is_file():
        return _from_file(folder)
    run = Run(folder)
    config = run.config()
    if not run.evaluation_file.exists():
        step = log.last_step(run.log_file)
        raise GlamkitError(f"not finished: at step {step:,} of {config.trainer.env_steps:,}, no evaluation.")
    report = read_json(run.evaluation_file)
    try:
        numbers = [*(episode["return"] for episode in report["episodes"]), report["mean_return"]]
        # Strict JSON has null for what is not finite.
        *returns, score = [math.nan if value is None else float(value) for value in numbers]
        cut = sum(bool(episode.get("cut")) for episode in report["episodes"])
        protocol = dict(report["protocol"])
        step = int(report["step"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GlamkitError(f"evaluation.json is not of the known form ({type(error).__name__}: {error}).") from None
    if not returns:
        raise GlamkitError("evaluation.json holds no episodes.")
    if not all(map(math.isfinite, [score, *returns])):
        bad = sum(not math.isfinite(value) for value in returns)
        raise GlamkitError(f"{bad} of its {len(returns)} returns are not finite numbers.")
    if not math.isclose(score, float(np.mean(returns)), rel_tol=1e-6, abs_tol=1e-6):
        raise GlamkitError(f"its mean return {score:g} is not the mean of its episodes, {np.mean(returns):g}.")
    if step != config.trainer.env_steps:
        raise GlamkitError(f"it was evaluated at step {step:,} of {config.trainer.env_steps:,}, before its end.")
    plain = game_of(config.env.game)
    return Result(run, config, plain or config.env.game, plain is not None, score, returns, cut, protocol)


def _from_file(file: Path) -> Result:
    data = score_files.read(file)
    config, returns = Config.from_dict(data["config"]), [float(episode["return"]) for episode in data["episodes"]]
    atari = game_of(config.env.game) is not None
    return Result(Run(file), config, data["game"], atari, data["mean_return"], returns, 0, data["protocol"])


def benchmark(config: Config) -> bool:
    """Whether a run of these settings is an Atari 100k result: the published preset with its budget.

    Small presets are not, whatever they score; nor is training that was shorter or longer.
    """
    low, high = STEPS
    return config.preset == BENCHMARK and low <= config.trainer.env_steps <= high


def experiment(config: Config) -> Config:
    """What runs that may be averaged have in common: all but game, seed, machine, and what changes no score."""
    plain = Config()
    free = ("env.game", "trainer.seed", *IDLE, *UNSCORED)
    same = {key: usual for key, (_, usual) in differences(config, plain).items() if key in free}
    return replace(config.override(same), runtime=plain.runtime)


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
