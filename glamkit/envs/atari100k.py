"""The 26 games of Atari 100k: what humans, random play and published methods score, each number with its source.

The numbers are in atari100k_scores.json. Anyone's method is read from a file of the same form, see notebooks/README.md.
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
TEXTS = ("kind", "family", "rerun_by", "suspect", "source", "notes")
TABLES = ("runs", "scores", "protocol", "published")
KNOWN = (*TABLES, *TEXTS, "paper", "matches")


class Game(NamedTuple):
    """Raw scores that stand for 0 and 1."""

    random: float
    human: float


class Method(NamedTuple):
    """What a method scored."""

    scores: Scores  # raw, of each run; of one mean where single runs are not known
    single: bool  # whether they are of single runs
    protocol: Mapping[str, Any]  # how they were measured, as far as known
    printed: Mapping[str, Any]  # aggregates as published, fractions of human
    suspect: str  # the game that seems to be the reason why these do not come out when recomputed
    source: str
    notes: str
    kind: str = ""  # how they are known: per run, per game, or a transcription by a third party
    family: str = ""  # the method that several sets are of, its own numbers and re-runs by others
    rerun_by: str = ""  # whose re-run it is; empty for the authors' own numbers


@cache
def games() -> Mapping[str, Game]:
    """The 26 games in alphabetical order."""
    return {name: Game(**row) for name, row in _shipped()["games"].items()}


@cache
def published() -> Mapping[str, Method]:
    """The methods whose scores are shipped."""
    return _methods(_shipped(), FILE)


def read(path: Path) -> Mapping[str, Method]:
    """The methods of a result file; errors name what is wrong in it."""
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
    for name in table:
        if name.startswith("_") or "$" in name:
            raise GlamkitError(f"{name!r} in {path} begins with _ or has a $, and figures cannot show that; change it.")
    return {str(name): _method(row, f"{name} in {path}") for name, row in table.items()}


def _method(row: Any, where: str) -> Method:
    """A method of its entry."""
    if not isinstance(row, dict) or bool(row.get("runs")) is bool(row.get("scores")):
        raise GlamkitError(f'{where} needs either "runs" (game to list) or "scores" (game to number).')
    for key, value in row.items():
        if key not in KNOWN:
            raise GlamkitError(f"{where} has the entry {key!r}, which is not known; {nearest(key, KNOWN)}")
        if key in TABLES and not isinstance(value, (dict, type(None))):
            raise GlamkitError(f'{where}: "{key}" is no table of names and values.')
    sticky = (row.get("protocol") or {}).get("sticky")
    if sticky is not None and not isinstance(sticky, bool):
        raise GlamkitError(f"{where}: protocol.sticky = {sticky!r} is not true, false or null (not known).")
    single = bool(row.get("runs"))
    scores: dict[str, np.ndarray] = {}
    for name, values in row["runs" if single else "scores"].items():
        if name not in games():
            raise GlamkitError(f"{where} names the game {name!r}, which is not one of the 26; {nearest(name, games())}")
        listed = values if single else [values]
        if not isinstance(listed, list) or not listed or not all(map(_is_number, listed)):
            raise GlamkitError(
                f'{where}: {name} has no list of finite numbers in "runs", or no such number in "scores".'
            )
        scores[name] = np.array(listed, float)
    ordered = {name: scores[name] for name in games() if name in scores}
    text = {key: str(row.get(key) or "") for key in TEXTS}
    text["kind"] = text["kind"] or ("per run" if single else "per game")
    printed = {key: value for key, value in (row.get("published") or {}).items() if _is_number(value)}
    return Method(ordered, single, row.get("protocol") or {}, printed, **text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
