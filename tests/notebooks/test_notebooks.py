"""The notebooks as papermill runs them: what they leave behind, what a mistake gets, and going on after a stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest
from books import TRAIN, Result, command, contents, last_step, papermill, started
from conftest import ROOT
from papermill import inspect_notebook

from glamkit.config import parameters, preset
from glamkit.errors import GlamkitError
from glamkit.notebook import check_parameters
from glamkit.runs import log as run_log
from glamkit.runs.folder import resolve
from glamkit.training.diagnostics import verdict


def outputs(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def text(book: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs(book))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run folder and the notebook that made it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, papermill(folder.with_name("out.ipynb"), f"run_dir={folder}")


def test_papermill_trains_and_leaves_everything_behind(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert result.status == 0, result.errors
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["step"] == 96 and isinstance(report["mean_return"], float) and len(report["episodes"]) == 2
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 96
    assert (folder / "checkpoint" / "000000096.pt").exists() and list((folder / "replay").glob("*.npz"))
    assert (folder / "videos" / "strip.png").exists()
    pictures = [output for output in outputs(result.book) if "image/png" in output.get("data", {})]
    assert len(pictures) == 4  # strip, score, signs, dream
    folded = [output for output in outputs(result.book) if "<details>" in output.get("data", {}).get("text/html", "")]
    assert sum("data:image/png" in output.data["text/html"] for output in folded) == 1  # losses
    findings = verdict(run_log.read(folder / "metrics.jsonl"), preset("debug"), report["episodes"])
    message = result.book.cells[-1].outputs[0].data["text/html"]
    assert findings and all(finding.sign in message for finding in findings)
    assert re.search(r"step 96/96  world_model \d+\.\d", text(result.book))
    assert "widgets" not in result.book.metadata  # nothing that needs a kernel to be seen


MISTAKES = {
    "game=Pnog": "unknown game 'Pnog'; did you mean 'Pong'?",
    "game=CartPole-v1": "CartPole-v1 cannot be played: its observations are",
    "preset=debgu": "unknown preset 'debgu'; did you mean 'debug'?",
    "overrides=trainer.warmpu=60": "unknown setting 'trainer.warmpu'; did you mean 'trainer.warmup'",
    "overrides=trainer.warmup": "override 'trainer.warmup' is not of the form key=value",
    "seed=one": "trainer.seed = 'one' is not a whole number.",
    "env_steps=0": "env_steps = 0 is outside its range: at least 1.",
    "env_steps=20": "env_steps = 20 does not fit trainer.warmup = 48",
    "run_dir=": "run_dir = '' is no path",
    "run_dir=TAKEN": "holds another experiment: trainer.seed is 1 there and 2 here; use another run_dir.",
    "run_dir=FILE/run": "cannot be written: Not a directory.",
    "resume=false": "already holds a run; use resume=True, or another run_dir.",
    "resume=maybe": "resume = 'maybe' is not True or False.",
    "gmae=Pong": "unknown parameter 'gmae'; did you mean 'game'?",
}
BY_PAPERMILL = "gmae=Pong"  # starting a kernel takes seconds, so one alone


def mistaken(mistake: str, folder: Path, place: Path) -> list[str]:
    """The parameters of a mistake: `folder` holds a run with seed 1, in `place` nothing may be written."""
    (place / "file").write_text("in the way")
    run = folder if mistake.startswith("resume") else place / "run"
    also = ["seed=2"] if "TAKEN" in mistake else []
    return [f"run_dir={run}", mistake.replace("TAKEN", str(folder)).replace("FILE", str(place / "file")), *also]


@pytest.mark.parametrize("mistake", [mistake for mistake in MISTAKES if mistake != BY_PAPERMILL])
def test_a_mistake_stops_before_any_work(trained: tuple[Path, Result], mistake: str, tmp_path: Path) -> None:
    folder, _ = trained
    before = contents(folder)
    parameters, setup = [cell.source for cell in nbformat.read(TRAIN, as_version=4).cells if cell.cell_type == "code"][
        :2
    ]
    namespace: dict[str, object] = {}
    exec(parameters, namespace)
    given = dict(pair.split("=", 1) for pair in mistaken(mistake, folder, tmp_path))
    assert set(given) <= set(namespace)
    namespace |= {"preset": "debug", **given}
    with pytest.raises(GlamkitError) as error:
        exec(setup, namespace)
    assert MISTAKES[mistake] in str(error.value) and "\n" not in str(error.value)
    assert contents(folder) == before
    assert not list(tmp_path.glob("run/*"))


def test_a_mistake_fails_papermill_with_one_sentence(tmp_path: Path) -> None:
    result = papermill(tmp_path / "out.ipynb", f"run_dir={tmp_path / 'run'}", BY_PAPERMILL)
    assert result.status != 0
    assert MISTAKES[BY_PAPERMILL] in result.errors.strip().splitlines()[-1]  # the last thing in the terminal
    (error,) = [output for output in outputs(result.book) if output.output_type == "error"]
    assert len(error.traceback) == 1 and MISTAKES[BY_PAPERMILL] in error.traceback[0]  # and all in the notebook
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_interrupted_and_run_again(tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "out.ipynb"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    parameters = (f"run_dir={folder}", "env_steps=160")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(command(out, *parameters), cwd=TRAIN.parent, env=environment, **quiet) as process:
        deadline = time.monotonic() + 120
        while last_step(folder) < 64:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    saved = max(int(path.stem) for path in (folder / "checkpoint").glob("*.json"))
    assert 64 <= saved < 160
    assert not (folder / "evaluation.json").exists()

    again = papermill(out, *parameters)
    assert again.status == 0, again.errors
    assert f"goes on after step {saved}" in text(again.book)
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [step for step in steps if step % 16 == 0]
    assert steps == sorted(steps) and {*range(64, 161, 16)} <= set(logged)
    assert json.loads((folder / "evaluation.json").read_text())["step"] == 160


def test_parameters_are_checked_by_name() -> None:
    ours = 'game: str = "Pong"  # the game\nsteps = 5'
    check_parameters(
        [ours, "import os\nother = 1", '# Parameters\ngame = "Breakout"\nPAPERMILL_INPUT_PATH = "a.ipynb"\n']
    )
    check_parameters(["%matplotlib inline", ours])
    with pytest.raises(GlamkitError, match="unknown parameter 'gane'; did you mean 'game'"):
        check_parameters([ours, '# Parameters\nsteps = 1\ngane = "Breakout"\n'])
    with pytest.raises(GlamkitError, match="unknown parameter 'seed'; allowed: game, steps"):
        check_parameters([ours, "# Parameters\nseed = 1\n"])


CELL = 'horizon: int = 15  # steps\nrate: float = 1.0\ngame: str = "Pong"\nresume: bool = True\nstart: int = None\n'
CELL += "variants: dict = None\n"
FINE = {"horizon": 15, "rate": 1.0, "game": "Pong", "resume": True, "start": None, "variants": None}


def test_parameters_are_read_as_they_are_annotated() -> None:
    values = {"horizon": "15", "rate": "1e-4", "game": 1, "resume": "false", "start": "7", "variants": {"a": ""}}
    check_parameters([CELL, "notebook.check_parameters(horizon)"], values | {"notebook": 0})
    given = dict(values)
    check_parameters([CELL], given)
    assert given == {"horizon": 15, "rate": 1e-4, "game": "1", "resume": False, "start": 7, "variants": {"a": ""}}
    assert [type(value) for value in given.values()] == [int, float, str, bool, int, dict]
    given = values | {"variants": '{"a": "", "b": "agent.context=reset"}'}  # from a command line
    check_parameters([CELL], given)
    assert given["variants"] == {"a": "", "b": "agent.context=reset"}


WRONG = {
    "horizon = 'long' is not a whole number.": {"horizon": "long"},
    "horizon = 1.5 is not a whole number.": {"horizon": 1.5},
    "horizon = None is no int; this parameter has no default": {"horizon": None},
    "rate = 'fast' is not a finite number.": {"rate": "fast"},
    "resume = 'maybe' is not True or False.": {"resume": "maybe"},
    "game = ['Pong'] is not text.": {"game": ["Pong"]},
    "variants = '[1]' is no table of names and values": {"variants": "[1]"},
    "variants = 'plain' is no table of names and values, such as": {"variants": "plain"},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_value_of_another_type_gets_a_sentence(sentence: str) -> None:
    with pytest.raises(GlamkitError) as error:
        check_parameters([CELL], FINE | WRONG[sentence])
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("notebook", sorted(path.name for path in TRAIN.parent.glob("*.ipynb")))
def test_every_parameter_has_a_type_and_a_word_what_it_is(notebook: str) -> None:
    book = nbformat.read(TRAIN.with_name(notebook), as_version=4)
    (cell,) = [cell.source for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    listed = inspect_notebook(str(TRAIN.with_name(notebook)))  # a comment with = in it makes it skip the line
    assert max(map(len, cell.splitlines())) <= 58, "what JupyterLab shows in a window of 900 beside its files"
    names, results = parameters.assigned(cell), parameters.stated([cell])
    assert [one.name for one in results] == names and all(one.kind in (*parameters.KINDS, "dict") for one in results)
    assert sorted(listed) == sorted(names)
    namespace: dict[str, object] = {}
    exec(cell, namespace)
    values = {name: namespace[name] for name in names}
    assert parameters.check([cell], values) == values  # the defaults are what they say


def test_run_folders_count_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "notebooks")
    assert resolve("runs/a") == ROOT / "runs" / "a"
    monkeypatch.chdir(tmp_path)
    assert resolve("runs/a") == tmp_path / "runs" / "a"
    assert resolve("/b") == Path("/b") and resolve("~/c") == Path.home() / "c"
    with pytest.raises(GlamkitError, match="run_dir = '' is no path"):
        resolve("")
