"""What the shipped methods come to, recomputed from their scores, beside what is printed of them.

glamkit report --published --json published.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glamkit.report import aggregates
from glamkit.report.report import REPEATS, Report, ScoredMethod
from glamkit.runs.files import make_folder, replace_text


def published_json(path: Path, repeats: int | str = REPEATS) -> None:
    """Writes every shipped method's aggregates as JSON, see `published`.

    Raises:
        GlamkitError: the file cannot be written.
    """
    make_folder(path.parent)
    replace_text(path, json.dumps(published(repeats), indent=1, allow_nan=False))


def published(repeats: int | str = REPEATS) -> dict[str, dict[str, Any]]:
    """Every shipped method's aggregates, recomputed: the table behind ``--published --json``.

    Returns:
        For each method ``mean``, ``median``, ``iqm`` and ``optimality_gap`` (None where single runs are not known),
        ``intervals``, ``superhuman_games``, ``games``, ``runs_per_game`` (fewest, most), ``published`` (as printed),
        ``matches_published``, ``off_by`` and ``without`` (the aggregates with each game left out).
    """
    report = Report(against="all", repeats=repeats)
    return {name: described(entry, report.sensitivity.get(name, {})) for name, entry in report.entries.items()}


def described(entry: ScoredMethod, without: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """An entry as plain values."""
    return {
        **entry.values,
        "intervals": {key: list(ends) for key, ends in entry.intervals.items()},
        "superhuman_games": aggregates.superhuman(entry.sample),
        "games": len(entry.normal),
        "runs_per_game": list(entry.counts) if entry.method.single else None,
        "published": dict(entry.method.printed) or None,
        "matches_published": agrees(entry),
        "off_by": off_by(entry),
        "without": {game: dict(values) for game, values in without.items()},
    }


def agrees(entry: ScoredMethod) -> bool | None:
    """Whether all printed aggregates come out to their printed digits; None where none is recorded."""
    pairs = beside_printed(entry)
    return all(round(own, digits(value)) == value for own, value in pairs) if pairs else None


def off_by(entry: ScoredMethod) -> float | None:
    """The largest difference between a printed aggregate and the recomputed one; None where none is recorded."""
    return max((abs(own - value) for own, value in beside_printed(entry)), default=None)


def beside_printed(entry: ScoredMethod) -> list[tuple[float, float]]:
    """(recomputed, printed) for each printed aggregate."""
    own = {**entry.values, "superhuman_games": float(aggregates.superhuman(entry.sample))}
    printed = entry.method.printed
    return [(value, printed[key]) for key, value in own.items() if key in printed and value is not None]


def digits(value: float) -> int:
    """Digits after the point that a number is printed with."""
    return len(str(value).partition(".")[2])
