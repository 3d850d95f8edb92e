"""Finished runs and published methods side by side, and everything that stands in the way of comparing them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamkit.config import coerce
from glamkit.envs import atari100k
from glamkit.envs.atari100k import Method
from glamkit.errors import GlamkitError, nearest
from glamkit.report import aggregates, results
from glamkit.report.aggregates import Interval
from glamkit.report.results import Result
from glamkit.runs.folder import resolve
from glamkit.training.shared_runs import unpacked

AGAINST = ("SimPLe", "IRIS", "DreamerV3 (Nature, 2024 code)", "STORM", "DIAMOND", "BBF", "EASimulus")


class ScoredMethod(NamedTuple):
    """A method on the games that are compared; `new` is what comes from runs or a file of the user."""

    name: str
    method: Method
    new: bool
    normal: Mapping[str, np.ndarray]  # game -> (runs,) human-normalised scores
    values: Mapping[str, float | None]  # every aggregate; None where it needs single runs that are not known
    intervals: Mapping[str, Interval]  # 95 %, of the aggregates; empty where there is one run per game

    @property
    def sample(self) -> list[np.ndarray]:
        """Its scores without the games' names."""
        return list(self.normal.values())

    @property
    def episodes(self) -> str:
        """How many evaluation episodes are behind a run's score, as its protocol says."""
        return str(self.method.protocol.get("episodes") or self.method.protocol.get("eval_episodes") or "")

    @property
    def counts(self) -> tuple[int, int]:
        """The fewest and the most runs of a game."""
        lengths = [len(values) for values in self.sample]
        return min(lengths), max(lengths)


class Report:
    """Everything the tables, figures and notes are made of.

    Runs of small presets, and of shorter or longer training, are in `small` alone: in no entry and no aggregate.

    Args:
        runs: run folders, folders that hold some, score files, shared files, or names of shipped runs; one may stand
            alone, and text may name several with commas between.
        files: methods of others, given alike, in the form of atari100k_scores.json, see `glamkit.envs.atari100k`.
        against: published methods to be shown game by game; names of `atari100k.published`, or ``all``.
        repeats: of the bootstrap, 1 to 1,000,000.

    Raises:
        GlamkitError: a folder or file is not there, or a method is unknown.
    """

    def __init__(
        self,
        runs: str | Path | Sequence[str | Path] = (),
        files: str | Path | Sequence[str | Path] = (),
        against: str | Sequence[str] = AGAINST,
        repeats: int | str = 2000,
    ) -> None:
        self.repeats = coerce("repeats", repeats, int)
        if not 1 <= self.repeats <= 1_000_000:
            raise GlamkitError(f"repeats = {self.repeats} is outside 1 to 1000000.")
        self.against = read_methods(against)
        self.results, self.left_out = results.collect([unpacked(run) for run in read_paths(runs)])
        groups = results.group(self.results)
        self.groups = {name: group for name, group in groups.items() if results.benchmark(group[0].config)}
        self.small = {name: group for name, group in groups.items() if name not in self.groups}
        published = atari100k.published()
        others: dict[str, Method] = {}
        for file in map(Path, read_paths(files)):
            for name, method in atari100k.read(file).items():
                while name in (*published, *groups, *others):
                    name = f"{name} ({file.name})"
                others[name] = method
        own = {name: own_method(group) for name, group in self.groups.items() if any(r.atari for r in group)}
        new, every = own | others, list(atari100k.games())
        # A comparison is fair on the games that all new methods have; if they share none, each has its own.
        self.games = [game for game in every if all(game in method.scores for method in new.values())] or every
        self.entries = {name: self.entry(name, method, name in new) for name, method in {**new, **published}.items()}

    def entry(self, name: str, method: Method, new: bool) -> ScoredMethod:
        """A method on the compared games."""
        normal = atari100k.normalise({game: runs for game, runs in method.scores.items() if game in self.games})
        sample = list(normal.values())
        values = {key: float(f(sample)) for key, f in aggregates.AGGREGATES.items()}
        known = {key: v if method.single or key in ("mean", "median") else None for key, v in values.items()}
        several = method.single and max(map(len, sample)) > 1
        intervals = aggregates.intervals(sample, self.repeats) if several else {}
        return ScoredMethod(name, method, new, normal, known, intervals)

    @property
    def new(self) -> list[ScoredMethod]:
        """What is to be compared with the published methods: own runs and files of others."""
        return [entry for entry in self.entries.values() if entry.new]

    @property
    def shown(self) -> list[ScoredMethod]:
        """What is shown game by game."""
        return [*self.new, *(self.entries[name] for name in self.against)]


def own_method(group: Sequence[Result]) -> Method:
    """Runs of one experiment on the 26 games as a method."""
    scores: dict[str, list[float]] = {}
    for result in group:
        if result.atari:
            scores.setdefault(result.game, []).append(result.score)
    card = next(result.protocol for result in group if result.atari)
    sticky = card.get("sticky")
    known = {**card, "sticky": sticky > 0 if isinstance(sticky, (int, float)) else None}
    arrays = {game: np.array(values) for game, values in scores.items()}
    return Method(arrays, True, known, {}, suspect="", source="run folders", notes="")


def read_methods(names: str | Sequence[str]) -> list[str]:
    """Names of published methods, also as one text with commas between."""
    known = list(atari100k.published())
    if isinstance(names, str):
        parts = re.split(r",(?![^(]*\))", names)  # not at a comma in brackets
        names = [part.strip() for part in parts if part.strip()]
        names = known if names == ["all"] else names
    for name in names:
        if name not in known:
            raise GlamkitError(f"unknown method {name!r}; {nearest(name, known)}")
    if not names:
        raise GlamkitError(f"against is empty; name a method, such as {AGAINST[-2]}, or all.")
    return list(dict.fromkeys(names))


def read_paths(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """One path, several, or text with commas between; counted from the checkout. Names of shipped runs stay."""
    if isinstance(paths, str):
        paths = [part.strip() for part in paths.split(",") if part.strip()]
    parts = [paths] if isinstance(paths, Path) else paths
    return [resolve(part) if resolve(part).exists() else part for part in parts]
