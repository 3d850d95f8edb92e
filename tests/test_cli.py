"""The one command: help on one screen, examples that parse, nearest names, exit status, and what `train` leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from books import started

import glamkit
from glamkit import cli, notebook
from glamkit.cli.group import glamkit as group

SCREEN = 24  # lines
SMALL = ["--preset", "debug", "--set", "runtime.compile=off"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glamkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_fits_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= SCREEN and "..." not in out.split("Commands:")[1]
    assert re.findall(r"^  ([a-z]+) {2,}", out.split("Commands:")[1], re.M) == list(group.list_commands(None))  # type: ignore[arg-type]
    assert cli.main([]) == 0 and capsys.readouterr().out == out


@pytest.mark.parametrize("name", sorted(group.commands))
def test_every_command_has_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    lines = re.findall(r"^    glamkit (.+)$", capsys.readouterr().out, re.M)
    assert lines
    for line in lines:
        first, *rest = shlex.split(line)
        assert first == name
        group.commands[name].make_context(name, rest)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("trian Pong", "No such command 'trian'. Did you mean 'train'?"),
        ("train Pnog", "unknown game 'Pnog'; did you mean 'Pong'?"),
        ("train Pong --preset debgu", "unknown preset 'debgu'; did you mean 'debug'?"),
        ("train Pong --set trainer.warmpu=60", "unknown setting 'trainer.warmpu'; did you mean 'trainer.warmup'"),
        ("train Pong --sede 3", "No such option '--sede'. (Did you mean one of: '--seed',"),
        ("train", "Missing argument 'GAME'."),
        ("notebook 02_trian", "unknown notebook '02_trian'; did you mean '02_train'?"),
        ("evaluate nowhere/at/all", "nowhere/at/all is no run folder and no shared file"),
        ("sweep status", "sweep status takes one folder"),
        ("sweep a.yaml b.yaml", "sweep takes one file, not 2"),
        ("compare one", "Missing argument 'RUN_B'."),
    ],
)
def test_wrong_input_gets_a_sentence(
    line: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == (2 if sentence.startswith(("No such", "Missing")) else 1)
    message = capsys.readouterr()
    assert sentence in message.err and len(message.err.strip().splitlines()) == 1 and message.out == ""
    assert not list(tmp_path.iterdir())  # such as an empty run folder


def test_the_command_line_is_left_to_click(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows click alone does with "runs/*" what shells elsewhere do; and only if it takes the line itself."""
    taken: list[object] = []
    monkeypatch.setattr(group, "main", lambda given, **_: taken.append(given))
    monkeypatch.setattr(sys, "argv", ["glamkit", "report", "runs/*"])
    assert (cli.main(), cli.main(["doctor"]), cli.main([])) == (0, 0, 0)
    monkeypatch.setattr(sys, "argv", ["glamkit"])
    assert cli.main() == 0 and taken == [None, ["doctor"], ["--help"], ["--help"]]


def test_it_starts_without_torch_and_says_its_version() -> None:
    program = "import sys; sys.modules['torch'] = None; from glamkit import cli; sys.exit(cli.main(['--version']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"glamkit, version {glamkit.__version__}\n")


def test_the_installed_command_is_this_one() -> None:
    path = Path(sys.executable).with_name("glamkit")
    if not path.exists():
        pytest.skip("glamkit is not installed beside this Python")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == run("--version").stdout != ""


def test_tab_completion_shows_the_public_names() -> None:
    assert dir(glamkit) == sorted(glamkit.__all__)
    for name in dir(glamkit):
        assert getattr(glamkit, name) is not None
    with pytest.raises(AttributeError, match="'glamkit' has no attribute 'Trainr'"):
        _ = glamkit.Trainr


def test_training_leaves_what_notebook_02_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "glamkit/Catch-v0", *SMALL, "--run-dir", str(tmp_path / "catch")]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert "step 96/96" in out and "mean return" in out and str(tmp_path / "catch") in out
    left = {path.name for path in (tmp_path / "catch").iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoint", "replay", "evaluation.json", "videos", "status.json"} <= left
    assert (tmp_path / "catch" / "videos" / "strip.png").exists()
    assert len(json.loads((tmp_path / "catch" / "evaluation.json").read_text())["episodes"]) == 2
    before = (tmp_path / "catch" / "evaluation.json").stat().st_mtime_ns
    assert cli.main(line) == 0, "a finished run is left alone"
    assert (tmp_path / "catch" / "evaluation.json").stat().st_mtime_ns == before
    assert cli.main([*line, "--no-resume"]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_an_interrupt_saves_and_a_terminal_shows_one_line(tmp_path: Path) -> None:
    line = ["train", "glamkit/Catch-v0", *SMALL, "--env-steps", "100000", "--run-dir", str(tmp_path / "catch")]
    parent, child = pty.openpty()
    with started([sys.executable, "-m", "glamkit", *line], stdout=child, stderr=child) as process:
        os.close(child)
        out, stopped, deadline = b"", False, time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                out += os.read(parent, 4096)
            except OSError:  # the other end is closed
                break
            if not stopped and b"left" in out and b"steps/s" in out:
                process.send_signal(signal.SIGINT)
                stopped = True
        os.close(parent)
        assert process.wait(60) == 130
    text = out.decode()
    assert "and saved (" in text and "run it again with the same run_dir to go on." in text
    updates = [part for part in text.split("\r\x1b[J") if part.startswith("step ")]
    assert len(updates) > 1 and not any("\n" in part for part in updates[:-1])
    assert json.loads((tmp_path / "catch" / "status.json").read_text())["state"] == "stopped"


def test_a_run_has_a_folder_that_every_disk_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from glamkit import training
    from glamkit.errors import GlamkitError

    names: list[str] = []

    def begun(_: object, folder: str, **__: object) -> None:
        names.append(Path(folder).name)
        raise GlamkitError("enough.")

    monkeypatch.setattr(training, "Trainer", begun)
    for game in ("mygames:Chase-v0", "mygames:there/Chase-v0", "glamkit/Catch-v0", "ALE/Pong-v5"):
        assert cli.main(["train", game]) == 1
    assert names == [f"{name}-quick-seed1" for name in ("chase-v0", "chase-v0", "catch-v0", "pong")]
    for given in (["--set", "trainer.seed=3"], ["--seed", "3"], ["--seed", "3", "--set", "trainer.seed=3"]):
        assert cli.main(["train", "Pong", *given]) == 1 and names.pop() == "pong-quick-seed3"


def test_a_failure_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glamkit.errors import GlamkitError
    from glamkit.training import Trainer

    def broken(_: Trainer) -> None:
        raise GlamkitError("the game crashed.")

    monkeypatch.setattr(Trainer, "collect", broken)
    assert cli.main(["train", "glamkit/Catch-v0", *SMALL, "--run-dir", str(tmp_path / "run")]) == 1


def test_a_batch_that_is_stopped_is_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from glamkit.errors import GlamkitError, StoppedError
    from glamkit.sweeps import status_table
    from glamkit.sweeps.local import Local

    monkeypatch.setattr(Local, "hours", lambda *_: 0.1)
    given = ["--preset", "debug", "--seeds", "1", "--folder", str(tmp_path)]
    batches = (["sweep", "--games", "glamkit/Catch-v0", *given], ["ablate", *given])
    for error, status in ((StoppedError("stopped with 0 runs done."), 130), (GlamkitError("a run failed."), 1)):

        def ended(*_: object, error: GlamkitError = error) -> None:
            raise error

        monkeypatch.setattr(status_table, "run_jobs", ended)
        for line in batches:
            assert cli.main(line) == status
            assert capsys.readouterr().err.endswith(f"{error}\n")


def test_an_evaluation_that_fails_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glamkit.errors import GlamkitError
    from glamkit.training import evaluation

    def broken(*_: object, **__: object) -> None:
        raise GlamkitError("the game crashed too often.")

    def full(*_: object) -> None:
        raise GlamkitError("no space left.")

    run_dir = str(tmp_path / "run")
    for name, error in (("evaluate", broken), ("replace_text", full)):
        with monkeypatch.context() as patched:
            patched.setattr(evaluation, name, error)
            assert cli.main(["train", "glamkit/Catch-v0", *SMALL, "--run-dir", run_dir]) == 1
            assert cli.main(["evaluate", run_dir, "--no-videos"]) == 1


def test_notebooks_are_copied_but_never_over_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "mine"
    assert cli.main(["lab", str(place), "--copy-only"]) == 0
    names = sorted(path.name for path in place.iterdir())
    assert names == sorted(path.name for path in notebook.folder().glob("*.ipynb")) and "02_train.ipynb" in names
    (place / "02_train.ipynb").write_text("{}")
    (place / "03_imagine.ipynb").unlink()
    capsys.readouterr()
    assert cli.main(["lab", str(place), "--copy-only"]) == 0
    assert (place / "02_train.ipynb").read_text() == "{}" and (place / "03_imagine.ipynb").exists()
    assert "Those that were there before are as they were." in capsys.readouterr().out
    assert cli.main(["lab", "--copy-only"]) == 0
    assert str(notebook.folder()) in capsys.readouterr().out


def test_options_of_jupyterlab_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], Path]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.play, "call", lambda *given: asked.append(given) or 0)
    assert cli.main(["lab", "--no-browser", "--port=9"]) == 0 == cli.main(["lab", "mine", "--no-browser"])
    assert [(command[3:], place) for command, place in asked] == [
        (["--no-browser", "--port=9"], notebook.folder()),
        (["--no-browser"], Path("mine")),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_mistyped_parameter_starts_no_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.ipynb"
    assert cli.main(["notebook", "05_report", "-p", "repeast", "20", "--output", str(target)]) == 1
    assert capsys.readouterr().err == "unknown parameter 'repeast'; did you mean 'repeats'?\n" and not target.exists()


@pytest.mark.slow
def test_a_notebook_runs_in_batch(tmp_path: Path) -> None:
    target = tmp_path / "report.ipynb"
    done = run("notebook", "report", "-p", "repeats", "20", "--output", str(target))
    assert done.returncode == 0 and json.loads(target.read_bytes())["cells"], done.stderr
    done = run("notebook", "05_report", "-p", "repeats", "many", "--output", str(target))
    assert done.returncode == 1 and f"what it showed is in {target}" in done.stderr


def test_an_executed_notebook_makes_no_folder_that_hides_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.play, "call", lambda command: targets.append(command[4]) or 0)
    (tmp_path / "pong.glam").touch()
    (tmp_path / "old").mkdir()
    places = [("03_imagine", "catch"), ("imagine", "pong.glam"), ("04_variation", "old"), ("02_train", "new")]
    for name, run_dir in places:
        assert cli.main(["notebook", name, "-p", "run_dir", run_dir]) == 0
    assert cli.main(["notebook", "05_report"]) == 0
    names = ["runs/notebooks/03_imagine", "runs/notebooks/03_imagine", "old/04_variation", "new/02_train"]
    assert targets == [str(tmp_path / f"{name}.ipynb") for name in [*names, "runs/notebooks/05_report"]]
    assert not (tmp_path / "catch").exists()
    capsys.readouterr()
    for where in (["--output", "pong.glam/out.ipynb"], ["-p", "run_dir", "pong.glam"]):
        assert cli.main(["notebook", "02_train", *where]) == 1
        assert re.fullmatch(r".*pong.glam cannot be written: File exists\.\n", capsys.readouterr().err)
    assert len(targets) == 5, "nothing was started"


@pytest.mark.skipif(os.name != "posix", reason="signals itself")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_lets_the_program_inside_end_by_itself(name: str, tmp_path: Path) -> None:
    """JupyterLab asks whether to shut down, and papermill saves: that takes more than a moment."""
    from glamkit.cli.group import call

    ended, program = tmp_path / "ended", tmp_path / "program.py"
    program.write_text(f"""
import os, pathlib, signal, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
os.kill(os.getppid(), signal.{name})
time.sleep(0.5)
assert told == ([] if "{name}" == "SIGINT" else ["SIGTERM"])  # Ctrl+C comes from the terminal
pathlib.Path({str(ended)!r}).touch()
""")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        call([sys.executable, str(program)])
    assert signal.getsignal(signal.SIGTERM) == before
    assert ended.exists() and call([sys.executable, "-c", "raise SystemExit(3)"], tmp_path) == 3


def test_a_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from made_runs import made_run

    monkeypatch.chdir(tmp_path)
    made_run(tmp_path / "runs" / "a", [1.0], game="Pong", seed=1)
    (tmp_path / "taken").write_text("kept")
    assert cli.main(["report", "runs", "--output", "taken/deep"]) == 1
    assert re.fullmatch(r".*taken/deep.* cannot be written: Not a directory\.\n", capsys.readouterr().err)
    assert (tmp_path / "taken").read_text() == "kept"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train glamkit/Catch-v0 --seed 1 --set trainer.seed=2", "trainer.seed is given twice, as '2' and as 1"),
        ("benchmark --device cpu --set runtime.device=cuda", "runtime.device is given twice, as 'cuda' and as 'cpu'"),
        ("sweep --games Pong --variant a:env.sticky=0 --variant a:env.sticky=0.5", "two runs would share the folder"),
        ("ablate --overrides trainer.seed=5", "trainer.seed is given twice"),
    ],
)
def test_what_is_given_twice_is_refused(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(line)) == 1
    assert sentence in capsys.readouterr().err
