"""Score files: written from run folders, read by the report, and those of the repository with the pages about them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from made_runs import made_run, report_of

from glamkit import cli
from glamkit.config import PRESETS, Config, preset
from glamkit.envs import atari100k
from glamkit.errors import GlamkitError
from glamkit.report import results, score_files
from glamkit.report.markup import MarkupTable
from glamkit.report.report import Report
from glamkit.report.score_table import score_table, strongest
from glamkit.runs.folder import Run
from glamkit.sweeps import plan

RESULTS = ROOT / "notebooks" / "results"
KINDS = ("laptop", "atari100k")
MACHINE = {"host": "of-ann", "device_name": "a chip", "device": "cpu", "cores": 2, "threads": 1, "torch": "2.0"}


def finished(folder: Path, returns: list[float], sessions: int = 1, **changes: Any) -> Run:
    """A finished run of 102,000 steps that made half of them at 10 steps a second and half at 20."""
    run = made_run(folder, returns, "evaluation.episodes=2", **changes)
    half = run.config().trainer.env_steps // 2
    speeds = [
        {"step": step, "kind": "log", "time/steps_per_second": speed} for step, speed in ((half, 10), (2 * half, 20))
    ]
    lines = sorted([*map(json.loads, run.log_file.read_text().splitlines()), *speeds], key=lambda line: line["step"])
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = [{"first_step": n, "step": n + 1 + n, "machine": MACHINE | {"threads": n + 1}} for n in range(sessions)]
    run.provenance_file.write_text(json.dumps({"sessions": made}))
    return run


def table_of(paths: list[Path]) -> MarkupTable:
    table = score_table(results.group(results.collect(paths)[0]))
    assert table is not None
    return table


# Written and read -----------------------------------------------------------------------------------------------------


def test_a_finished_run_becomes_a_file_with_every_field(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [-10, -14], sessions=2, game="Pong", seed=3)
    file = score_files.save(run.folder, tmp_path / "laptop")
    assert file == tmp_path / "laptop" / "Pong-seed3.json"
    data = score_files.read(file)
    assert tuple(data) == score_files.FIELDS
    assert (data["game"], data["seed"], data["preset"], data["env_steps"]) == ("Pong", 3, "atari100k", 102_000)
    assert Config.from_dict(data["config"]) == run.config()
    assert data["episodes"] == [{"return": -10, "length": 100}, {"return": -14, "length": 100}]
    assert data["mean_return"] == -12 and data["protocol"]["episodes"] == 2
    assert data["human_normalised"] == pytest.approx((-12 + 20.7) / (14.6 + 20.7))
    assert data["hours"] == pytest.approx((51_000 / 10 + 51_000 / 20) / 3600, abs=0.001)
    assert len(data["curve"]) == 40 and data["curve"][-1][0] == 102_000
    assert data["machine"]["threads"] == 2, "the session that made most steps"
    assert "of-ann" not in file.read_text(), "a file to give away names no host"


def test_the_report_reads_files_as_it_reads_run_folders(tmp_path: Path) -> None:
    for seed, level in enumerate((-12, 3), 1):
        run = finished(tmp_path / "runs" / str(seed), [level - 1, level + 1], game="Pong", seed=seed)
        score_files.save(run.folder, tmp_path / "files")
    folders, left = results.collect([tmp_path / "runs"])
    for paths in ([tmp_path / "files"], sorted((tmp_path / "files").glob("*.json"))):
        files, left_too = results.collect(paths)
        assert not left and not left_too
        for folder, file in zip(folders, files, strict=True):
            assert (file.game, file.seed, file.score, file.returns) == (
                folder.game, folder.seed, folder.score, folder.returns,
            )  # fmt: skip
            assert file.protocol == folder.protocol
            ours, theirs = file.training, folder.training
            assert np.array_equal(ours.returns, theirs.returns) and np.array_equal(ours.steps, theirs.steps)
            assert np.array_equal(ours.random, theirs.random) and ours.seconds == pytest.approx(theirs.seconds, abs=2)
    by_folder, by_file = Report([tmp_path / "runs"], repeats=40), Report([tmp_path / "files"], repeats=40)
    assert by_folder.entries["glamkit atari100k, evaluation.episodes=2"].values == pytest.approx(
        by_file.entries["glamkit atari100k, evaluation.episodes=2"].values
    )


def test_the_command_saves_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run", [-10, -14], game="Pong", seed=1)
    assert cli.main(["report", str(run.folder), "--save", str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'kept' / 'Pong-seed1.json'}\n"
    assert cli.main(["report", str(tmp_path / "kept"), "--scores"]) == 0
    shown = capsys.readouterr()
    assert "| Pong | -12.0 ± 2.0 | - |" in shown.out and not shown.err
    assert cli.main(["report", str(tmp_path / "kept" / "Pong-seed1.json"), "--against", "STORM"]) == 0
    assert "glamkit atari100k" in capsys.readouterr().out


def test_no_option_of_the_command_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run", [-10, -14], game="Pong", seed=1)
    places = ["--output", str(tmp_path / "out"), "--save", str(tmp_path / "kept"), "--repeats", "20"]
    assert cli.main(["report", str(run.folder), "--scores", *places]) == 0
    table, *paths = capsys.readouterr().out.rsplit("\n", 6)[:-1]
    assert "| Pong | -12.0 ± 2.0 | - |" in table and "# Atari 100k report" not in table
    names = ["report.md", "curves.png", "aggregates.png", "games.png", "Pong-seed1.json"]
    assert [Path(path).name for path in paths] == names and all(Path(path).exists() for path in paths)


def test_files_count_beside_run_folders_and_below_other_folders(tmp_path: Path) -> None:
    run = finished(tmp_path / "made" / "run", [-10, -14], game="Pong", seed=1)
    file = score_files.save(run.folder, tmp_path / "given" / "laptop")
    assert results.find([tmp_path / "given"]) == [file]
    beside = file.rename(tmp_path / "made" / "Pong-seed2.json")
    assert results.find([tmp_path / "made"]) == [run.folder, beside]


def test_unequal_settings_are_never_in_one_row(tmp_path: Path) -> None:
    one = finished(tmp_path / "one", [-10, -14], game="Pong", seed=1)
    other = made_run(tmp_path / "other", [1, 2], name="quick", game="Pong", seed=2)
    assert [row[:3] for row in table_of([one.folder, other.folder]).rows] == [
        ["glamkit atari100k, evaluation.episodes=2", "Pong", "-12.0 ± 2.0"], ["glamkit quick", "Pong", "1.5 ± 0.5"],
    ]  # fmt: skip


def test_runs_without_a_file_are_named_and_the_others_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2, 3):
        run = finished(tmp_path / "runs" / str(seed), [1, 2], game="Pong", seed=seed)
        if seed == 2:
            run.provenance_file.unlink()
        if seed == 1:
            run.evaluation_file.unlink()
    assert cli.main(["report", str(tmp_path / "runs"), "--save", str(tmp_path)]) == 1
    text = capsys.readouterr()
    assert text.out == f"{tmp_path / 'Pong-seed3.json'}\n"
    assert text.err.startswith("No score file of:\n")
    assert "no evaluation" in text.err and "does not say what machine" in text.err


# What is refused ------------------------------------------------------------------------------------------------------


def test_only_whole_episodes_are_kept(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [1, 2], game="Pong")
    config = preset("quick", "evaluation.episode_steps=500", game="Pong")
    short = report_of(config, [1, 2], step=102_000)
    short["episodes"][0]["cut"] = True
    with pytest.raises(GlamkitError, match=r"1 of 2 evaluation episodes were cut; .*--episode-steps 27000"):
        score_files.score(run, short)
    short["protocol"]["episode_steps"] = 27_000  # ALE's own end of a game
    assert score_files.score(run, short)["mean_return"] == 1.5
    with pytest.raises(GlamkitError, match=r"at step 5 of 102,000, before its end"):
        score_files.score(run, {**short, "step": 5})


def test_a_run_without_its_machine_and_a_shared_one_are_refused(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [1, 2], game="Pong")
    run.provenance_file.unlink()
    with pytest.raises(GlamkitError, match="does not say what machine"):
        score_files.check(run)
    run.shared_file.write_text("{}")
    with pytest.raises(GlamkitError, match="is a shared run"):
        score_files.check(run)


def test_a_file_is_not_written_over_by_another_run(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [1, 2], game="Pong")
    file = score_files.save(run.folder, tmp_path)
    assert score_files.save(run.folder, tmp_path) == file, "the same run again, as after another evaluation"
    other = finished(tmp_path / "other", [1, 2], game="Boxing")
    before = file.read_text()
    with pytest.raises(GlamkitError, match=r"with another env\.game; name another file"):
        score_files.save(other.folder, file)
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean_return": 5.0}, "its mean return 5 is not the mean"),
        ({"human_normalised": 0.5}, "contradicts itself: human_normalised"),
        ({"human_normalised": None}, "contradicts itself: human_normalised"),
        ({"seed": 9}, "contradicts itself: seed"),
        ({"game": "Boxing"}, "contradicts itself: game"),
        ({"preset": "quick"}, "contradicts itself: preset"),
        ({"env_steps": 5}, "at step 5 of 102,000, before its end"),
        ({"curve": [[5, 1.0], [3, 1.0]]}, "contradicts itself: curve"),
        ({"curve": [[102_001, 1.0]]}, "contradicts itself: curve"),
        ({"curve": [[5, float("nan")]]}, "contradicts itself: curve"),
        ({"curve": [[5, "x"]]}, "is damaged"),
        ({"episodes": []}, "holds no episodes"),
        ({"episodes": [{"return": 1.5, "length": 9}]}, "contradicts itself: episodes"),
        ({"hours": -1.0}, "contradicts itself: hours"),
        ({"hours": float("nan")}, "contradicts itself: hours"),
        ({"machine": {}}, "is damaged"),
        ({"curve": 3}, "is damaged"),
        ({"more": 3}, "missing or unknown is more"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [1, 2], game="Pong")
    file = score_files.save(run.folder, tmp_path)
    file.write_text(json.dumps(score_files.read(file) | change))
    with pytest.raises(GlamkitError, match=re.escape(words)):
        score_files.read(file)
    assert [one.folder for one in results.collect([file])[1]] == [file]


# The table ------------------------------------------------------------------------------------------------------------


def test_the_table_stands_beside_the_published(tmp_path: Path) -> None:
    for game, seed, level in (("Pong", 1, -12), ("Pong", 2, 3), ("Boxing", 1, 12.1)):
        run = finished(tmp_path / f"{game}{seed}", [level - 1, level + 1], game=game, seed=seed)
        score_files.save(run.folder, tmp_path / "files")
    table = table_of([tmp_path / "files"])
    boxing, pong, mean = (row[1:] for row in table.rows)
    header = table.header[1:]
    assert boxing[:6] == ["Boxing", "12.1 ± 1.0", "-", "0.1", "12.1", "1.00"]
    assert pong[1] == "-12.0 ± 1.0, 3.0 ± 1.0" and pong[-1] == "2.1, 2.1"
    half = 12.7062 * 7.5  # t of one degree of freedom, times the standard error of -12 and 3
    assert pong[2] == f"-4.5 [{-4.5 - half:.1f}, {-4.5 + half:.1f}]"
    normal = atari100k.normalise(atari100k.published()["STORM"].scores)
    assert float(mean[header.index("STORM")]) == pytest.approx(
        (normal["Pong"].mean() + normal["Boxing"].mean()) / 2, abs=0.005
    )
    best = strongest("Boxing")
    top = [atari100k.normalise(method.scores)["Boxing"].mean() for method in atari100k.published().values()]
    assert boxing[header.index("strongest")] == f"{max(top):.2f} {best}"
    assert score_table({}) is None


# What the repository holds --------------------------------------------------------------------------------------------


def generated(page: str, kind: str) -> str:
    """What stands on a page between the marks of a table that is made from files."""
    result = re.search(rf"<!-- {kind} -->\n(.*?)<!-- end -->", page, re.S)
    return result[1].strip() if result else ""


def rows(page: str, kind: str) -> list[list[str]]:
    """Rows of README's table of results that are of a preset: game, preset and steps, random play, best, scores."""
    part = page.partition("## Results")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    return [row for row in cells if len(row) > 1 and row[1].startswith(f"`{kind}`")]


def wrong(folder: Path, kind: str, readme: str, page: str) -> list[str]:
    """What the two pages say of the score files in a folder that the files do not."""
    counted, left = results.collect([folder]) if folder.is_dir() else ([], [])
    result = [f"{one.folder.name}: {one.reason}" for one in left]
    table = table_of([folder]).markdown().strip() if counted else ""
    result += [] if generated(page, kind) == table else [f"the table of {kind} is another than that of the files"]
    for row in rows(readme, kind):
        own = sorted((one for one in counted if one.game == row[0]), key=lambda one: one.seed)
        steps = {f"`{kind}`, {one.config.trainer.env_steps:,}" for one in own}
        known = atari100k.games().get(row[0])
        beside = [f"{value:g}" for value in (known.random, known.human)] if known else []
        message = [value.strip() for value in row[-1].split(",")]
        same = len(own) == len(message) and all(
            value == f"{one.score:.{len(value.partition('.')[2])}f}" for value, one in zip(message, own, strict=True)
        )
        if steps != {row[1]} or [value.replace(",", "") for value in row[2:4]] != beside or not same:
            result.append(f"README's row of {row[0]} is not what the files hold")
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_pages_say_what_the_files_hold(kind: str) -> None:
    result = wrong(RESULTS / kind, kind, (ROOT / "README.md").read_text(), (RESULTS / "README.md").read_text())
    assert not result, f"make the table anew: glamkit report notebooks/results/{kind} --scores"


def test_a_number_that_no_file_holds_would_be_noticed(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [-10, -14], game="Pong", seed=1)
    score_files.save(run.folder, tmp_path / "laptop")
    made = table_of([tmp_path / "laptop"]).markdown()
    page = f"# Results\n\n<!-- laptop -->\n{made}<!-- end -->\n"
    readme = (
        "## Results\n\n| game | preset |\n|---|---|\n| Pong | `laptop`, 102,000 | -20.7 | 14.6 | -12.0 |\n\n## Speed\n"
    )
    assert not wrong(tmp_path / "laptop", "laptop", readme, page)
    assert wrong(tmp_path / "laptop", "laptop", readme, page.replace("-12.0", "-11.0"))
    for other in ("-12.1", "-12.0, -12.0", "12.0"):
        assert wrong(tmp_path / "laptop", "laptop", readme.replace("-12.0", other), page)
    assert wrong(tmp_path / "laptop", "laptop", readme.replace("102,000", "100,000"), page)
    assert wrong(tmp_path / "laptop", "laptop", readme.replace("-20.7", "-20.6"), page)
    assert wrong(tmp_path / "laptop", "laptop", readme.replace("14.6", "21"), page)
    assert wrong(tmp_path / "laptop", "laptop", readme.replace("Pong", "Boxing"), page)
    assert wrong(tmp_path / "none", "laptop", readme, page)


def test_the_seeds_of_readme_are_those_of_the_files() -> None:
    part = (ROOT / "README.md").read_text().partition("## Results")[2]
    assault = json.loads((RESULTS / "assault-quick.json").read_text())
    assert rows(part := f"## Results{part}", "quick")[0][2] == f"{assault['random']['mean_return']:.0f}"
    seeds = [f"{run['evaluation_mean_return']:.0f}" for run in assault["runs"]]
    assert [row[-1] for row in rows(part, "quick")] == [", ".join(seeds)]


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_sweep_files_can_be_run(file: Path) -> None:
    made = plan.make(**plan.read_file(file))
    named = yaml.safe_load(file.read_text())
    assert named["preset"] in PRESETS and {entry.preset for entry in made.entries} == {named["preset"]}
    assert len(made.entries) == len({(entry.game, entry.seed) for entry in made.entries}), "one file of each"
    assert all(entry.config().evaluation.episodes == 20 for entry in made.entries)
