"""A player of a dream, which works in a thread of its own: asked for something, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from glamkit.analysis.studio.player import Player


def done(shown: Player, command: str, *values: Any, **named: Any) -> Player:
    shown.do(command, *values, **named)
    shown.todo.join()
    return shown


def wait(until: Callable[[], Any]) -> bool:
    """Waits until it is so; whether it is."""
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(until())
