"""The live view: it tells the truth, it does not disturb training, and it survives stops, resumes and full disks."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clock

from glamkit import notebook, plotting
from glamkit.analysis.monitor import Monitor
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.notebook import Bar
from glamkit.runs import log, status
from glamkit.runs.folder import Run
from glamkit.training.diagnostics import verdict
from glamkit.training.trainer import Event, Trainer


def train(folder: Path, watched: bool, stop_at: int = 0, changes: str = "") -> Trainer:
    """A debug run, with or without a monitor, asked to stop at a step as the stop button would."""
    trainer = Trainer(preset("debug", changes), folder)
    view = Monitor(trainer, every=0.0)
    if watched:
        view.__enter__()
    for event in trainer:
        if watched:
            view.show(event)
        trainer.session.stops.reason = "asked to by its program" if stop_at and trainer.step >= stop_at else ""
    if watched:
        view.__exit__(None, None, None)
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run that nobody watched."""
    return train(tmp_path_factory.mktemp("plain") / "run", watched=False)


def columns(folder: Path) -> dict[int, int]:
    """Step and start of the moment of each saved column."""
    saved = [np.load(path) for path in sorted((folder / "videos").glob("strip-*.npz"))]
    return {int(column["step"]): int(column["start"]) for column in saved}


def test_looking_changes_nothing(trained: Trainer, tmp_path: Path) -> None:
    watched = train(tmp_path / "run", watched=True)
    assert len(columns(tmp_path / "run")) > 2  # it did look
    ours, theirs = watched.agent.state_dict(), trained.agent.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(watched.replay.actions[:96], trained.replay.actions[:96])


def test_lines_for_a_log(trained: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", watched=True).run
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 0/96  time left: not known yet"
    assert any(re.fullmatch(r"step 80/96  world_model \d+\.\d  \d+\.\d steps/s  \d+s left", line) for line in lines)
    done = max(number for number, line in enumerate(lines) if line.endswith("done"))
    assert re.fullmatch(r"step 96/96  world_model \d+\.\d  done", lines[done])
    assert lines[done + 1 :] == [str(finding) for finding in verdict(log.read(run.log_file), run.config())]
    view = Monitor(trained)
    view.show(Event("episode", 90, {"episode/return": -20.0, "episode/length": 900.0}))
    assert "  return -20.0" in view.state()


def test_a_line_only_now_and_then(trained: Trainer, capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    view = Monitor(trained, every=10.0).__enter__()
    for step in range(40):
        clock.now += 1.0
        view.show(Event("log", step, {}))
    assert len(capsys.readouterr().out.splitlines()) == 5  # at once, then every ten seconds


def test_a_stopped_batch_run_does_not_look_complete(tmp_path: Path) -> None:
    message = r"stopped at step 60 of 96 and saved \(asked to by its program\); run it again"
    with pytest.raises(GlamkitError, match=message):
        train(tmp_path / "run", watched=True, stop_at=60)
    assert (tmp_path / "run" / "checkpoint" / "000000060.pt").exists()


def test_the_strip_goes_on_after_a_stop(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(GlamkitError):
        train(folder, watched=True, stop_at=60)
    before = columns(folder)
    damaged = folder / "videos" / "strip-000000049.npz"
    damaged.write_bytes(b"damaged")
    with np.load(folder / "videos" / "strip-000000055.npz") as column:
        np.savez(folder / "videos" / "strip-000000090.npz", **(dict(column) | {"step": 90}))
    train(folder, watched=True)
    damaged.unlink()
    after = columns(folder)
    assert list(before) == [49, 51, 55]
    assert list(after) == [51, 55, 62, 72, 84, 96]  # not what is not reached yet
    assert set(after.values()) == set(before.values())  # always the same moment


def test_the_strip_shows_one_moment_where_the_replay_forgets_the_first_steps(tmp_path: Path) -> None:
    train(tmp_path / "run", watched=True, changes="replay.capacity=64")
    starts = set(columns(tmp_path / "run").values())
    assert len(starts) == 1 and starts.pop() >= 96 - 64
    forgotten = [dict.fromkeys(("real", "reconstructed", "imagined"), np.zeros((8, 8, 3), np.uint8))] * 2
    moments = [column | {"step": 50, "ahead": 5, "start": start} for start, column in enumerate(forgotten)]
    assert "another once it was forgotten" in plotting.strip(moments).words()


class Display:
    """What JupyterLab would show: one entry for each place, the newest last."""

    def __init__(self) -> None:
        self.places: list[list[Any]] = []

    def __call__(self, shown: Any, display_id: bool) -> Any:
        assert display_id
        self.places.append([shown])
        return type("Handle", (), {"update": self.places[-1].append})


class Watched:
    """A shell of JupyterLab."""

    class kernel:
        _allow_stdin = True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Display:
    screen = Display()
    monkeypatch.setattr(notebook, "shell", Watched)
    monkeypatch.setattr("IPython.display.display", screen)
    return screen


def test_the_page_is_updated_in_place(tmp_path: Path, screen: Display) -> None:
    trainer = Trainer(preset("debug"), tmp_path / "run")
    with Monitor(trainer) as view:
        for event in trainer:
            view.show(event)
    bars, curves, strips = screen.places
    assert all(isinstance(bar, Bar) for bar in bars)
    assert '<progress value="96" max="96"' in bars[-1]._repr_html_() and str(tmp_path) in bars[-1]._repr_html_()
    assert all(isinstance(picture, plotting.Picture) for picture in (*curves, *strips))
    assert len(curves[-1].axes[1].lines[0].get_xdata()) == 3  # reconstruction at 64, 80 and 96
    assert [label.get_text() for label in strips[-1].axes[0].get_xticklabels()][-1] == "96"


def test_a_stopped_page_says_how_to_go_on(tmp_path: Path, screen: Display) -> None:
    trainer = Trainer(preset("debug"), tmp_path / "run")
    stopped = r"stopped at step 1 of 96 and saved"  # so the cells below are not run on a half-trained agent
    with pytest.raises(GlamkitError, match=stopped), Monitor(trainer) as view:
        for event in trainer:
            view.show(event)
            trainer.session.stops.reason = "asked"
    first, last = screen.places[0][0], screen.places[0][-1]
    assert f"import glamkit; glamkit.notebook.watch({str(tmp_path / 'run')!r})" in repr(first)
    assert "run this cell again to go on" in last._repr_html_() and "run this cell again to go on" in repr(last)


@pytest.mark.parametrize("watched", [True, False])
def test_a_training_that_fails_is_not_shown_as_going_on(
    trained: Trainer, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], watched: bool
) -> None:
    screen = request.getfixturevalue("screen") if watched else None
    with pytest.raises(OSError, match="disk"), Monitor(trained) as view:
        view.show(Event("log", 5, {}))
        raise OSError("disk")
    last = repr(screen.places[0][-1]) if screen else capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("step 5/96") and "failed" in last and " left" not in last
    assert not screen or ("ended with the error below" in last and "goes on" not in last)


def test_drawing_takes_less_than_three_percent(
    trained: Trainer, screen: Display, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [0.0]

    def slow(*_: Any) -> str:
        clock.now += 0.5
        spent[0] += 0.5
        return "a picture"

    monkeypatch.setattr(plotting, "live", slow)
    view = Monitor(trained).__enter__()
    began, view.entries = clock.now, []
    for step in range(600):
        clock.now += 1.0
        view.show(Event("log", step, {}))
    assert 0.01 < spent[0] / (clock.now - began) < 0.03
    assert len(screen.places) == 3  # the bar, the curves, and the strip that the run folder kept


def test_a_full_disk_costs_pictures_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "videos").write_text("in the way")
    assert train(folder, watched=True).step == 96
    assert "training goes on without it" in caplog.text


def test_compiling_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stop, first in ((60, "step 0/96  time left: not known yet"), (96, "step 60/96  compiling ")):
        trainer = Trainer(preset("debug", "imagination.begin=50"), tmp_path / "run")
        trainer.machine.compiles = True
        with contextlib.suppress(GlamkitError), Monitor(trainer, every=1e9) as view:  # one of the two is stopped
            for event in trainer:
                view.show(event)
                trainer.session.stops.reason = "asked" if trainer.step >= stop else ""
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(first)
        steps = {line.split()[1] for line in lines if "compiling" in line}
        assert steps == ({"48/96", "50/96"} if stop == 60 else {"60/96"})
    whole = Trainer(preset("debug", "imagination.begin=50"), tmp_path / "run")
    whole.machine.compiles = True
    with Monitor(whole, every=1e9) as view:
        for event in whole:
            view.show(event)
    assert whole.step == 96 and "compiling" not in capsys.readouterr().out  # nothing is left to do


def test_an_evaluation_amid_training_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(preset("debug", "evaluation.every=48 evaluation.games=1"), tmp_path / "run")
    with Monitor(trainer, every=0.0) as view:
        for event in trainer:
            view.show(event)
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("step 48/96  evaluation ")]
    assert shown[0].startswith("step 48/96  evaluation 0 of 2 episodes  step 0/40  ")
    assert re.search(r"1 of 2 episodes  step 39/40  [\d.e+]+ steps/s$", shown[-1])
    assert "evaluation" not in lines[lines.index(shown[-1]) + 1]


def test_who_is_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notebook.is_interactive()  # plain Python
    monkeypatch.setattr(notebook, "shell", Watched)
    assert notebook.is_interactive()
    monkeypatch.setattr(Watched.kernel, "_allow_stdin", False)  # papermill
    assert not notebook.is_interactive()


# From elsewhere -------------------------------------------------------------------------------------------------------


def test_a_run_is_followed_from_any_kernel(tmp_path: Path, screen: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is trained step by step while the watcher sleeps, and what is shown follows it to its end."""
    trainer = Trainer(preset("debug"), tmp_path / "run")
    next(steps := iter(trainer))

    def asleep(_: float) -> None:
        for event in steps:
            if event.step == 80 and event.kind == "step":
                return

    monkeypatch.setattr(notebook.time, "sleep", asleep)
    notebook.watch(tmp_path / "run")
    bars, curves = screen.places
    assert bars[0].text == "step 0/96  running" and bars[-1].text == "step 96/96  done"
    (line,) = (one for one in log.read(trainer.run.log_file) if (one["step"], one["kind"]) == (80, "log"))
    speed = line["time/steps_per_second"]
    assert bars[1].text == f"step 80/96  running  {speed:.1f} steps/s  {notebook.duration(16 / speed)} left"
    assert len(curves[-1].axes) == 2 and len(bars) == 3  # no episode has ended, so there is no curve of returns


def test_watching_ends_where_nobody_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(GlamkitError, match="holds no run"):
        notebook.watch(run.folder)
    run.folder.mkdir()
    run.begin(preset("debug"), {})
    notebook.watch(run.folder)
    assert "step 0/96" in (line := capsys.readouterr().out) and "Nobody has trained this run yet." in line
    status.write(run.status_file, "running", 70, 60)  # its writer died: nobody holds the lock
    notebook.watch(run.folder)
    assert "step 70/96  its process is gone; what it had saved, 60 steps, is kept" in capsys.readouterr().out
    status.write(run.status_file, "failed", 80, 60, "the disk is full")
    notebook.watch(run.folder)
    assert "step 80/96  failed\nthe disk is full" in capsys.readouterr().out
