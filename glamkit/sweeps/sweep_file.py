"""The YAML file of a sweep, read so that what a person wrote is what it means.

YAML 1.1 reads some plain words as something else: ``on`` as true, ``010`` as 8, ``1:30`` as 90, ``1.10`` as 1.1. Of a
key that is there twice it keeps the last value, without a warning. Here each of these is refused, or taken as written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from glamkit.errors import GlamkitError


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without these conversions."""


def _refuse(node: yaml.Node, value: object) -> GlamkitError:
    text, line = node.value, node.start_mark.line + 1
    return GlamkitError(f"{text} at line {line} is read as {value!r} by YAML; quote it: '{text}'.")


def _flag(loader: _Loader, node: yaml.ScalarNode) -> object:
    # `runtime.compile: on` names a choice. Settings that are flags read the word too.
    value = loader.construct_yaml_bool(node)
    return value if node.value.lower() in ("true", "false") else node.value


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node)
    if node.value.lstrip("+").replace("_", "") != str(value):
        raise _refuse(node, value)
    return value


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    value: float = loader.construct_yaml_float(node)
    if ":" in node.value:
        raise _refuse(node, value)
    return value


def _table(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    names: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise GlamkitError(f"line {key.start_mark.line + 1} has a key that is no name.")
        plain = yaml.SafeLoader.yaml_constructors.get(key.tag)
        meaning = plain(loader, key) if plain else key.value
        if str(meaning) != key.value:
            raise _refuse(key, meaning)
        if key.value in names:
            raise GlamkitError(
                f"{key.value} stands twice, the second time at line {key.start_mark.line + 1}; keep one."
            )
        names.add(key.value)
    loader.flatten_mapping(node)  # what `<<` brings in; the table's own keys come after it
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


for _tag, _read in {"bool": _flag, "int": _whole, "float": _number, "map": _table}.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _read)


def read(path: str | Path) -> dict[str, Any]:
    """The table in a sweep file; keys are text.

    Raises:
        GlamkitError: it cannot be read, is no YAML table, has a key twice, or holds what YAML reads as something else.
    """
    name = f"the sweep file {str(path)!r}"
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_Loader)  # a SafeLoader: it makes plain data only
    except (OSError, UnicodeDecodeError) as error:
        raise GlamkitError(f"{name} cannot be read: {getattr(error, 'strerror', error)}.") from None
    except GlamkitError as error:
        raise GlamkitError(f"in {name}, {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise GlamkitError(f"{name} is not YAML{place}: {problem}.") from None
    if not isinstance(data, dict):
        raise GlamkitError(f"{name} holds no table; it needs keys such as games and seeds.")
    return data
