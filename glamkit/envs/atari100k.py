"""The 26 games of Atari 100k: what humans, random play and published methods score, each number with its source.

The numbers are in atari100k_scores.json. Result files of others are read from the same form: a table ``methods`` from
names to ``runs`` (game to a list with the score of each run) or ``scores`` (game to one mean), and what else is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glamkit.errors import GlamkitError, nearest

FILE = Path(__file__).with_name("atari100k_scores.json")
Scores = Mapping[str, np.ndarray]  # game -> (runs,) scores


class Game(NamedTuple):
    """Raw scores that stand for 0 and 1."""

    random: float
    human: float


class Method(NamedTuple):
    """What a method scored.

    Attributes:
        scores: raw, of each run; of one mean where single runs are not known.
        single: whether they are of single runs.
        protocol: how they were measured, as far as known; ``sticky`` is True, False or None for unknown.
        printed: aggregates as published, fractions of human.
        matches: whether they come out when recomputed; None where none is recorded.
        suspect: the game whose score seems to be the reason why not.
        faults: what was left out of a file, and why.
    """

    scores: Scores
    single: bool
    protocol: Mapping[str, Any]
    printed: Mapping[str, Any]
    matches: bool | None
    suspect: str
    paper: str
    source: str
    notes: str
    faults: tuple[str, ...]


@cache
def games() -> Mapping[str, Game]:
    """The 26 games in alphabetical order."""
    return {name: Game(**row) for name, row in _shipped()["games"].items()}


@cache
def published() -> Mapping[str, Method]:
    """The methods whose scores are shipped."""
    return _methods(_shipped(), FILE)


def read(path: Path) -> Mapping[str, Method]:
    """The methods of a result file; scores that are no finite numbers are left out and named in `faults`.

    Raises:
        GlamkitError: it cannot be read, is of another form, or names a game that is not among the 26.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GlamkitError(f"the result file {path} cannot be read: {error}.") from None
    return _methods(data, path)


def game_of(name: str) -> str | None:
    """The name among the 26 of a game as a config names it, or None."""
    plain = name.removeprefix("ALE/").removesuffix("-v5")
    return plain if plain in games() else None


def normalise(scores: Scores) -> dict[str, np.ndarray]:
    """Human-normalised scores: (score - random) / (human - random), so 0 is random play and 1 a human."""
    table = games()
    return {
        name: (np.asarray(values, float) - table[name].random) / (table[name].human - table[name].random)
        for name, values in scores.items()
    }


@cache
def _shipped() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _methods(data: Any, path: Path) -> dict[str, Method]:
    table = data.get("methods") if isinstance(data, dict) else None
    if not isinstance(table, dict) or not table:
        raise GlamkitError(f'{path} is no result file: it has no table "methods" of names with their "runs".')
    return {str(name): _method(row, f"{name} in {path}") for name, row in table.items()}


def _method(row: Any, where: str) -> Method:
    single = isinstance(row, dict) and "runs" in row
    raw = row.get("runs" if single else "scores") if isinstance(row, dict) else None
    if not isinstance(raw, dict) or not raw:
        raise GlamkitError(f'{where} has neither "runs" (game to list) nor "scores" (game to number).')
    scores: dict[str, np.ndarray] = {}
    faults: list[str] = []
    for name, values in raw.items():
        if name not in games():
            raise GlamkitError(f"{where} names the game {name!r}, which is not one of the 26; {nearest(name, games())}")
        found = values if isinstance(values, list) else [values]
        finite = [float(value) for value in found if _is_number(value) and math.isfinite(value)]
        if len(finite) < len(found):
            faults.append(f"{name}: {len(found) - len(finite)} of {len(found)} scores are no finite numbers")
        if finite:
            scores[name] = np.array(finite)
    ordered = {name: scores[name] for name in games() if name in scores}
    if not ordered:
        raise GlamkitError(f"{where} has not a single finite score.")
    text = {key: str(row.get(key) or "") for key in ("suspect", "paper", "source", "notes")}
    tables = {key: value if isinstance(value := row.get(key), dict) else {} for key in ("protocol", "published")}
    printed = {key: value for key, value in tables["published"].items() if _is_number(value)}
    return Method(ordered, single, tables["protocol"], printed, row.get("matches"), faults=tuple(faults), **text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
