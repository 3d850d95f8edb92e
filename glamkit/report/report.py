"""Finished runs and published methods side by side, and everything that stands in the way of comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamkit.config import coerce
from glamkit.envs import atari100k
from glamkit.envs.atari100k import Method
from glamkit.errors import GlamkitError, nearest
from glamkit.report import aggregates, results
from glamkit.report.aggregates import Improvement, Interval
from glamkit.report.results import Result
from glamkit.runs.folder import resolve
from glamkit.training.shared_runs import unpacked

AGAINST = ("SimPLe", "IRIS", "DreamerV3 (Nature, 2024 code)", "STORM", "DIAMOND", "BBF", "EASimulus")
REPEATS = 2000


class ScoredMethod(NamedTuple):
    """A method on the games that are compared.

    Attributes:
        ours: whether it comes from runs.
        normal: game -> (runs,) human-normalised scores.
        values: every aggregate; None where it needs single runs that are not known.
        intervals: 95 %, of the aggregates; empty where there is one run per game.
    """

    name: str
    method: Method
    ours: bool
    normal: Mapping[str, np.ndarray]
    values: Mapping[str, float | None]
    intervals: Mapping[str, Interval]

    @property
    def sample(self) -> list[np.ndarray]:
        """Its scores without the games' names."""
        return list(self.normal.values())

    @property
    def sticky(self) -> bool | None:
        """Whether actions were sticky; None where nobody says."""
        known = self.method.protocol.get("sticky")
        return known if isinstance(known, bool) else None

    @property
    def episodes(self) -> str:
        """How many evaluation episodes are behind a run's score, as its protocol has it."""
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
        repeats: int | str = REPEATS,
    ) -> None:
        self.repeats = coerce("repeats", repeats, int)
        if not 1 <= self.repeats <= 1_000_000:
            raise GlamkitError(f"repeats = {self.repeats} is outside 1 to 1000000.")
        self.against = read_methods(against)
        self.results, self.left_out = results.collect([unpacked(run) for run in read_paths(runs)])
        groups = results.group(self.results)
        self.groups = {name: group for name, group in groups.items() if results.benchmark(group[0].config)}
        self.small = {name: group for name, group in groups.items() if name not in self.groups}
        self.published = dict(atari100k.published())
        self.others: dict[str, Method] = {}
        for file in map(Path, read_paths(files)):
            for name, method in atari100k.read(file).items():
                taken = {*self.published, *groups, *self.others}
                candidates = (name, f"{name} ({file.name})", f"{name} ({file})")
                self.others[next((new for new in candidates if new not in taken), candidates[-1])] = method
        own = {name: own_method(group) for name, group in self.groups.items() if any(r.atari for r in group)}
        self.games = compared([*own.values(), *self.others.values()])
        tables = ((own, True), (self.others, False), (self.published, False))
        self.entries = {
            name: self.entry(name, method, ours) for table, ours in tables for name, method in table.items()
        }

    def entry(self, name: str, method: Method, ours: bool) -> ScoredMethod:
        """A method on the compared games."""
        raw = {game: values for game, values in method.scores.items() if game in self.games}
        normal = atari100k.normalise(raw)
        sample = list(normal.values())
        values = {key: float(f(sample)) for key, f in aggregates.AGGREGATES.items()}
        known = {key: v if method.single or key in ("mean", "median") else None for key, v in values.items()}
        several = method.single and max(map(len, sample)) > 1
        return ScoredMethod(
            name, method, ours, normal, known, aggregates.intervals(sample, self.repeats) if several else {}
        )

    @property
    def new(self) -> list[ScoredMethod]:
        """What is to be compared with the published methods: own runs and files of others."""
        return [entry for entry in self.entries.values() if self.is_new(entry)]

    def is_new(self, entry: ScoredMethod) -> bool:
        """Whether an entry is among `new`."""
        return entry.ours or entry.name in self.others

    @property
    def shown(self) -> list[ScoredMethod]:
        """What is shown game by game."""
        return [*self.new, *(self.entries[name] for name in self.against)]

    @cached_property
    def improvements(self) -> dict[str, dict[str, Improvement]]:
        """Probability of improvement of the new entries (without any, of the last of `against`) over all others."""
        left = self.new or self.shown[-1:]
        names = [entry.name for entry in left]
        result: dict[str, dict[str, Improvement]] = {}
        for ours in left:
            for theirs in self.entries.values():
                shared = set(ours.normal) & set(theirs.normal)
                if ours.method.single and theirs.method.single and theirs.name not in names and shared:
                    value = aggregates.improvement(ours.normal, theirs.normal, self.repeats)
                    result.setdefault(ours.name, {})[theirs.name] = value
        return {name: dict(sorted(row.items(), key=lambda pair: -pair[1].value)) for name, row in result.items()}


def own_method(group: Sequence[Result]) -> Method:
    """Runs of one experiment on the 26 games as a method."""
    first = next(result for result in group if result.atari)
    card, sticky = dict(first.protocol), first.protocol.get("sticky")
    card["sticky"] = None if not isinstance(sticky, (int, float)) else sticky > 0
    return Method(results.scores(group, True), True, card, {}, suspect="", source="run folders", notes="")


def compared(methods: Sequence[Method]) -> list[str]:
    """The games on which a comparison is fair: those that all new methods have, or all 26 if they share none."""
    shared = [game for game in atari100k.games() if all(game in method.scores for method in methods)]
    return shared or list(atari100k.games())


def read_methods(names: str | Sequence[str]) -> list[str]:
    """Names of published methods, also as one text with commas; the comma in a name counts as part of it.

    Raises:
        GlamkitError: an unknown name, with the nearest right one, or none at all.
    """
    known = list(atari100k.published())
    if isinstance(names, str):
        text, result = names.strip(" ,"), []
        while text:
            fitting = [name for name in known if f"{text},".startswith(f"{name},")]
            whole = max(fitting, key=len, default=text.split(",")[0].strip())
            result.append(whole)
            text = text[len(whole) :].strip(" ,")
        names = known if result == ["all"] else result
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
