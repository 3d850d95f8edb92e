"""Fields that explain and check themselves: the machinery under `config`."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from glamkit.errors import GlamkitError, nearest

LONGEST = 6  # numbers in a list: layers of the encoder, which make 256 pixels 4


def setting(default: Any, unit: str, why: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its unit, one line of why, and the closed range it must lie in."""
    return field(default=default, metadata={"unit": unit, "why": why, "low": low, "high": high})


class Checked:
    """Gives a dataclass type coercion and range checks; every failure is one sentence."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = coerce(item.name, getattr(self, item.name), hints[item.name])
            low, high = item.metadata.get("low"), item.metadata.get("high")
            for number in value if isinstance(value, tuple) else (value,):
                if (low is not None and number < low) or (high is not None and number > high):
                    allowed = f"its range: at least {low}" if high is None else f"{low} to {high}"
                    raise GlamkitError(f"{item.name} = {value!r} is outside {allowed}.")
            object.__setattr__(self, item.name, value)


def coerce(name: str, value: Any, kind: Any) -> Any:
    """Reads text and loosely typed numbers (YAML's '1e-4', papermill's 'true') as `kind`, or says why not."""
    if get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise GlamkitError(f"{name} = {value!r} is not one of the choices; {nearest(value, get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        parts = value.strip("()[] ").removesuffix(",").split(",") if isinstance(value, str) else value
        listed = isinstance(parts, (list, tuple)) and 0 < len(parts) <= LONGEST
        if not listed or not all(str(part).strip() for part in parts):
            wanted = f"1 to {LONGEST} whole numbers such as 16,32,64"
            raise GlamkitError(f"{name} = {repr(value)[:80]} is not a list of {wanted}.")
        return tuple(coerce(name, part, get_args(kind)[0]) for part in parts)
    names = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}
    result = {int: _whole, float: _number, bool: _flag, str: _text}[kind](value)
    if result is None:
        raise GlamkitError(f"{name} = {value!r} is not {names[kind]}.")
    return result


def at_least(name: str, value: object, low: int = 1) -> int:
    """A whole number of at least `low`, or a refusal."""
    number: int = coerce(name, value, int)
    if number < low:
        raise GlamkitError(f"{name} = {number} is outside its range: at least {low}.")
    return number


def falling(value: float, share: float, progress: Any) -> Any:
    """A value that falls evenly to that share of itself, after so much (0 to 1; also a tensor) of the training."""
    return value * (1 - (1 - share) * progress)


def parse_overrides(overrides: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Turns ``"a.b=1 c.d=2"`` (spaces or commas between) or a mapping into ``{"a.b": ..., "c.d": ...}``."""
    if not overrides:
        return {}
    if isinstance(overrides, Mapping):
        return {str(key): value for key, value in overrides.items()}
    if not isinstance(overrides, str):
        raise GlamkitError(f"overrides = {overrides!r} is neither text such as 'trainer.warmup=300' nor a table.")
    result: dict[str, Any] = {}
    # Spaces and commas separate only before a new key, so that lists such as 16, 32, 64 stay whole.
    for pair in filter(None, re.split(r"[\s,]+(?=[\w.]+\s*=)", overrides.strip(", \t\n"))):
        key, _, value = (part.strip() for part in pair.partition("="))
        if not key or not value:
            raise GlamkitError(f"override {pair!r} is not of the form key=value, such as trainer.warmup=300.")
        add_once(result, key, value)
    return result


def add_once(table: dict[str, Any], key: str, value: Any) -> None:
    """Puts a setting into a table, which may not hold it with another value."""
    if key in table and str(table[key]) != str(value):
        raise GlamkitError(f"{key} is given twice, as {table[key]!r} and as {value!r}; keep one.")
    table[key] = value


def read_seeds(seeds: str | int | Iterable[int]) -> list[int]:
    """``"1 2 3"``, ``"1-3"``, 3 or [1, 2, 3] -> the seeds, each once."""
    if isinstance(seeds, str) and re.search(r"\d,0\d\d(?!\d)", seeds):
        raise GlamkitError(f"seeds = {seeds!r} may be one number or several; write 1000, or 1 0 with spaces between.")
    given = re.split(r"[\s,]+", seeds.strip()) if isinstance(seeds, str) else seeds
    parts = given if isinstance(given, Iterable) else [given]
    numbers: list[int] = []
    for part in parts:
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", str(part))
        if not span or int(span[2] or span[1]) < int(span[1]) or int(span[2] or 0) - int(span[1]) > 1000:
            raise GlamkitError(f"seeds = {seeds!r} is not a list of whole numbers such as 1 2 3 or 1-3.")
        numbers += range(int(span[1]), int(span[2] or span[1]) + 1)
    if not numbers:
        raise GlamkitError("seeds is empty; name at least one, such as 1 2 3.")
    return list(dict.fromkeys(numbers))


def game_name(name: str) -> str:
    """The one name of a game that has several: ``Pong`` for ``ALE/Pong-v5``, ``ale_py:ALE/Pong-v5``."""
    own = name.rpartition(":")[2]
    if own.startswith(("ALE/", "glamkit/")):
        name = own
    atari = re.fullmatch(r"ALE/([A-Za-z0-9]+)-v5", name)
    return atari[1] if atari else name


def game_folder(name: str) -> str:
    """The name that files and folders of a game have: ``Pong``, or ``Chase-v0`` of ``mygames:Chase-v0``."""
    return re.sub(r"[^\w.-]+", "_", re.split(r"[/:]", game_name(name))[-1])


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _flag(value: Any) -> bool | None:
    names = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return value if isinstance(value, bool) else names.get(value.lower()) if isinstance(value, str) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
