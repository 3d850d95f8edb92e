"""A run that goes on with other settings, or without all of its log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_resume import differing
from tiny_runs import after_steps, finished, short

from glamkit.config import Config
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.training.trainer import Trainer


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return finished(short(), tmp_path_factory.mktemp("unbroken"))


def longer(**changes: Any) -> Config:
    return short().override({key.replace("__", "."): value for key, value in changes.items()})


def test_a_run_that_is_made_longer_ends_as_one_that_was_so_long_from_the_start(tmp_path: Path) -> None:
    whole = longer(trainer__env_steps=80)
    once = Trainer(whole, tmp_path / "once")
    list(once)
    list(Trainer(short(), tmp_path / "twice"))
    twice = Trainer(whole, tmp_path / "twice")
    assert list(twice)[-1][:2] == ("done", 80)
    assert differing(twice, once) == []
    assert twice.run.config() == whole
    (change,) = json.loads(twice.run.config_file.read_text())["changes"]
    assert change["trainer.env_steps"] == [64, 80]


def test_for_a_folder_that_is_refused_no_game_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(longer(), tmp_path)
    monkeypatch.setattr("glamkit.training.trainer.make_env", lambda _: pytest.fail("it was opened"))
    with pytest.raises(GlamkitError, match="holds another experiment"):
        Trainer(longer(trainer__seed=9), tmp_path)


def test_what_changes_no_training_may_change(unbroken: Trainer, tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 60)
    other = longer(trainer__save_every=7, evaluation__episodes=3, evaluation__every=0, runtime__env_crashes=3)
    resumed = Trainer(other, tmp_path)
    assert list(resumed)[-1].kind == "done"
    assert differing(resumed, unbroken) == []
    assert (resumed.run.config().evaluation.episodes, resumed.run.config().trainer.save_every) == (3, 7)


def test_no_score_is_lost_when_its_protocol_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(short(), tmp_path)
    list(trainer)
    trainer.run.evaluation_file.write_text("the old score")
    Trainer(longer(trainer__save_every=9), tmp_path)
    assert trainer.run.evaluation_file.exists() and not caplog.text
    Trainer(longer(trainer__save_every=9, evaluation__episodes=3, evaluation__games=5), tmp_path)
    (kept,) = (tmp_path / "evaluations").iterdir()
    told = [
        f"{tmp_path} goes on with evaluation.{name}."
        for name in ("episodes = 3 instead of 2", "games = 5 instead of 20")
    ]
    moved = f"The score of {tmp_path} of before is in {kept}."
    assert sorted(record.getMessage() for record in caplog.records) == sorted([moved, *told])
    assert kept.read_text() == "the old score"
    assert not trainer.run.evaluation_file.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainer__env_steps": 60}, "trainer.env_steps = 64 can be made longer but not 60"),
        ({"actor_critic__discount": 0.9}, r"discount is 0\.985 there and 0\.9 here; use another run_dir\. .* larger"),
        ({"trainer__update_every": 2}, "another experiment: trainer.update_every"),
    ],
)
def test_what_stays_refused_names_the_way_out(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    trainer = Trainer(short(), tmp_path)
    before = trainer.run.config_file.read_bytes()
    with pytest.raises(GlamkitError, match=sentence):
        Trainer(longer(**changes), tmp_path)
    assert trainer.run.config_file.read_bytes() == before


# A log that is not what the checkpoint knows --------------------------------------------------------------------------


def half_a_line(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "spoil", [lambda _: b"", half_a_line, lambda data: b"\0" * len(data), lambda data: data[: data.find(b"\n") + 1]]
)
def test_a_log_that_lacks_lines_is_warned_of_and_stays_readable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    after_steps(short(), tmp_path, 60)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(spoil(path.read_bytes()))
    list(Trainer(short(), tmp_path))
    assert "lines are missing" in caplog.text
    assert [entry["step"] for entry in log.read(path)][-1] == 60


def test_a_log_that_is_gone_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    after_steps(short(), tmp_path, 60)
    (tmp_path / "metrics.jsonl").unlink()
    Trainer(short(), tmp_path)
    assert "metrics.jsonl holds 0 of the" in caplog.text


def test_a_whole_log_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    after_steps(short(), tmp_path, 60)
    Trainer(short(), tmp_path)
    assert "missing" not in caplog.text
