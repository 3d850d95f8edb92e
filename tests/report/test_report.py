"""The report on runs: what counts, what is left out and said, and what becomes of it on paper."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from made_runs import made_run, made_two_games, report_of

from glamkit import cli
from glamkit.config import preset
from glamkit.envs import atari100k as scores
from glamkit.errors import GlamkitError
from glamkit.report import notes, plots, results, score_table, tables
from glamkit.report import page as report_page
from glamkit.report.markup import MarkupTable, markdown_text
from glamkit.report.report import AGAINST, Report, read_methods

FEW = 40  # bootstrap repeats


def report(*paths: Path, **options: object) -> Report:
    return Report(list(paths), **{"repeats": FEW, **options})  # type: ignore[arg-type]


def notes_of(made: Report) -> str:
    return "\n".join(notes.notes(made))


@pytest.fixture(scope="module")
def two_games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_two_games(tmp_path_factory.mktemp("two") / "runs")


def test_scores_of_runs_are_normalised_and_aggregated(two_games: Path) -> None:
    made = report(two_games)
    (ours,) = made.new
    # In each game one seed plays like a human and one at random.
    assert {game: values.tolist() for game, values in ours.normal.items()} == {
        "Boxing": pytest.approx([1, 0]), "Pong": pytest.approx([1, 0]),
    }  # fmt: skip
    assert ours.values == pytest.approx({"mean": 0.5, "median": 0.5, "iqm": 0.5, "optimality_gap": 0.5})
    assert ours.name == "glamkit atari100k" and ours.counts == (2, 2)
    low, high = ours.intervals["mean"]
    assert 0 <= low < 0.5 < high <= 1
    assert made.results[0].score == 12.1


def test_all_are_compared_on_the_games_that_are_there(two_games: Path) -> None:
    made = report(two_games)
    assert made.games == ["Boxing", "Pong"]
    assert all(list(entry.normal) == made.games for entry in made.entries.values())
    storm = scores.normalise(scores.published()["STORM"].scores)
    expected = (storm["Pong"].mean() + storm["Boxing"].mean()) / 2
    assert made.entries["STORM"].values["mean"] == pytest.approx(expected)
    assert "Games that are there: 2 of 26 (Boxing, Pong)." in notes_of(made)


def test_what_a_reader_must_know_is_said(two_games: Path) -> None:
    text = notes_of(report(two_games, against="STORM, IRIS, CURL"))
    assert "with 2 seeds a bootstrap interval of 95 % holds the truth in at most 83% of cases" in text
    assert "Sticky actions: on in glamkit atari100k, STORM; off in IRIS; not known of CURL." in text
    assert "Episodes behind each run's score: 20 in glamkit atari100k; 20 in STORM; 100 in IRIS." in text
    assert "STORM: the published aggregates do not come out of its own scores." in text
    uneven = notes_of(report(two_games, against="DreamerV3 (Nature, 2024 code)"))
    assert "DreamerV3 (Nature, 2024 code) has 1 to" not in uneven  # both games have all five runs
    assert "DreamerV3 (Nature, 2024 code) has 1 to 5 runs per game" in notes_of(report(against="all"))


def broken(folder: Path) -> dict[str, str]:
    """Runs that do not count, each with the reason to be given."""
    config = preset("atari100k", game="Pong", seed=7)
    made_run(folder / "good", [1.0, 3.0], game="Pong", seed=7)
    made_run(folder / "twin", [1.0, 3.0], game="Pong", seed=7)
    made_run(folder / "nan", [1.0, float("nan")], game="Pong", seed=8)
    made_run(folder / "early", [1.0], game="Pong", seed=9, step=500)
    made_run(folder / "wrong", [1.0], game="Pong", seed=10, mean_return=2.0)
    made_run(folder / "empty", [1.0], game="Pong", seed=11, episodes=[])
    made_run(folder / "form", [1.0], game="Pong", seed=12, episodes=[3])
    made_run(folder / "training", [1.0], game="Pong", seed=13).evaluation_file.unlink()
    torn = made_run(folder / "torn", [1.0], game="Pong", seed=14)
    torn.evaluation_file.write_text(torn.evaluation_file.read_text()[:40])
    (folder / "no-config").mkdir()
    (folder / "no-config" / "metrics.jsonl").write_text("")
    (folder / "bad-config").mkdir()
    (folder / "bad-config" / "config.json").write_text('{"format": 1, "config": {"env": {"gmae": 1}}}')
    (folder / "bad-config" / "evaluation.json").write_text(json.dumps(report_of(config, [1.0])))
    return {
        "twin": "the same game, seed and settings as",
        "nan": "1 of its 2 returns are not finite numbers.",
        "early": "it was evaluated at step 500 of 102,000, before its end.",
        "wrong": "its mean return 2 is not the mean of its episodes, 1.",
        "empty": "its evaluation holds no episodes.",
        "form": "its evaluation is not of the known form",
        "training": "not finished: at step 102,000 of 102,000, no evaluation.",
        "torn": "evaluation.json cannot be read",
        "no-config": "holds no run: there is no config.json in it.",
        "bad-config": "unknown setting 'env.gmae'; did you mean 'env.game'",
    }


def test_what_does_not_count_is_left_out_with_the_reason(tmp_path: Path) -> None:
    reasons = broken(tmp_path / "runs")
    made = report(tmp_path / "runs")
    assert [result.run.folder.name for result in made.results] == ["good"]
    found = {left.folder.name: left.reason for left in made.left_out}
    assert set(found) == set(reasons)
    for name, reason in reasons.items():
        assert reason in found[name] and "\n" not in found[name]
    page = report_page.markdown(made)
    for reason in found.values():
        assert markdown_text(reason) in page
    assert "has one seed per game: nothing says how another would do; there is no interval." in notes_of(made)
    assert made.new[0].intervals == {}


def test_unequal_settings_are_never_averaged(tmp_path: Path) -> None:
    made_run(tmp_path / "a", [10.0], game="Pong", seed=1)
    made_run(tmp_path / "b", [20.0], game="Pong", seed=2)
    made_run(tmp_path / "c", [-20.0], "agent.acting=posterior", game="Pong", seed=1)
    idle = "runtime.device=cpu evaluation.every=500 trainer.save_every=500 trainer.log_every=7"  # no matter
    made_run(tmp_path / "d", [-20.0], idle, game="Pong", seed=3)
    made = report(tmp_path)
    assert {name: len(group) for name, group in made.groups.items()} == {
        "glamkit atari100k": 3,
        "glamkit atari100k, agent.acting=posterior": 1,
    }
    assert "are never averaged. Runs of each experiment: glamkit atari100k: 3;" in notes_of(made)
    assert [entry.name for entry in made.new] == list(made.groups)


def test_experiments_that_share_no_game_are_said_not_to_be_comparable(tmp_path: Path) -> None:
    made_run(tmp_path / "a", [10.0], game="Pong", seed=1)
    made_run(tmp_path / "b", [20.0], "agent.acting=posterior", game="Boxing", seed=1)
    made = report(tmp_path)
    assert len(made.games) == 26 and [len(entry.normal) for entry in made.new] == [1, 1]
    assert notes_of(made).count("its aggregates cannot be compared with the others'.") == 2


def test_short_training_cut_episodes_and_differing_cards_are_said(tmp_path: Path) -> None:
    config = preset("quick", game="Pong")
    cut = [{"return": 1.0, "length": 500, "cut": True}, {"return": 1.0, "length": 5, "cut": False}]
    made_run(tmp_path / "a", [1.0, 1.0], name="quick", game="Pong", seed=1, episodes=cut)
    other = {**report_of(config, [1.0])["protocol"], "sticky": 0.0}
    made_run(tmp_path / "b", [1.0, 1.0], name="quick", game="Pong", seed=2, protocol=other)
    text = notes_of(report(tmp_path))
    steps = f"{config.trainer.env_steps:,} agent steps"
    assert f"glamkit quick is no Atari 100k result: it has the preset quick and {steps}, not" in text
    assert "1 of 4 evaluation episodes were cut after 500 steps" in text
    assert "the runs' protocols differ in sticky: 0.25, 0.0." in text


def test_games_without_a_human_score_have_raw_returns(tmp_path: Path) -> None:
    for seed, level in ((1, 0.0), (2, 1.0), (3, 2.0)):
        made_run(tmp_path / f"catch-{seed}", [level, level], name="debug", game="glamkit/Catch-v0", seed=seed)
    made = report(tmp_path)
    assert made.new == [] and len(made.games) == 26  # the published methods are whole
    assert "No human score is known for glamkit/Catch-v0: raw returns only" in notes_of(made)
    assert score_table(made.groups) is None and plots.curve_figure(made.groups) is None  # it is a small preset
    grid = score_table(made.small)
    assert grid is not None and len(grid.rows) == 1
    half = 4.302653 / 3**0.5
    row = dict(zip(grid.header, grid.rows[0], strict=True))
    assert list(row.values())[:4] == [
        "glamkit debug", "glamkit/Catch-v0", "0.00 ± 0.00, 1.00 ± 0.00, 2.00 ± 0.00",
        f"1.00 [{1 - half:.2f}, {1 + half:.2f}]",
    ]  # fmt: skip
    assert row["human-normalised"] == row["STORM"] == row["random"] == "-"
    assert plots.curve_figure(made.small) is not None


def test_result_files_of_others_are_compared_too(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    runs = {game: [1.0, 2.0] for game in ("Pong", "Boxing")}
    path.write_text(json.dumps({"methods": {"Theirs": {"runs": runs}, "STORM": {"scores": {"Pong": 3, "Boxing": 1}}}}))
    made = report(files=[path])
    assert [entry.name for entry in made.new] == ["Theirs", "STORM (theirs.json)"]
    assert made.games == ["Boxing", "Pong"]
    assert "STORM (theirs.json) has one mean per game" in notes_of(made)
    assert [entry.values["iqm"] is None for entry in made.new] == [False, True]  # of STORM no single runs are known
    again = tmp_path / "again" / "theirs.json"
    again.parent.mkdir()
    again.write_text(path.read_text())
    names = [entry.name for entry in report(files=[path, again]).new]
    assert names == ["Theirs", "STORM (theirs.json)", "Theirs (theirs.json)", "STORM (theirs.json) (theirs.json)"]


def test_without_runs_the_published_methods_stand_alone() -> None:
    made = report()
    assert made.new == [] and [entry.name for entry in made.shown] == list(AGAINST)
    assert plots.curve_figure(made.groups) is None and score_table(made.groups) is None
    table = tables.aggregate_table(made)
    rows = {row[0]: row for row in table.rows}
    assert rows["IRIS"][3].startswith("0.501 [0.") and rows["MuZero"][3] == "-"
    assert rows["BBF"][1:5] == ["2.247", "0.917", "-", "-"]  # one value per game: nothing is pooled
    single = [row[3] != "-" for row in table.rows]
    assert single == sorted(single, reverse=True) and single.count(False) == 8  # those without an IQM stand last


def test_methods_are_named_with_hints() -> None:
    assert read_methods("DreamerV3 (Nature, 2024 code), STORM,IRIS, STORM") == [
        "DreamerV3 (Nature, 2024 code)", "STORM", "IRIS",
    ]  # fmt: skip
    assert read_methods("all") == list(scores.published())
    wrongs = {
        "STROM": "unknown method 'STROM'; did you mean 'STORM'",
        "": "against is empty",
        " , ": "against is empty",
    }
    for wrong, hint in {**wrongs, "STORMY, IRIS": "unknown method 'STORMY'"}.items():
        with pytest.raises(GlamkitError, match=re.escape(hint)):
            read_methods(wrong)


EVIL = "[*<b>&|_%$\\{x}"


def test_cells_cannot_break_out() -> None:
    grid = MarkupTable(["a", "b"], [[EVIL, "1\n2"]], EVIL)
    lines = grid.markdown().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 3
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 3 and "\\<b>" in lines[2] and "\\$" in lines[2]
    assert "\\<b>" in lines[-1] and grid._repr_markdown_() == grid.markdown() == str(grid)


@pytest.mark.slow
def test_the_report_on_paper(two_games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / f"{EVIL}"
    made_run(folder / "nan", [float("nan")], game="Pong", seed=5)
    arguments = [str(two_games), str(folder), "--repeats", str(FEW), "--output", str(tmp_path / "out")]
    assert cli.main(["report", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "# Atari 100k report" in printed and "| glamkit atari100k |" in printed
    pictures = {"curves.png", "aggregates.png", "games.png"}  # no run is of a small preset
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", *pictures}
    page = (tmp_path / "out" / "report.md").read_text()
    assert set(re.findall(r"^!\[[^\]]+\]\((.*)\)$", page, re.M)) == pictures and "![" not in printed
    assert EVIL not in page and markdown_text(EVIL) in page
    assert "Before you believe a number" in page
    assert {line for line in page.splitlines() if line[:2] != "!["} <= set(printed.splitlines())


def test_figures_show_the_numbers(two_games: Path) -> None:
    made = report(two_games)
    ours = made.new[0]
    panels = plots.aggregate_figure(made).axes
    assert len(panels) == 4
    for axes, key in zip(panels, ours.values, strict=True):
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert float(points[0].get_xdata()[0]) == ours.values[key]
    drawn = plots.curve_figure(made.groups)
    assert drawn is not None and [axes.get_title(loc="left") for axes in drawn.axes] == ["Boxing", "Pong"]
    diamonds = [line for line in drawn.axes[1].lines if line.get_marker() == "D" and len(line.get_ydata())]
    finals = [float(line.get_ydata()[0]) for line in diamonds]
    assert finals == pytest.approx([14.6, -20.7])


def test_a_damaged_log_takes_the_curve_but_not_the_score(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a", [1.0], game="Pong", seed=1)
    run.log_file.write_text("garbage\n" + run.log_file.read_text())
    made = report(tmp_path)
    assert len(made.results) == 1
    assert plots.curve_figure(made.groups) is not None
    small = made_run(tmp_path / "b", [1.0], name="laptop", game="Pong", seed=1)
    small.log_file.write_text("garbage\n" + small.log_file.read_text())
    made = report(small.folder)
    table = score_table(made.small)
    assert table is not None and table.rows[0][2] == "1.0"  # of one game no error is known


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["NOWHERE"], "NOWHERE is not a folder; name run folders"),
        ([], "name run folders or --results, or use --published without any."),
        (["--published", "--save", "x"], "--save and --scores are of runs; name some."),
        (["--results", "NOWHERE", "--scores"], "--save and --scores are of runs; name some."),
        (["--published", "somewhere"], "use --published without any."),
        (["--published", "--against", "STROM"], "unknown method 'STROM'; did you mean 'STORM'"),
        (["--published", "--repeats", "0"], "repeats = 0 is outside 1 to 1000000."),
        (["--published", "--repeats", "many"], "repeats = 'many' is not a whole number."),
        (["--results", "NOWHERE"], "the result file NOWHERE cannot be read"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *arguments]) == 1
    error = capsys.readouterr().err
    assert hint in error and len(error.splitlines()) == 1


def test_folders_are_found_at_any_depth(two_games: Path) -> None:
    assert len(results.find([two_games.parent])) == 4
    assert len(results.find([two_games, two_games / "Pong-1"])) == 4
    assert results.find([two_games / "Pong-1"]) == [two_games / "Pong-1"]
