"""What an evaluation leaves in files: no score is lost, made twice, or taken for another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from square import square
from test_evaluation import Scripted, settings
from tiny_runs import finished, short

from glamkit import cli
from glamkit.envs import videos
from glamkit.errors import GlamkitError
from glamkit.report import score_files
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


def test_games_side_by_side_make_no_other_score(tmp_path: Path) -> None:
    run = finished(short(game="glamkit/Catch-v0"), tmp_path).run
    for changes, own in (("evaluation.games=1", True), ({"evaluation.games": 1, "evaluation.episodes": 3}, False)):
        path = evaluation.evaluate_run(evaluation.opened(tmp_path, changes=changes), film=False)[1]
        assert (path == run.evaluation_file) == own


def test_what_can_be_refused_of_a_score_file_is_refused_before_the_first_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        trainer = finished(short(game="glamkit/Catch-v0", seed=seed), tmp_path / str(seed))
    file, taken = tmp_path / "scores.json", tmp_path / "taken"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert score_files.save("~/2", file, evaluation.final(trainer)) == file  # a folder as it is typed elsewhere
    taken.write_text("")
    kept = file.read_text()
    monkeypatch.setattr(evaluation, "play", lambda *_: pytest.fail("it was played"))
    for arguments, sentence in (
        (["--save", str(file)], "scores.json holds the score of a run with another trainer.seed; name another file."),
        (["--save", str(taken / "deep")], f"{taken / 'deep'} cannot be written: Not a directory."),
        (
            ["--save", "x.json", "--checkpoint", "50"],
            "a score file is of the last step, 64, not of 50.",
        ),
    ):
        assert cli.main(["evaluate", str(tmp_path / "1"), *arguments]) == 1
        assert capsys.readouterr().err.endswith(f"{sentence}\n")
    assert file.read_text() == kept


def test_the_score_is_saved_before_its_videos_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square(length=5)
    config, file = settings("evaluation.episodes=3"), tmp_path / "evaluations" / "1.json"
    about, film = (Scripted(3), config, Machine(config.runtime), 7), tmp_path / "film"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(videos, "record", interrupted)
        evaluation.evaluate(*about, film=film, file=file)
    assert len(json.loads(file.read_text())["episodes"]) == 3
    report = evaluation.evaluate(*about, film=str(film), file=str(file))  # both may be given as text
    assert report["videos"] and json.loads(file.read_text()) == report


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [
        (-1, r"^seed = -1 is outside its range: at least 0\.$"),
        (2**32, r"^seed = 4294967296 is outside its range: at most 4294967295\.$"),
        (None, r"^seed = None is not a whole number\.$"),
    ],
)
def test_seeds_that_are_none_are_refused_before_the_first_game(seed: Any, sentence: str, tmp_path: Path) -> None:
    config = settings()
    with pytest.raises(GlamkitError, match=sentence):
        evaluation.evaluate(Scripted(3), config, Machine(config.runtime), 7, seed, file=tmp_path / "new" / "1.json")
    assert not (tmp_path / "new").exists()


def test_a_report_that_cannot_be_written_stops_it_before_the_first_game(tmp_path: Path) -> None:
    square(length=5)
    config, agent = settings("evaluation.episodes=3"), Scripted(3)
    agent.act = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    (tmp_path / "evaluations").write_text("")
    with pytest.raises(GlamkitError, match=r"evaluations cannot be written: File exists\.$"):
        evaluation.evaluate(agent, config, Machine(config.runtime), 7, file=tmp_path / "evaluations" / "1.json")
