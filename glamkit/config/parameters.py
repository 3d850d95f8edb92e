"""The parameters of a notebook, as its parameters cell states them: ``horizon: int = 15``, names and types checked.

Papermill adds a cell of its own after that one and checks neither; a person may write anything into the cell itself.
"""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from glamkit.config.fields import coerce
from glamkit.errors import GlamkitError, nearest

INJECTED = "# Parameters"  # the first line of the cell that papermill adds after ours
OWN = "PAPERMILL_"  # papermill's own parameters, as with --inject-paths
KINDS = {"int": int, "float": float, "bool": bool, "str": str}


class Parameter(NamedTuple):
    """A line of the parameters cell."""

    name: str
    kind: str  # as annotated
    optional: bool  # its default is None, which stands for a choice made elsewhere


def assigned(code: str) -> list[str]:
    """The names a cell gives a value to, at its top level; none for code that is no plain Python."""
    names: list[str] = []
    for line in _body(code):
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def stated(cells: Sequence[str]) -> list[Parameter]:
    """The annotated parameters of the first cell that has some."""
    for code in cells:
        lines = [line for line in _body(code) if isinstance(line, ast.AnnAssign)]
        if lines:
            return [
                Parameter(
                    ast.unparse(line.target),
                    ast.unparse(line.annotation),
                    isinstance(line.value, ast.Constant) and line.value.value is None,
                )
                for line in lines
            ]
    return []


def check(cells: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as their annotations want them, from the code of the cells that ran and what names stand for."""
    known: list[str] = []
    for cell in cells:
        injected = cell.startswith(INJECTED)
        for name in assigned(cell):
            if injected and name not in known and not name.startswith(OWN):
                raise GlamkitError(f"unknown parameter {name!r}; {nearest(name, known)}")
            known.append(name)
    return {one.name: _read(one, values[one.name]) for one in stated(cells) if one.name in values}


def _read(parameter: Parameter, value: Any) -> Any:
    name, kind, optional = parameter
    if value is None:
        if optional:
            return None
        raise GlamkitError(f"{name} = None is no {kind}; this parameter has no default to leave it to.")
    if kind == "str" and isinstance(value, bool | dict | list | tuple):
        raise GlamkitError(f"{name} = {value!r} is not text.")
    if kind == "str":
        return str(value)
    if kind == "dict":
        table = value
        if isinstance(value, str):  # from a command line
            with contextlib.suppress(ValueError, RecursionError):
                table = json.loads(value)
        if not isinstance(table, Mapping):
            raise GlamkitError(f'{name} = {value!r} is no table of names and values, such as {{"a": ""}}.')
        return table
    return coerce(name, value, KINDS[kind]) if kind in KINDS else value


def _body(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except SyntaxError:
        return []
