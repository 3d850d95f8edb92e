"""Which key means which action or command."""

from __future__ import annotations

from collections.abc import Collection

PARTS = {"UP": "ArrowUp", "DOWN": "ArrowDown", "LEFT": "ArrowLeft", "RIGHT": "ArrowRight", "FIRE": "Space"}
# Key -> command of the player, and what it is called.
COMMANDS = {
    "Enter": ("toggle", "play or pause"),
    "Period": ("forward", "one step"),
    "Backspace": ("back", "one step back"),
    "KeyB": ("ask", "what if?"),
    "KeyR": ("again", "begin again"),
}
SIGNS = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→", "Period": "."}


def keys_of(names: Collection[str]) -> dict[frozenset[str], int]:
    """Keys for actions: arrows and the space bar by their names (``RIGHTFIRE`` is → and space), digits for all."""
    keymap: dict[frozenset[str], int] = {}
    for number, name in enumerate(names):
        rest, codes = name.upper(), set()
        for part, code in PARTS.items():
            if part in rest:
                rest = rest.replace(part, "")
                codes.add(code)
        if codes and not rest.strip("_- "):
            keymap.setdefault(frozenset(codes), number)
    for number in range(min(len(names), 10)):
        keymap[frozenset({f"Digit{(number + 1) % 10}"})] = number
    return keymap


def written(codes: Collection[str]) -> str:
    """How a key, or several held together, is written."""
    return "+".join(SIGNS.get(code, code.removeprefix("Digit").removeprefix("Key")) for code in sorted(codes))
