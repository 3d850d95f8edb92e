"""Stops of every kind, one process at a time, and a status that tells the truth about how a run ended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from books import started
from tiny_runs import after_steps, finished, short

from glamkit.errors import GlamkitError
from glamkit.runs import session, status
from glamkit.runs.session import Lock, Stops
from glamkit.training import checkpoint
from glamkit.training.trainer import Trainer

CONFIG = short("trainer.save_every=20", game="glamkit/Catch-v0")


def given(trainer: Trainer) -> tuple[str, int, int, str]:
    result = status.read(trainer.run.status_file)
    assert (result.pid, result.time[:2]) == (os.getpid(), "20")
    return result.state, result.step, result.saved, result.reason


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOOK", 0.0)


# How a run ends -------------------------------------------------------------------------------------------------------


def test_a_run_says_where_it_is(tmp_path: Path) -> None:
    trainer, seen = Trainer(CONFIG, tmp_path), set()
    assert not trainer.run.status_file.exists()
    for event in trainer:
        if event.kind != "done":
            seen.add(given(trainer))
    assert seen == {("running", step, step, "") for step in (0, 20, 40, 60)}
    assert given(trainer) == ("done", 64, 64, "")


def put(trainer: Trainer) -> None:
    trainer.run.stop_file.touch()


def ask(trainer: Trainer) -> None:
    trainer.session.stops.reason = "asked to by its program"


WAYS: dict[str, tuple[Callable[[Trainer], object], str]] = {
    "stop button": (lambda _: os.kill(os.getpid(), signal.SIGINT), "interrupted"),
    "SIGTERM": (lambda _: os.kill(os.getpid(), signal.SIGTERM), "told to end (SIGTERM)"),
    "file": (put, "found STOP in the run folder"),
    "program": (ask, "asked to by its program"),
}


@pytest.mark.parametrize("way", WAYS)
def test_asked_to_stop_it_saves_and_running_it_again_goes_on(way: str, tmp_path: Path) -> None:
    trainer, (act, reason), before = Trainer(CONFIG, tmp_path), WAYS[way], signal.getsignal(signal.SIGTERM)
    kinds = []
    for event in trainer:
        kinds.append(event.kind)
        if event.step == 30 and event.kind == "step":
            act(trainer)
    assert kinds[-1] == "stopped" and given(trainer) == ("stopped", 30, 30, reason)
    assert not trainer.run.stop_file.exists()  # or the run could not go on
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(trainer)[-1].kind == "done" and given(trainer)[0] == "done"
    assert [Trainer(CONFIG, tmp_path).step, *checkpoint.steps(tmp_path / "checkpoint")] == [64, 60, 64]


def test_a_time_limit_counts_from_when_the_loop_begins(tmp_path: Path) -> None:
    config = short("trainer.save_every=20 runtime.max_hours=1e-9", game="glamkit/Catch-v0")
    trainer = Trainer(config, tmp_path)
    assert [event.kind for event in trainer] == ["stopped"]
    assert given(trainer) == ("stopped", 0, 0, "runtime.max_hours = 1e-09 is over")
    assert Trainer(CONFIG, tmp_path).step == 0  # another limit is the same experiment
    assert finished(CONFIG, tmp_path).step == 64


def test_an_evaluation_is_played_to_its_end_when_the_time_is_up(tmp_path: Path) -> None:
    """It would be begun again in every session otherwise."""
    trainer = Trainer(short("evaluation.every=20 evaluation.episodes=1", game="glamkit/Catch-v0"), tmp_path)
    trainer.tell = lambda _: vars(trainer.session.stops).update(hours=1e-9, next_look=0.0)
    kinds = [event.kind for event in trainer]
    assert "evaluation" in kinds and kinds[-1] == "stopped" and trainer.step < 64
    assert trainer.run.evaluation_at(20).exists()


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    calls = Stops(tmp_path / "STOP", 0)
    with calls.listening():
        calls.began -= 1e9
        assert not calls.requested()
        (tmp_path / "STOP").mkdir()  # not a file
        assert not calls.requested()


def test_a_loop_that_is_left_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(CONFIG, tmp_path)
    for event in trainer:
        if event.step == 25:
            break
    assert given(trainer) == ("stopped", 25, 20, "left at once, without saving")

    def fail() -> None:
        raise ValueError("what it was\nand where")

    monkeypatch.setattr(trainer, "collect", fail)
    with pytest.raises(ValueError, match="what it was"):
        list(trainer)
    assert given(trainer) == ("failed", 25, 20, "what it was")
    assert finished(CONFIG, tmp_path).step == 64


def test_nothing_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, save = list[int](), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, state: [saved.append(step), save(folder, step, state)])
    config = short("trainer.save_every=32", game="glamkit/Catch-v0")
    events = list(Trainer(config, tmp_path))
    assert [event.kind for event in events if event.kind in ("saved", "done")] == ["saved", "saved", "done"]
    assert [event.kind for event in Trainer(config, tmp_path)] == ["done"]
    assert saved == [32, 64]


# One at a time --------------------------------------------------------------------------------------------------------

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1] + ".lock", "w")
fcntl.flock(file, fcntl.LOCK_EX)
open(sys.argv[1] + ".owner", "w").write("4321 elsewhere x")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains the run in the folder."""
    after_steps(CONFIG, tmp_path, 30)
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".trainer")]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process


def test_what_a_test_starts_ends_with_it_also_where_it_fails() -> None:
    with suppress(ZeroDivisionError), started([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        1 / 0  # noqa: B018
    assert process.poll() is not None


def test_a_second_process_is_refused_until_the_first_is_dead(
    other: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE", 0.2)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(GlamkitError, match=r"is being trained by another process \('4321' on 'elsewhere'\); wait"):
        Trainer(CONFIG, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before  # lines that a resumed run would cut
    other.kill(), other.wait()
    assert Trainer(CONFIG, tmp_path).step == 20


def test_some_patience_lets_a_dying_process_end(other: subprocess.Popen[str], tmp_path: Path) -> None:
    threading.Timer(0.5, other.kill).start()
    assert Trainer(CONFIG, tmp_path).step == 20
    assert other.wait() == -signal.SIGKILL


def test_a_training_cell_that_failed_can_be_run_again(tmp_path: Path) -> None:
    first = Trainer(CONFIG, tmp_path)
    loop = iter(first)  # as a traceback keeps it: neither at its end nor closed
    while next(loop).step < 30:
        pass
    second = Trainer(CONFIG, tmp_path)
    assert second.step == 20
    assert list(second)[-1].kind == "done"
    with pytest.raises(GlamkitError, match="was opened anew since this trainer was made; make the trainer again"):
        list(first)
    loop.close()
    assert given(second)[0] == "done"  # the old one has written nothing


def test_where_locks_do_nothing_an_earlier_trainer_saves_nothing_over_a_later_one(tmp_path: Path) -> None:
    """As in one process, which may enter the lock twice."""
    first = Trainer(CONFIG, tmp_path)
    loop = iter(first)
    while next(loop).step < 30:
        pass
    second = finished(CONFIG, tmp_path)
    before = {path: path.read_bytes() for name in ("checkpoint", "replay") for path in (tmp_path / name).iterdir()}
    with pytest.raises(GlamkitError, match="was opened anew since this trainer was made; make the trainer again"):
        list(loop)
    assert first.step == 40 and given(second)[0] == "done"
    assert {path: path.read_bytes() for path in before} == before


def test_a_loop_that_a_traceback_keeps_has_no_say_any_more(tmp_path: Path) -> None:
    """As when the body of a training cell failed and the cell is run again, with the same trainer or a new one."""
    ours = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    trainer = Trainer(CONFIG, tmp_path)
    kept = [iter(trainer), iter(trainer)]
    for loop in kept:
        next(loop)
    trainer = Trainer(CONFIG, tmp_path)
    for event in trainer:
        if event.step == 10:
            for loop in kept:
                loop.close()
        if event.step == 20 and event.kind == "step":
            os.kill(os.getpid(), signal.SIGINT)
    assert given(trainer) == ("stopped", 20, 20, "interrupted")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == ours
    loop = iter(trainer)
    next(loop)
    with pytest.raises(KeyboardInterrupt):
        for _ in trainer:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    loop.close()
    assert given(trainer)[3] == "left at once, without saving"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == ours


def test_on_a_disk_without_locks_a_warning_comes_and_the_newest_trainer_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    for each in (one, other):
        with each:
            each.claim()
            each.check()
    assert "cannot be locked (Operation not supported)" in caplog.text
    with pytest.raises(GlamkitError, match="opened anew"), one:
        one.check()


# The status file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not the status of a glamkit run"),
        ('{"format": 2, "state": "runing"}', "is not the status of a glamkit run, damaged, or that of a newer glamkit"),
        ('{"format": 1, "state": "running"}', "is not the status of a glamkit run, damaged"),
        ("{", "cannot be read"),
    ],
)
def test_a_status_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(GlamkitError, match=message):
        status.read(path)


def test_a_full_disk_costs_the_status_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    status.write(tmp_path / "status.json", "running", 1, 0)
    assert "No space left on device" in caplog.text and not list(tmp_path.iterdir())
