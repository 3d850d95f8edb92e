"""Finished runs read from their folders, grouped by experiment; what cannot count is left out with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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

NAMED = 3  # settings in which a group's name says how it differs; of more, their number
BENCHMARK = "atari100k"  # the preset whose runs are compared with published ones
SIGNS = ("config.json", "metrics.jsonl", "evaluation.json")  # files of a run folder
STEPS = (100_000, 102_000)  # agent steps of an Atari 100k result, fewest and most


@dataclass(frozen=True)
class Result:
    """A run with its final score; where a score file stands for it, `run.folder` is that file."""

    run: Run
    config: Config
    returns: list[float]  # of the evaluation's episodes
    cut: int  # how many of them were cut short
    protocol: Mapping[str, Any]

    @property
    def game(self) -> str:
        """Among the 26 by its plain name, else as in the config."""
        return game_of(self.config.env.game) or self.config.env.game

    @property
    def atari(self) -> bool:
        """Whether its game is among the 26, so that a human's score is known."""
        return game_of(self.config.env.game) is not None

    @property
    def score(self) -> float:
        """Mean of `returns`, raw."""
        return float(np.mean(self.returns))

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.trainer.seed

    @cached_property
    def training(self) -> summary.VariantSummary:
        """Its learning curve, and how long it took."""
        if self.run.folder.is_file():
            return score_files.training(self.run.folder)
        return summary.of_log(log.added(self.run.log_file)[0], self.config)  # damaged lines are passed over


class LeftOut(NamedTuple):
    """A run that does not count, and why."""

    folder: Path
    reason: str


def find(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders at or below some paths, also those without a config, and the score files there, each once."""
    result: list[Path] = []
    for path in map(Path, paths):
        if path.is_file() and path.suffix == ".json":
            result.append(path)
        elif path.is_dir():
            runs = {file.parent for name in SIGNS for file in path.rglob(name)}
            # Score files lie beside run folders, or anywhere below a folder that holds no run.
            files = path.glob("*-seed*.json") if runs else path.rglob("*-seed*.json")
            result += [path] if (path / "config.json").exists() else sorted(runs)
            result += sorted(files)
        else:
            hint = "name run folders, a folder that holds some, or score files (.json)"
            raise GlamkitError(f"{path} is not a folder; {hint}.")
    return list(dict.fromkeys(result))


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
    """The final score of a run, from its folder or its score file; an error says why none counts."""
    run = Run(folder)
    if folder.is_file():
        report = score_files.read(folder)
        config = Config.from_dict(report["config"])
        returns = [float(episode["return"]) for episode in report["episodes"]]
    else:
        config = run.config()
        if not run.evaluation_file.exists():
            step = log.last_step(run.log_file)
            raise GlamkitError(f"not finished: at step {step:,} of {config.trainer.env_steps:,}, no evaluation.")
        report = read_json(run.evaluation_file)
        returns = score_files.returns_of(report, config)
    cut = sum(bool(episode.get("cut")) for episode in report["episodes"])
    return Result(run, config, returns, cut, report["protocol"])


def benchmark(config: Config) -> bool:
    """Whether a run of these settings is an Atari 100k result: the published preset with its budget."""
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
