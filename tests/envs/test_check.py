"""The examination of games: it passes what is right and finds what is broken."""

from __future__ import annotations

import pytest
from square import square

from glamkit.config import EnvConfig
from glamkit.envs.check import Check, check_env
from glamkit.envs.registry import Outcome, PixelEnv


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_pong_keeps_its_promises() -> None:
    checks = check_env(EnvConfig(game="Pong", image_size=32), steps=1000)
    assert failed(checks) == []
    assert len(checks) == 9
    details = {check.name: check.detail for check in checks}
    assert details["another seed gives another game"].startswith("differs from step")
    assert details["a saved game goes on to the bit"] == "equal for 200 steps"
    assert details["an ended game takes no step before its reset"].startswith("1 episodes ended in 1000 steps")
    assert "the game has no lives" in details.values()


@pytest.mark.parametrize(("life_loss", "word"), [(True, "stored as a termination"), (False, "not stored")])
def test_breakout_keeps_its_promises(life_loss: bool, word: str) -> None:
    checks = check_env(EnvConfig(game="Breakout", image_size=32, sticky=0, life_loss=life_loss))
    assert failed(checks) == []
    assert "without sticky actions" in checks[1].detail
    assert f"a lost life is {word}" in checks[-1].name
    assert checks[-1].detail.startswith("8 lives lost before the end")


@pytest.mark.parametrize(
    ("flaw", "broken"),
    [
        ("", []),
        ("unseeded", ["the same seed gives the same game", "a saved game goes on to the bit"]),
        ("carried", ["a saved game goes on to the bit"]),
        ("constant", ["another seed gives another game"]),
        ("reward", ["rewards are finite"]),
        ("dark", ["frames are square RGB, bytes of 0 to 255"]),
        ("float", ["frames are square RGB, bytes of 0 to 255"]),
        ("stale", ["a saved game goes on to the bit", "a new game does not begin with the old one's last frame"]),
        ("crash", ["the same seed", "another seed", "a saved game", "random play raises no error"]),
    ],
)
def test_the_examination_finds_what_is_broken(flaw: str, broken: list[str]) -> None:
    checks = check_env(square(flaw=flaw))
    result = failed(checks)
    assert [name[: len(start)] for name, start in zip(result, broken, strict=True)] == broken
    if flaw == "crash":
        assert {check.detail for check in checks if not check.passed} == {"OSError: the emulator is gone"}


def test_the_examination_finds_broken_plumbing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PixelEnv itself guarantees is broken on purpose."""
    config = EnvConfig(game="Breakout", image_size=32)
    honest = PixelEnv.step

    def careless(self: PixelEnv, action: int) -> Outcome:
        if not self._running:
            return Outcome(self.reset(), 0.0, False, False)  # gymnasium's next-step reset
        outcome = honest(self, action % self.num_actions)
        return outcome._replace(terminated=outcome.ended)

    monkeypatch.setattr(PixelEnv, "step", careless)
    assert failed(check_env(config)) == [
        "actions out of range are refused",
        "an ended game takes no step before its reset",
        "a lost life is stored as a termination, and the game goes on",
    ]


def test_the_examination_finds_a_termination_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = PixelEnv.step
    monkeypatch.setattr(PixelEnv, "step", lambda self, action: honest(self, action)._replace(terminated=True))
    assert failed(check_env(square())) == ["a lost life is stored as a termination, and the game goes on"]
