"""What an evaluation leaves in files: no score is lost, made twice, or taken for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from square import square
from test_evaluation import Scripted, settings
from tiny_runs import finished, short

from glamkit.envs import videos
from glamkit.errors import GlamkitError
from glamkit.runtime import Machine
from glamkit.training import evaluation


def test_a_score_that_is_there_is_not_made_again_but_one_from_amid_the_run_is(tmp_path: Path) -> None:
    trainer = finished(short(game="glamkit/Catch-v0"), tmp_path)
    file = trainer.run.evaluation_file
    assert evaluation.final(trainer) == json.loads(file.read_text())
    kept = json.loads(file.read_text()) | {"mean_return": 0.5}  # what another evaluation would not bring
    file.write_text(json.dumps(kept))
    assert evaluation.final(trainer) == kept
    for other in (json.dumps(kept | {"step": 40}), "[1]", "torn {"):
        file.write_text(other)
        made = evaluation.final(trainer)
        assert (made["step"], made["mean_return"] != 0.5) == (64, True) and json.loads(file.read_text()) == made


def test_the_score_is_saved_before_its_videos_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square(length=5)
    config, file = settings("evaluation.episodes=3"), tmp_path / "evaluations" / "1.json"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(videos, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(Scripted(3), config, Machine(config.runtime), 7, film=tmp_path / "film", file=file)
    assert len(json.loads(file.read_text())["episodes"]) == 3


def test_a_report_that_cannot_be_written_stops_it_before_the_first_game(tmp_path: Path) -> None:
    square(length=5)
    config, agent = settings("evaluation.episodes=3"), Scripted(3)
    agent.act = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    (tmp_path / "evaluations").write_text("")
    with pytest.raises(GlamkitError, match=r"evaluations cannot be written: File exists\.$"):
        evaluation.evaluate(agent, config, Machine(config.runtime), 7, file=tmp_path / "evaluations" / "1.json")
