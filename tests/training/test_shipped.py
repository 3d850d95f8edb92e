"""Runs that come with the package open by name and score what their files say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glamkit.errors import GlamkitError
from glamkit.training import evaluation, open_run, shared_runs
from glamkit.training.share import share

MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAMKIT_CACHE", str(tmp_path / "cache"))


def test_they_are_small_and_have_a_card() -> None:
    files = shared_runs.shipped()
    assert "catch" in files
    assert max(file.stat().st_size for file in files.values()) <= 6 * MEGABYTE
    assert sum(file.stat().st_size for file in files.values()) <= 20 * MEGABYTE
    card = (files["catch"].parent / "README.md").read_text()
    assert all(f"| `{name}` | `glamkit train " in card for name in files)
    with pytest.raises(
        GlamkitError, match="'cacth' is no run folder, shared file or shipped run; did you mean 'catch'"
    ):
        open_run("cacth")


def test_one_is_shared_into_the_current_folder_not_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = share("catch")
    assert made.resolve().parent == tmp_path / "here" and open_run(made).step == open_run("catch").step


QUICK = ("catch", "memory")  # whose episodes are short
# Played again, as all would take too long: so many that random play is more than three errors away. Six games of
# Breakout took six times as long as twelve: actions are drawn otherwise then, and one of them seems to go on and on.
GAMES = {"breakout": 12, "krull": 4, "kungfumaster": 4, "pong": 6}
NAMES = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in sorted(shared_runs.shipped())]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_each_scores_what_its_file_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = open_run(name).run
    message = json.loads(run.evaluation_file.read_text())
    returns = np.array([episode["return"] for episode in message["episodes"]])
    games = GAMES.get(name, len(returns))
    opened = evaluation.opened(name, changes={"evaluation.episodes": games})
    report, _ = evaluation.evaluate_run(opened, seed=1, film=False)
    again = np.array([episode["return"] for episode in report["episodes"]])
    assert len(returns) >= 20 and len(again) == games
    # The variance is that of all games: of a few new ones alone it would be a guess.
    squares = sum(((part - part.mean()) ** 2).sum() for part in (returns, again))
    error = np.sqrt(squares / (len(returns) + games - 2) * (1 / len(returns) + 1 / games))
    assert abs(again.mean() - returns.mean()) <= 3 * error  # beyond two, by chance, is one in twenty
    assert message["mean_return"] == pytest.approx(returns.mean())
