"""A notebook's kernel does not end while a run in it is not saved."""

from __future__ import annotations

import operator
import os
import signal
import sys
import types
from pathlib import Path

import pytest

from glamkit.runs.session import ORPHANED, Stops


def test_the_end_of_a_kernels_parent_is_a_request_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getppid()
    poller = types.SimpleNamespace(parent_pid=parent)
    app = types.SimpleNamespace(initialized=lambda: True, instance=lambda: types.SimpleNamespace(poller=poller))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", types.SimpleNamespace(IPKernelApp=app))
    stops = Stops(tmp_path / "STOP", 0)
    with stops.listening():
        assert not stops.requested()
        # What ipykernel's poller compares each second, before it ends the process:
        assert poller.parent_pid
        assert operator.ne(1, poller.parent_pid) is False
        monkeypatch.setattr(os, "getppid", lambda: 1)
        stops.next_look = 0.0
        assert stops.requested()
        assert stops.reason == ORPHANED
    assert poller.parent_pid == parent, "the kernel ends now"


def test_in_plain_python_the_end_of_the_parent_asks_nothing(tmp_path: Path) -> None:
    stops = Stops(tmp_path / "STOP", 0)
    with stops.listening():
        assert stops.parent is None
        assert not stops.requested()


def test_after_another_request_the_first_ctrl_c_does_not_interrupt(tmp_path: Path) -> None:
    stops = Stops(tmp_path / "STOP", 0)
    stops.file.touch()
    with stops.listening():
        assert stops.requested() and stops.reason.startswith("found STOP")
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
