"""What a run's provenance records, and what it is that two runs differ in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from made_runs import report_of

from glamkit import cli
from glamkit.config import RuntimeConfig, preset
from glamkit.errors import GlamkitError
from glamkit.plotting import interval
from glamkit.report.compare import Comparison
from glamkit.runs import provenance
from glamkit.runs.folder import Run
from glamkit.runs.provenance import Provenance, git_state
from glamkit.runtime import Machine

# The provenance -------------------------------------------------------------------------------------------------------


def test_the_provenance_says_what_it_takes(tmp_path: Path) -> None:
    path, config = tmp_path / "provenance.json", preset("debug", seed=7)
    machine = Machine(RuntimeConfig(device="cpu", precision="float32")).describe()
    first = Provenance(Run(tmp_path), config, 0, {**machine, "kernel": "glamkit"})
    first.write(10)
    first.write(20)
    second = Provenance(Run(tmp_path), config, 20, {"precision": "bfloat16"})
    second.write(30)
    data = json.loads(path.read_text())
    assert (data["format"], data["seed"]) == (1, 7)
    one, two = data["sessions"]
    assert [(s["first_step"], s["step"]) for s in (one, two)] == [(0, 20), (20, 30)]
    assert one["versions"]["torch"] == metadata.version("torch")
    assert {"python", "glamkit", "numpy", "ale-py"} <= set(one["versions"])
    assert {"host", "system", "cores", "threads", "device", "device_name", "kernel"} <= set(one["machine"])
    assert (one["machine"]["precision"], two["machine"]["precision"]) == ("float32", "bfloat16")


def test_sessions_after_the_step_that_is_gone_on_from_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    run, config = Run(tmp_path), preset("debug")
    Provenance(run, config, 0, {}).write(50)
    Provenance(run, config, 50, {}).write(90)
    again = Provenance(run, config, 50, {})  # killed before the next checkpoint
    again.write(70)
    assert [s["step"] for s in provenance.sessions(path)] == [50, 70]


def test_the_provenance_is_quick_and_never_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.process_time()
    made = Provenance(Run(tmp_path), preset("debug"), 0, {})
    made.write(1)
    assert time.process_time() - began < 1  # its own work, whatever else the machine does
    (tmp_path / "provenance.json").write_text("[" * 5000)
    assert provenance.sessions(tmp_path / "provenance.json") == []
    Provenance(Run(tmp_path / "none"), preset("debug"), 0, {}).write(1)  # no such folder
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "unknown" in git_state(ROOT)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_git_state(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    assert git_state(tmp_path) == {"unknown": "glamkit was not run from a git checkout"}

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", tmp_path, *who, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
        return done.stdout.strip()

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    git("tag", "-a", "v1", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    (tmp_path / ".git" / "HEAD").write_text("damaged")
    assert "unknown" in git_state(tmp_path)


# Two runs -------------------------------------------------------------------------------------------------------------


def run(folder: Path, score: float | None, overrides: str = "", seed: int = 1, **facts: Any) -> Path:
    """A finished run, without training."""
    config, made = preset("debug", overrides, seed=seed), Run(folder)
    folder.mkdir(parents=True)
    made.begin(config, {})
    if score is not None:
        made.evaluation_file.write_text(json.dumps(report_of(config, [score])))
    session = {
        "first_step": 0,
        "step": 96,
        "git": {"commit": "c1", "dirty": False},
        "versions": {"torch": "2.8"},
        "machine": {},
    }
    for name, value in facts.items():
        part, _, key = name.partition("_")
        session[part] = {**session[part], key: value}
    (folder / "provenance.json").write_text(json.dumps({"sessions": [session]}))
    return folder


def test_returns_that_are_not_finite_are_named(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, seed=2)
    content = json.loads((b / "evaluation.json").read_text())
    content |= {"episodes": [{"return": 1.0}, {"return": float("nan")}], "mean_return": float("nan")}
    (b / "evaluation.json").write_text(json.dumps(content))
    assert "b has no score that counts: 1 of its 2 returns are not finite numbers." in Comparison(a, b).verdict()


RESET, STICKY = "agent.context=reset", "env.sticky=0"


def test_one_setting_beyond_the_spread_between_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (plain, changed) in enumerate([(1.0, 5.0), (1.2, 5.3), (0.9, 5.2)], 1):
        run(tmp_path / f"plain-{seed}", plain, seed=seed)
        run(tmp_path / f"reset-{seed}", changed, RESET, seed=seed)
    run(tmp_path / "other", 99.0, STICKY)  # another experiment does not count
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert cli.main(["compare", str(tmp_path / "plain-1"), str(tmp_path / "reset-2")]) == 0
    out = capsys.readouterr().out
    assert "agent.context" in out
    assert "carried" in out
    assert "1.03, 95 % interval 0.65 to 1.41, 3 seeds" in out
    low, high = interval([5.0, 5.3, 5.2], [1.0, 1.2, 0.9]) or (0, 0)
    assert f"B minus A is +4.13 over seeds, 95 % interval {low:.2f} to {high:.2f}: beyond the spread" in out
    assert "Settings that differ: agent.context. What else differs: trainer.seed." in out


def test_several_settings_are_not_told_apart(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0)
    b = run(tmp_path / "b", 3.0, f"{RESET} {STICKY}")
    verdict = Comparison(a, b).verdict()
    assert "Settings that differ: env.sticky, agent.context." in verdict and "each needs two seeds" in verdict


def test_within_the_spread(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path / f"a{seed}", float(seed), seed=seed)
        run(tmp_path / f"b{seed}", seed + 0.1, RESET, seed=seed)
    assert "within the spread between seeds" in Comparison(tmp_path / "a1", tmp_path / "b1").verdict()
    assert "Settings are the same but for the seed" in Comparison(tmp_path / "a1", tmp_path / "a2").verdict()


def test_returns_of_two_games_are_not_compared(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path / f"a{seed}", float(seed), seed=seed)
        run(tmp_path / f"b{seed}", seed + 30.0, "env.game=glamkit/Memory-v0", seed=seed)
    verdict = Comparison(tmp_path / "a1", tmp_path / "b1").verdict()
    assert verdict.endswith("Returns of two games cannot be compared.") and "B minus A" not in verdict


def test_returns_of_cut_games_are_not_compared_with_those_of_whole_ones(tmp_path: Path) -> None:
    for seed in (1, 2):
        place = run(tmp_path / f"a{seed}", float(seed), seed=seed) / "evaluation.json"
        report = json.loads(place.read_text())
        report["episodes"][0]["cut"] = True
        place.write_text(json.dumps(report))
        run(tmp_path / f"b{seed}", seed - 9.0, RESET, seed=seed)
    made = Comparison(tmp_path / "a1", tmp_path / "b1")
    assert made.verdict().endswith("Returns of games that were cut and of others cannot be compared.")
    assert "B minus A" not in made.verdict() and "1.00 of games cut after 40 steps" in repr(made)


def test_versions_and_machines(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0)
    b = run(tmp_path / "b", 1.5, versions_torch="2.9", git_dirty=True, machine_precision="bfloat16")
    for folder, end in ((a, 2), (b, 3)):
        lines = [{"step": 16, "kind": "log", "loss": 1, "time/x": end}, {"step": 32, "kind": "log", "loss": end}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = Comparison(a, b)
    assert result.facts["versions torch"] == ("2.8", "2.9")
    assert result.facts["git dirty"] == ("False", "True")
    assert result.facts["machine precision"] == ("unknown", "bfloat16")
    assert result.verdict().endswith("their logs part at step 32. What else differs: versions or machine.")
    assert "versions torch" in repr(result)
    (b / "metrics.jsonl").write_text((a / "metrics.jsonl").read_text().replace('"time/x": 2', '"time/x": 7'))
    assert "so is every line of their logs" in Comparison(a, b).verdict()


def test_what_is_no_setting_may_be_to_blame_too(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0)
    rounded = run(tmp_path / "rounded", 1.5, "runtime.precision=bfloat16")
    for folder, value in ((a, 1), (rounded, 2)):
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 16, "kind": "log", "loss": value}) + "\n")
    verdict = Comparison(a, rounded).verdict()
    same = "Settings and seed are the same, but their logs part at step 16."
    assert verdict == f"{same} What else differs: runtime.precision."
    often = run(tmp_path / "often", 1.5, "trainer.log_every=8 evaluation.every=32")
    result = Comparison(a, often)
    assert result.verdict() == f"{same} What else differs: trainer.log_every, evaluation.every."
    assert "trainer.log_every" in repr(result)
    seeded = run(tmp_path / "seeded", 1.5, seed=2, versions_torch="2.9")
    assert Comparison(a, seeded).verdict().endswith("What else differs: versions or machine.")


def test_what_changed_at_a_resume_is_shown(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0)
    b = run(tmp_path / "b", 1.0)
    data = json.loads((b / "provenance.json").read_text())
    data["sessions"].append({**data["sessions"][0], "versions": {"torch": "2.9"}})
    (b / "provenance.json").write_text(json.dumps(data))
    assert Comparison(a, b).facts == {"versions torch": ("2.8", "2.8 -> 2.9")}


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", 1.0)
    unfinished = run(tmp_path / "b", None, RESET)
    (unfinished / "provenance.json").unlink()
    result = Comparison(a, unfinished)
    assert "b has no score that counts: not finished: at step 0 of 96, no evaluation." in result.verdict()
    assert "none that counts" in repr(result)
    assert result.facts["versions torch"] == ("2.8", "unknown")
    with pytest.raises(GlamkitError, match="are the same run; name two"):
        Comparison(a, tmp_path / "b" / ".." / "a")
    assert cli.main(["compare", str(a), str(tmp_path / "none")]) == 1
    assert "none is no run folder and no shared file" in capsys.readouterr().err


def test_welch_against_numbers_worked_by_hand() -> None:
    # Means 2 and 5, variances 1 and 4 of 3 and 3: standard error sqrt(5/3), degrees (5/3)^2 / (1/18 + 16/18) = 2.94.
    low, high = interval([3.0, 5.0, 7.0], [1.0, 2.0, 3.0]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(3.0)
    assert (high - low) / 2 == pytest.approx(4.3027 * (5 / 3) ** 0.5)
    assert interval([2.0, 3.0], [1.0]) is None
    assert interval([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0)
