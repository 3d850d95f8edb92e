"""What a stranger's files and parameters may hold, and the contract that glamkit answers all of it with.

A test that is written with these counts towards the number of inputs that GLAMKIT_HOSTILE asks for:

    GLAMKIT_HOSTILE=10000 python -m pytest -n 0 tests/programs/test_hostile.py
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from glamkit.errors import GlamkitError

WANTED = int(os.environ.get("GLAMKIT_HOSTILE", "0"))  # inputs in all; 0 for the few hundred of an ordinary test run
FEW = 380  # that an ordinary run tries in all: each test gets the same share of those asked for
tried = {"inputs": 0, "refused": 0}


def many(few: int) -> Callable[[Any], Any]:
    """Settings of a test that tries `few` inputs, or its share of those asked for."""
    return settings(
        max_examples=max(few, -(-few * WANTED // FEW)),
        deadline=None,
        derandomize=not WANTED,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def contract() -> Iterator[None]:
    """What happens inside either works or is refused in one sentence; nothing else may come out."""
    tried["inputs"] += 1
    try:
        yield
    except GlamkitError as error:
        tried["refused"] += 1
        message = str(error)
        assert message.strip() and "\n" not in message and "\r" not in message, message


NASTY = [
    *[
        "",
        " ",
        "..",
        "../../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "~",
        "~nobody/x",
        "a\0b",
        "a\nb",
        "\u2028",
        "\ud800",
    ],
    *["<script>alert(1)</script>", "${HOME}", "$x^2$", "%s%n", "{0}", "NaN", "inf", "-1", "1e400", "1_0", "٣", "true"],
    *["None", "[]", "{}", "0x10", "9" * 5000, "=", "a=b=c", ",", "Pong\n", "os:system", "e\u0301" * 50],
]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=30))
numbers = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**18, 10**400, -(10**30)]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 1e-320, float("nan"), float("inf")]),
)
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))


@st.composite
def damaged(draw: Callable[[Any], Any], data: bytes) -> bytes:
    """A file's contents after something went wrong with them, or somebody did it."""
    kind = draw(st.sampled_from(["cut", "flip", "other", "empty", "twice", "deep", "zeros", "text", "part"]))
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :] if data else b"x"
    if kind == "part":
        return data[:place] + draw(st.binary(max_size=40)) + data[place + draw(st.integers(0, 40)) :]
    if kind == "other":
        return draw(st.binary(max_size=200))
    plainly = {
        "empty": b"",
        "twice": data * 2,
        "deep": b"[" * 100_000,
        "zeros": bytes(len(data)),
        "text": b"\xff\xfe x",
    }
    return plainly[kind]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see whether something was written where it must not be."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@st.composite
def changed(draw: Callable[[Any], Any], value: Any, replacement: st.SearchStrategy[Any] = values) -> Any:
    """The same nested tables and lists, with one thing in them replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(list(value)))
        kind = draw(st.sampled_from(["inside", "inside", "inside", "remove", "add"]))
        if kind == "remove":
            return {name: item for name, item in value.items() if name != key}
        if kind == "add":
            return {**value, draw(texts): draw(replacement)}
        return type(value)({**value, key: draw(changed(value[key], replacement))})
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place], replacement)), *value[place + 1 :]]
    return draw(replacement)
