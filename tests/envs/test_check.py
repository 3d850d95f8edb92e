"""The examination of games: it passes what is right and finds what is broken."""

from __future__ import annotations

import pytest
from square import square

from glamkit.config import EnvConfig
from glamkit.envs import check
from glamkit.envs.check import Check, check_env
from glamkit.envs.registry import PixelEnv, make_env
from glamkit.errors import GlamkitError


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_pong_keeps_its_promises() -> None:
    checks = check_env(EnvConfig(game="Pong", image_size=32), steps=1000)
    assert failed(checks) == []
    assert len(checks) == 5
    details = {check.name: check.detail for check in checks}
    assert details["another seed gives another game"].startswith("differs from step")
    assert details["a saved game goes on to the bit"] == "equal for 200 steps"
    assert checks[-1].detail.startswith("1 episodes ended in 1000 steps")


def test_breakout_keeps_its_promises() -> None:
    checks = check_env(EnvConfig(game="Breakout", image_size=32, sticky=0))
    assert failed(checks) == []
    assert "without sticky actions" in checks[1].detail


@pytest.mark.parametrize(
    ("flaw", "broken"),
    [
        ("", []),
        ("unseeded", ["the same seed gives the same game", "a saved game goes on to the bit"]),
        ("carried", ["a saved game goes on to the bit"]),
        ("constant", ["another seed gives another game"]),
        ("reward", ["random play raises no error"]),
        ("dark", ["frames have contrast"]),
        ("float", ["random play raises no error"]),
        ("stale", ["a saved game goes on to the bit", "a new game does not begin with the old one's last frame"]),
        ("crash", ["random play raises no error"]),
    ],
)
def test_the_examination_finds_what_is_broken(flaw: str, broken: list[str]) -> None:
    checks = check_env(square(flaw=flaw))
    result = failed(checks)
    assert [name[: len(start)] for name, start in zip(result, broken, strict=True)] == broken
    if flaw == "crash":
        assert {check.detail for check in checks if not check.passed} == {"OSError: the emulator is gone"}


def test_no_game_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, opened = [], iter([make_env(square())])
    monkeypatch.setattr(PixelEnv, "close", lambda env: closed.append(env))

    def once(_: EnvConfig) -> PixelEnv:
        if (env := next(opened, None)) is None:
            raise GlamkitError("its port is taken.")
        return env

    monkeypatch.setattr(check, "make_env", once)
    with pytest.raises(GlamkitError, match="its port is taken"):
        check_env(square())
    assert len(closed) == 1
