"""The log for TensorBoard: every step once, also after a stop."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import after_steps, finished, short

from glamkit import cli
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run
from glamkit.runs.tensorboard import TensorBoardLog, copy
from glamkit.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _needed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install 'glamkit-rl[tensorboard]'")


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: each scalar with its steps and values, in the order of the file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    result.Reload()
    return {tag: [(e.step, e.value) for e in result.Scalars(tag)] for tag in result.Tags()["scalars"]}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    made.folder.mkdir()
    made.begin(preset("debug"), {})
    yield made


def add(run: Run, step: int, **values: Any) -> None:
    with run.log_file.open("a") as file:
        file.write(json.dumps({"step": step, "kind": "log", **values}) + "\n")


def test_every_line_of_the_log_once(run: Run) -> None:
    mirror = TensorBoardLog(run)
    mirror.follow()  # nothing is there yet
    add(run, 16, loss=2.0, nan=None)
    mirror.follow()
    mirror.follow()
    add(run, 32, loss=1.0)
    with run.log_file.open("a") as file:
        file.write('{"step": 48, "lo')
    mirror.follow()
    mirror.writer.close()
    assert written(run.folder) == {"loss": [(16, 2.0), (32, 1.0)]}

    run.log_file.write_text("")  # as on a resume from the checkpoint at 16
    add(run, 16, loss=2.0)
    again = TensorBoardLog(run)
    add(run, 32, loss=3.0)
    again.follow()
    again.writer.close()
    assert written(run.folder) == {"loss": [(16, 2.0), (32, 3.0)]}


def test_the_final_score(run: Run) -> None:
    add(run, 96, loss=1.0)
    run.evaluation_file.write_text('{"mean_return": 4.5, "step": 96}')
    copy(run.folder)
    assert written(run.folder) == {"loss": [(96, 1.0)], "evaluation/final": [(96, 4.5)]}


def test_any_run_can_be_shown_afterwards(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    add(run, 16, loss=2.0)
    assert cli.main(["tensorboard", str(run.folder)]) == 0
    assert cli.main(["tensorboard", str(run.folder)]) == 0
    assert capsys.readouterr().out == 2 * f"tensorboard --logdir {shlex.quote(str(run.folder / 'tensorboard'))}\n"
    assert written(run.folder) == {"loss": [(16, 2.0)]}
    assert cli.main(["tensorboard", str(tmp_path / "none")]) == 1
    assert "holds no run" in capsys.readouterr().err
    shutil.rmtree(run.folder / "tensorboard")
    (run.folder / "tensorboard").write_text("in the way")
    assert cli.main(["tensorboard", str(run.folder)]) == 1
    assert capsys.readouterr().err == f"{run.folder / 'tensorboard'} cannot be written: File exists.\n"


def test_a_trainer_writes_it_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    config = short("runtime.tensorboard=True")
    after_steps(config, tmp_path / "run", 63)  # logged at 60, saved at 50
    trainer = finished(config, tmp_path / "run")
    result = written(tmp_path / "run")
    assert [step for step, _ in result["world_model/total"]] == [50, 60]
    assert copy(tmp_path / "run") == tmp_path / "run" / "tensorboard"  # nobody is at work there any more
    lines = [json.loads(line) for line in trainer.run.log_file.read_text().splitlines()]
    logged = [line for line in lines if "world_model/total" in line]
    assert [value for _, value in result["world_model/total"]] == pytest.approx(
        [x["world_model/total"] for x in logged]
    )


def test_the_file_of_a_trainer_at_work_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where config.json, which has the settings of the start, says that there is none."""
    folder = tmp_path / "my run"
    after_steps(short(), folder, 25)
    trainer = Trainer(short("runtime.tensorboard=True"), folder)
    for event in trainer:
        if event.step == 40 and event.kind == "step":
            before = sorted((folder / "tensorboard").iterdir())
            assert cli.main(["tensorboard", str(folder)]) == 0
            assert sorted((folder / "tensorboard").iterdir()) == before != []
    assert [step for step, _ in written(folder)["world_model/total"]] == [50, 60]
    assert cli.main(["tensorboard", str(folder)]) == 0
    assert sorted((folder / "tensorboard").iterdir()) != before
    assert capsys.readouterr().out == 2 * f"tensorboard --logdir '{folder / 'tensorboard'}'\n"


def test_off_by_default(tmp_path: Path) -> None:
    finished(short(), tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_without_tensorboard_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(GlamkitError, match=r"TensorBoard is not installed: pip install 'glamkit-rl\[tensorboard\]'\."):
        Trainer(short("runtime.tensorboard=True"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
