"""How a command line ends."""

from __future__ import annotations

import ast

import pytest
from conftest import ROOT

from glamkit.errors import GlamkitError, command


def outcome(result: int | BaseException | None) -> int | None:
    """The command line.

    Raises:
        BaseException: what it is given.
    """
    if isinstance(result, BaseException):
        raise result
    return result


def test_what_can_be_mended_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(outcome)(GlamkitError("seed = -1 is outside its range: at least 0.")) == 2
    assert capsys.readouterr() == ("", "seed = -1 is outside its range: at least 0.\n")


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_else_it_says_how_it_ended(result: int | None, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    main = command(outcome)
    assert main(result) == status and main(result=result) == status
    assert capsys.readouterr() == ("", "")
    assert (main.__name__, main.__doc__) == (outcome.__name__, outcome.__doc__)


@pytest.mark.parametrize("error", [KeyError("step"), KeyboardInterrupt(), SystemExit(3)])
def test_a_bug_and_an_interrupt_go_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        command(outcome)(error)
    assert raised.value is error


def test_no_command_line_ends_in_its_own_way() -> None:
    """But for `glamkit`, and one whose words go to another program."""
    trees = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "glamkit").rglob("*.py"))}
    mains = {path: [node for node in tree.body if getattr(node, "name", "") == "main"] for path, tree in trees.items()}
    own = [path for path, results in mains.items() if "except GlamkitError" in "".join(map(ast.unparse, results))]
    assert [str(path.relative_to(ROOT / "glamkit")) for path in own] == ["cli/__init__.py", "sweeps/cost.py"]
