"""Runs side by side: who makes them, what is tried again, and where each one is, said from its folder alone."""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_runs import catch_jobs, evaluated

from glamkit.errors import INTERRUPTED, GlamkitError, StoppedError
from glamkit.sweeps import pool, status_table, worker
from glamkit.sweeps.job import FRESH, Job, JobRecord
from glamkit.sweeps.pool import Pool
from glamkit.sweeps.status_table import StatusTable, run_jobs


class Script:
    """An engine whose processes only say how they ended, after so many looks."""

    def __init__(self, capacity: int, endings: dict[str, list[int]], looks: int = 2) -> None:
        self.capacity, self.endings, self.looks = capacity, endings, looks
        self.started: list[tuple[str, int]] = []
        self.most = self.now = 0

    def start(self, job: Job, attempt: int) -> Played:
        self.started.append((job.name, attempt))
        self.now += 1
        self.most = max(self.most, self.now)
        ending = self.endings.get(job.name, [0])
        return Played(self, job, ending[min(attempt, len(ending)) - 1], attempt)


class Played:
    def __init__(self, engine: Script, job: Job, ending: int, attempt: int) -> None:
        self.engine, self.job, self.ending, self.left, self.attempt = engine, job, ending, engine.looks, attempt
        JobRecord.begin(attempt).write(job.run.folder)

    def poll(self) -> int | None:
        self.left -= 1
        if self.left:
            return None
        self.engine.now -= 1
        if self.ending >= 0:
            state = {0: "done", INTERRUPTED: "stopped"}.get(self.ending, "failed")
            JobRecord.begin(self.attempt)._replace(state=state, error=["ValueError: no"]).write(self.job.run.folder)
        if self.ending > 0:
            self.job.errors_file.write_text("Traceback\n  line\nValueError: no\n")
        if self.ending == 0:
            evaluated(self.job)
        return self.ending

    def finish(self) -> None:
        self.left = 1

    def kill(self) -> None:
        raise AssertionError("it ends by itself")


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_table, "time", type("Time", (), {**vars(time), "sleep": staticmethod(lambda _: None)}))


@pytest.mark.usefixtures("_no_pause")
def test_failed_runs_are_tried_again_and_then_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    todo = catch_jobs(tmp_path, 5)
    evaluated_before, *_ = todo
    evaluated_before.run.folder.mkdir(parents=True)
    evaluated(evaluated_before)
    names = [job.name for job in todo]
    engine = Script(2, {names[1]: [1, -9, 0], names[2]: [1], names[3]: [-9]})
    with pytest.raises(GlamkitError, match=f"2 of 5 runs failed; {names[2]}: ValueError: no"):
        run_jobs(Pool(todo, engine, 2))
    assert engine.most == 2
    assert names[0] not in [name for name, _ in engine.started]
    assert [attempt for name, attempt in engine.started if name == names[1]] == [1, 2, 3]
    assert [sum(name == other for other, _ in engine.started) for name in names] == [0, 3, 3, 3, 1]
    assert [job.progress().state for job in todo] == ["done", "done", "failed", "failed", "done"]
    out = capsys.readouterr().out
    assert f"{names[2]}: ValueError: no\n" in out
    assert f"{names[3]}: killed by signal 9; was there memory enough?\n" in out
    assert f"{names[1]}: failed, and is tried again" in out
    assert f"{names[4]}: mean return 1.50" in out

    again = Script(9, {})
    run_jobs(Pool(todo, again))
    assert again.started == [(names[2], 1), (names[3], 1)]
    assert {job.progress().state for job in todo} == {"done"}


@pytest.mark.usefixtures("_no_pause")
def test_a_stopped_batch_is_not_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = catch_jobs(tmp_path)
    engine = Script(2, {job.name: [2] for job in todo}, looks=100)

    def press(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_table.time, "sleep", staticmethod(press), raising=False)
    with pytest.raises(StoppedError, match="stopped, and everything is saved: run it again to go on"):
        run_jobs(Pool(todo, engine))
    assert len(engine.started) == 2
    assert not todo[2].run.started


@pytest.mark.usefixtures("_no_pause")
def test_a_run_that_stopped_on_purpose_is_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    todo = catch_jobs(tmp_path, 3)
    stopped, failed, done = (job.name for job in todo)
    engine = Script(1, {stopped: [INTERRUPTED], failed: [1, 0]})
    with pytest.raises(StoppedError, match=f"1 of 3 runs stopped before the end; {stopped}: ValueError: no"):
        run_jobs(Pool(todo, engine, 2))
    assert sorted(engine.started) == [(stopped, 1), (failed, 1), (failed, 2), (done, 1)]
    out = capsys.readouterr().out
    assert f"{stopped}: ValueError: no\n" in out and out.splitlines()[-1].endswith("1 stopped")
    assert [job.progress().state for job in todo] == ["cut", "done", "done"]
    assert status_table.rows({stopped: todo[0].progress()})[1][-1] == "ValueError: no"


class Refused(Played):
    """Gives way, as another process is at work in its folder."""

    def poll(self) -> int:
        return 2


@pytest.mark.usefixtures("_no_pause")
def test_what_another_process_makes_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = catch_jobs(tmp_path, 3)
    engine = Script(1, {})

    def start(job: Job, attempt: int) -> Played:
        if job is todo[0]:
            todo[1].run.folder.mkdir(exist_ok=True)
            evaluated(todo[1])  # by the other process
            return Refused(engine, job, 2, attempt)
        return Script.start(engine, job, attempt)

    monkeypatch.setattr(engine, "start", start)
    with pytest.raises(GlamkitError, match=f"1 of 3 runs failed; {todo[0].name}: status 2"):
        run_jobs(Pool(todo, engine))
    assert engine.started == [(todo[2].name, 1)]
    assert [job.progress().state for job in todo] == ["running", "done", "done"]


class Stuck(Played):
    """Does not end when it is asked to."""

    def poll(self) -> int | None:
        return None

    def kill(self) -> None:
        """Ends at once, without a word."""


@pytest.mark.usefixtures("_no_pause")
def test_what_had_to_be_killed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = catch_jobs(tmp_path, 2)
    engine = Script(2, {})
    monkeypatch.setattr(
        engine, "start", lambda job, attempt: (Stuck if job is todo[0] else Played)(engine, job, 0, attempt)
    )
    monkeypatch.setattr(pool, "PATIENCE", 0.2)

    def press(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_table.time, "sleep", staticmethod(press), raising=False)
    said = f"stopped, but {todo[0].name} had to be killed before saving: run it again to go on"
    with pytest.raises(StoppedError, match=said):
        run_jobs(Pool(todo, engine))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 of 2 runs done") and last.endswith(said)
    assert (todo[0].progress().state, todo[1].progress().state) == ("failed", "done")


def test_a_run_has_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = catch_jobs(tmp_path, 1)
    folder = job.run.folder
    folder.mkdir(parents=True)
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    order = json.dumps({"config": asdict(job.config), "attempt": 1, "notebook": None})
    monkeypatch.setattr("sys.stdin", io.StringIO(order + "\n"))
    (folder / ".job.owner").write_text("4321 elsewhere")
    with (folder / ".job.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert worker.main(folder) == 2
    message = (
        "is being trained by another process ('4321' on 'elsewhere'); wait for it or end it, or use another run_dir."
    )
    assert capsys.readouterr().err == f"{folder} {message}\n"
    assert JobRecord.read(folder) is None  # only the other writes down where the run is


def test_where_a_run_is_from_its_files(tmp_path: Path) -> None:
    (job,) = catch_jobs(tmp_path, 1)
    folder = job.run.folder
    assert (job.progress().state, job.progress().work) == ("queued", 48)  # half of its steps are random
    folder.mkdir(parents=True)
    JobRecord.begin(1).write(folder)
    assert (job.progress().state, job.progress().step, job.progress().speed) == ("running", 0, 0)
    job.run.log_file.write_text('{"step": 48, "kind": "log", "time/steps_per_second": 900.0}\n')
    assert (job.progress().speed, job.progress().work) == (0, 48)  # random steps only
    with job.run.log_file.open("a") as file:
        file.write('{"step": 64, "kind": "log", "time/steps_per_second": 2.0}\n')
    assert job.progress().speed == 0  # the line of the first update counts what is compiled for it
    with job.run.log_file.open("a") as file:
        file.write('{"step": 80, "kind": "log", "time/steps_per_second": 4.0}\n{"step": 82, "kind": "episode"}\n{"st')
    assert job.progress()[:4] == ("running", 82, 96, 4.0)
    assert job.progress().work == 14
    stale = json.loads((folder / "job.json").read_text()) | {"beat": time.time() - 2 * FRESH}
    (folder / "job.json").write_text(json.dumps(stale))
    assert job.progress().state == "cut"
    job.fail(3, ["a", "b"])
    assert (job.progress().state, job.progress().record.error) == ("failed", ["a", "b"])
    evaluated(job)
    assert job.progress().state == "failed"  # its notebook did not come to its end
    assert not job.done()
    (folder / "job.json").write_text("damaged")
    assert (job.progress().state, job.progress().score) == ("done", 1.5)


def test_the_table_puts_trouble_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = catch_jobs(tmp_path)
    for job in todo[:3]:
        job.run.folder.mkdir(parents=True)
    evaluated(todo[0])
    todo[1].fail(3, ["line", "out of <memory>"])
    JobRecord.begin(2).write(todo[2].run.folder)
    todo[2].run.log_file.write_text('{"step": 80, "kind": "log", "time/steps_per_second": 4.0}\n')
    seen = {job.name: job.progress() for job in todo}
    rows = status_table.rows(seen)
    assert [row[1] for row in rows[1:]] == ["running", "failed", "queued", "done"]
    assert rows[1][:5] == ("Catch-v0/seed3", "running", "80/96", "4", "4s")
    assert rows[1][6].startswith("attempt 2  on ")
    assert rows[2][6] == "attempt 3  out of <memory>"
    assert rows[4][5] == "1.50"
    # 16 steps of the one at work, and 48 of the one in the queue after as many random ones; none of what failed.
    message = "1 of 4 runs done, 1 running, 1 failed, 1 queued  step 176/384  4 steps/s  16s left"
    assert status_table.summary(seen) == message
    todo[2].run.log_file.write_text('{"step": 96, "kind": "log", "time/steps_per_second": 4.0}\n')
    last = {job.name: job.progress() for job in (todo[0], todo[2])}
    assert status_table.rows(last)[1][4:] == ("", "", f"attempt 2  on {socket.gethostname()}  evaluation")
    assert status_table.summary(last) == "1 of 2 runs done, 1 running  step 192/192  evaluation"
    evaluating, training = last[todo[2].name], seen[todo[2].name]._replace(speed=4.0, work=16)
    both = {"one": evaluating, "other": training}  # who evaluates makes none of the steps that are left
    assert status_table.summary(both).endswith("  4 steps/s  4s left")
    assert (
        status_table.summary({name: seen[name] for name in list(seen)[:2]}) == "1 of 2 runs done, 1 failed  step 96/192"
    )
    shown, drawn = StatusTable(Pool(todo, Script(1, {}))), list[str]()
    monkeypatch.setattr(shown.live, "show", lambda table: drawn.append(str(table)))
    shown.draw()
    assert drawn[-1] == "1 of 4 runs done, 1 running, 1 failed, 1 queued  step 192/384  4 steps/s  12s left"
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((50, 5)))
    shown.live.terminal = True
    shown.draw("stopped")
    assert len(drawn[-1].splitlines()) == 3 and drawn[-1].endswith("stopped")


def test_a_run_that_is_made_again_is_not_done_before(tmp_path: Path) -> None:
    """Its score by the settings of before is none of this batch, wherever it is looked at."""
    (before,) = catch_jobs(tmp_path, 1)
    before.run.folder.mkdir(parents=True)
    before.run.begin(before.config, {})
    JobRecord.begin(1)._replace(state="done").write(before.run.folder)
    evaluated(before)
    assert before.done()
    job = before._replace(config=before.config.override({"evaluation.episodes": 7}))
    assert (job.final(), job.progress().state, job.done()) == ((None, 0), "cut", False)
    table = StatusTable(Pool([job], Script(1, {}, looks=3)))
    table.draw()
    seen = [table.seen[job.name]]
    for _ in range(3):
        table.pool.tend()
        table.draw()
        seen.append(table.seen[job.name])
    assert [one.state for one in seen] == ["cut", *["running"] * 3] and {one.score for one in seen} == {None}
    table.pool.tend()  # its trainer puts the old score aside
    table.draw()
    assert (table.seen[job.name].state, table.seen[job.name].score) == ("done", 1.5)
