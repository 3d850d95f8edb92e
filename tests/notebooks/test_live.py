"""What changes while it is shown: in place where somebody looks, a line now and then in a log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import PlainTextFormatter

from glamkit import notebook
from glamkit.config import preset
from glamkit.notebook import Live, duration
from glamkit.runs import status
from glamkit.runs.folder import Run
from glamkit.runs.session import Lock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_replaced_in_a_terminal_and_added_to_a_log_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        live = Live(every=1000.0, stream=stream)
        live("first")
        live("soon after")
        live.show("two lines,\nthe second of them too long")
        live.show("last")
        live.close()
    assert file.getvalue() == "first\ntwo lines,\nthe second of them too long\nlast\n"
    assert terminal.getvalue().split("\033[J") == [
        "\r", "first\r", "two lines,\nthe second of them \r\033[1A", "last\n",
    ]  # fmt: skip


def test_text_that_changes_in_a_notebook_has_no_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def display(text: str, display_id: bool) -> Any:
        assert display_id
        shown.append(text)
        return type("Handle", (), {"update": shown.append})

    monkeypatch.setattr(notebook, "is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    live = Live()
    live.show("one")
    live.show("two")
    assert [PlainTextFormatter()(text) for text in shown] == ["one", "two"]


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 42, 185, 7800, 356_400)] == ["0s", "42s", "3m05s", "2h10m", "4d03h"]


def test_watching_without_a_notebook_says_a_line_only_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = Run(tmp_path / "run"), [0.0]
    run.folder.mkdir()
    run.begin(preset("debug"), {})

    def asleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 50:
            status.write(run.status_file, "done", 96, 96)

    monkeypatch.setattr(notebook.time, "sleep", asleep)
    monkeypatch.setattr(notebook.time, "perf_counter", lambda: now[0])
    with Lock(run.lock_file):
        status.write(run.status_file, "running", 70, 60)
        notebook.watch(run.folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["step 70/96  running"] * 5 + ["step 96/96  done"]  # at once, then every ten seconds
