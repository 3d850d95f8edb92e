"""Sharing where something is in the way: damaged files of the run, a run in training, two processes at one file."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finished

from glamkit import cli
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.runs import Run, log
from glamkit.training import checkpoint, open_run, shared_runs
from glamkit.training.share import share


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = preset("debug", "runtime.device=cpu trainer.env_steps=50", game="glamkit/Catch-v0")
    return finished(config, tmp_path_factory.mktemp("run") / "catch").run.folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAMKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("content", ["[]", '{"sessions": [3, {"machine": 5}]}', '{"sessions": 7}', "null"])
def test_a_provenance_of_another_kind_is_no_reason_not_to_share(folder: Path, tmp_path: Path, content: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "provenance.json").write_text(content)
    (other / "evaluation.json").write_text("[1]")
    opened = open_run(share(other, steps=40))
    assert not opened.run.evaluation_file.exists()
    assert json.loads((opened.run.folder / "shared.json").read_text())["provenance"] == {"sessions": []}


@pytest.mark.parametrize("line", ["evaluate {}", "share {}", "compare {} catch", "report {}", "tensorboard {}"])
def test_a_path_that_cannot_be_opened_is_a_sentence(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that only someone else may look into, itself or the one above it, and a name that no disk takes."""
    usual, closed = Path.stat, tmp_path / "closed"
    (closed / "run").mkdir(parents=True)

    def stat(path: Path, **options: Any) -> Any:
        if closed in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return usual(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    for place, why in (
        (closed, "Permission denied"),
        (closed / "run", "Permission denied"),
        ("x" * 256, "File name too"),
    ):
        assert cli.main([word.format(place) for word in line.split()]) == 1
        message = capsys.readouterr().err
        assert f"run_dir = {str(place)!r} cannot be opened: {why}" in message and len(message.splitlines()) == 1


def test_a_damaged_score_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "evaluation.json").write_text('{"episodes": [')
    with pytest.raises(GlamkitError, match=r"evaluation\.json cannot be read"):
        share(other, steps=40)


def test_the_card_tells_of_the_checkpoint_in_the_file_and_of_no_damaged_score(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the hub's library: pip install huggingface_hub")
    other, uploaded = tmp_path / "other", dict[str, Any]()
    shutil.copytree(folder, other)
    # Newer than the newest checkpoint, as in a run in training.
    checkpoint.save_snapshot(Run(other).snapshots, 99, open_run(folder).agent)
    (other / "evaluation.json").write_text('{"mean_return": 1.0, "episodes": 3}')

    class Api:
        def create_repo(self, repo: str, exist_ok: bool) -> str:
            return f"https://hub/{repo}" if exist_ok else ""

        def upload_folder(self, folder_path: str, **_: Any) -> None:
            uploaded["card"] = (Path(folder_path) / "README.md").read_text()
            uploaded["run"] = open_run(Path(folder_path) / shared_runs.HUB_FILE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi", Api)
        assert cli.main(["share", str(other), "--hub", "ann/catch", "--steps", "40"]) == 0
    assert (uploaded["run"].step, len(uploaded["run"].replay)) == (50, 40)
    assert "50 of 50 agent steps." in uploaded["card"] and "mean return" not in uploaded["card"]


def test_two_that_open_a_file_at_once_leave_each_other_their_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, usual, others = share(folder, tmp_path / "catch.glam", steps=40), shared_runs._fill, list[Path]()

    def overtaken(*given: Any) -> None:
        usual(*given)
        if not others:
            monkeypatch.undo()
            monkeypatch.setenv("GLAMKIT_CACHE", str(tmp_path / "cache"))
            others.append(shared_runs.unpack(file))
            (others[0] / "videos").mkdir()  # it is at work there

    monkeypatch.setattr(shared_runs, "_fill", overtaken)
    assert [shared_runs.unpack(file)] == others and (others[0] / "videos").is_dir()
    assert [path.name for path in others[0].parent.iterdir()] == [others[0].name]


def test_the_whole_log_travels_with_it(folder: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(folder, tmp_path / "run"))
    with run.log_file.open("a", encoding="utf-8") as file:
        for step in range(1000):
            for kind in ("log", "evaluation"):
                file.write(json.dumps({"step": 64 + step, "kind": kind}) + "\n")
    opened = open_run(share(run.folder, tmp_path / "catch.glam", steps=40)).run
    assert log.read(opened.log_file) == log.read(run.log_file)
