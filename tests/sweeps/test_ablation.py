"""Ablations: variants and seeds by name, runs made once, side by side and resumably, and what they came to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from books import executed, started

from glamkit import cli
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.runs import log
from glamkit.runs.folder import Run
from glamkit.sweeps import local, status_table
from glamkit.sweeps.ablation import QUESTIONS, Ablation, read_seeds, read_variants
from glamkit.sweeps.job import Job
from glamkit.sweeps.local import Local
from glamkit.sweeps.pool import Pool
from glamkit.sweeps.status_table import run_jobs
from glamkit.training import checkpoint

GAME = "glamkit/Catch-v0"
QUICK = "runtime.device=cpu"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For the processes that are started: the models are tiny and the machine may be busy."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield


def plan(folder: Path, variants: str = "bootstrap", seeds: str = "1", **changes: Any) -> Ablation:
    given = {"game": GAME, "preset": "debug", "env_steps": 64, "overrides": QUICK} | changes
    return Ablation(variants=variants, seeds=seeds, folder=folder, **given)


def run(study: Ablation, workers: int) -> None:
    study.run(study.engine(workers=workers))


def wait_for(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while log.last_step(folder / "metrics.jsonl") < step:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# What is asked for ----------------------------------------------------------------------------------------------------


def test_variants_are_named_alone_or_by_question() -> None:
    assert read_variants("modules") == [("modules", "both"), ("modules", "gmamba"), ("modules", "lmamba")]
    assert read_variants("acting-posterior, modules-gmamba") == [("modules", "gmamba"), ("acting", "posterior")]
    assert [answer for _, answer in read_variants(["variation", "variation-off"])] == ["off", "frozen", "learned"]
    assert len(read_variants("all")) == sum(len(question.answers) for question in QUESTIONS.values()) == 17


def test_seeds_are_read_in_all_their_forms() -> None:
    assert read_seeds("1 2,3") == read_seeds("1-3") == read_seeds([1, 2, 3]) == [1, 2, 3]
    assert read_seeds(3) == [3]
    assert read_seeds("4 1-2 1") == [4, 1, 2]
    for wrong in (1.5, None, True, [1.5]):
        with pytest.raises(GlamkitError, match="is not a list of whole numbers such as 1 2 3 or 1-3"):
            read_seeds(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": "gmamba"}, "unknown variant 'gmamba'; did you mean 'modules-gmamba'"),
        ({"variants": "modules acting-prio"}, "unknown variant 'acting-prio'; did you mean 'acting-prior'"),
        ({"variants": "modules-gmanba"}, "unknown variant 'modules-gmanba'; did you mean 'modules-gmamba'"),
        ({"variants": " "}, "variants is empty; allowed: all, modules,"),
        ({"seeds": "one"}, "seeds = 'one' is not a list of whole numbers such as 1 2 3 or 1-3."),
        ({"seeds": "3-1"}, "seeds = '3-1' is not a list"),
        ({"seeds": []}, "seeds is empty"),
        ({"game": "glamkit/Cacth-v0"}, "did you mean 'glamkit/Catch-v0'"),
        ({"preset": "debgu"}, "unknown preset 'debgu'; did you mean 'debug'"),
        ({"env_steps": 20}, "env_steps = 20 does not fit trainer.warmup"),
        ({"folder": ""}, "run_dir = '' is no path"),
        ({"overrides": "trainer.warmpu=60"}, "unknown setting 'trainer.warmpu'"),
    ],
)
def test_a_mistake_stops_before_anything_is_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(GlamkitError) as error:
        plan(**{"folder": tmp_path / "runs", **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_what_the_preset_says_is_run_once(tmp_path: Path) -> None:
    everything = plan(tmp_path, "all", "1 2")
    names = [job.name for job in everything.jobs]
    assert len(names) == len(set(names)) == 2 * (1 + 17 - len(QUESTIONS))  # one answer of each question is the preset's
    assert names[0] == "preset-seed1"
    assert names.index("preset-seed2") == len(names) // 2  # seed by seed
    labels = {f"{v.question}: {v.label}" for v in everything.variants}
    assert {
        "modules: both (preset)",
        "modules: gmamba",
        "variation: frozen (preset)",
        "latents: sampled (preset)",
    } <= labels
    job = next(job for job in everything.jobs if job.name == "modules-lmamba-seed2")
    assert job.run.folder == tmp_path / "Catch-v0" / "modules-lmamba-seed2"
    assert (job.config.world_model.modules, job.config.trainer.seed, job.config.trainer.env_steps) == ("lmamba", 2, 64)
    assert job.config.override({"world_model.modules": "both"}) == everything.jobs[len(names) // 2].config


def test_a_game_has_one_folder_by_all_its_names(tmp_path: Path) -> None:
    names = ("Pong", "ALE/Pong-v5", "ale_py:ALE/Pong-v5")
    assert {plan(tmp_path, game=name).folder for name in names} == {tmp_path / "Pong"}


def test_a_question_is_always_answered_by_the_preset_too(tmp_path: Path) -> None:
    assert [job.name for job in plan(tmp_path, "modules-gmamba").jobs] == ["preset-seed1", "modules-gmamba-seed1"]


@pytest.mark.parametrize(
    ("overrides", "plain"),
    [
        ("", "frozen"),
        ("world_model.variation_head=learned", "learned"),
        ("world_model.variation_scale=0", "off"),
        ("world_model.variation_scale=0.5", "frozen"),
    ],
)
def test_the_variation_loss_is_off_or_on_whatever_the_preset_says(overrides: str, plain: str, tmp_path: Path) -> None:
    variants = {v.choice: v for v in plan(tmp_path, "variation", overrides=f"{QUICK} {overrides}").variants}
    assert [choice for choice, v in variants.items() if not v.changes] == [plain]
    jobs = {job.name: job.config for job in plan(tmp_path, "variation", overrides=f"{QUICK} {overrides}").jobs}
    for choice, v in variants.items():
        model = jobs[f"{v.folder}-seed1"].world_model
        assert (model.variation_scale == 0) == (choice == "off")
        assert (model.variation_head == "learned") == (choice == "learned")


# The runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    run(plan(folder), 2)
    return folder


def test_runs_are_ordinary_run_folders(made: Path) -> None:
    assert sorted(path.name for path in (made / "Catch-v0").iterdir()) == [
        "bootstrap-next-seed1", "preset-seed1", "sweep.json",
    ]  # fmt: skip
    for job in plan(made).jobs:
        assert job.run.config() == job.config
        report = json.loads(job.run.evaluation_file.read_text())
        assert report["step"] == 64
        assert report["mean_return"] == job.progress().score
        assert job.progress().step == log.last_step(job.run.log_file) <= 64
        assert job.notebook is None and not (job.run.folder / "errors.txt").exists()


def test_finished_runs_are_not_run_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "LocalProcess", None)  # no process can be started
    run(plan(made), 2)
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 runs done  step 128/128  done"
    with pytest.raises(TypeError):
        run(plan(made, seeds="1 2"), 2)


def test_a_folder_of_another_experiment_is_refused(made: Path) -> None:
    with pytest.raises(GlamkitError, match=r"preset-seed1 holds another experiment: actor_critic\.discount is"):
        run(plan(made, overrides="actor_critic.discount=0.9"), 1)
    with pytest.raises(GlamkitError, match="workers = 0 is outside its range: at least 1"):
        run(plan(made), 0)


def command(folder: Path, *more: str) -> list[str]:
    given = f"--game {GAME} --preset debug --variants bootstrap --seeds 1 --workers 1 --overrides {QUICK}"
    return [sys.executable, "-m", "glamkit", "ablate", *given.split(), "--folder", str(folder), *more]


@pytest.mark.slow
def test_a_killed_ablation_leaves_runs_that_go_on(tmp_path: Path) -> None:
    """Killed without a word: its processes notice, save and end; the next call waits for that and resumes."""
    folder = tmp_path / "Catch-v0" / "preset-seed1"
    with started([*command(tmp_path), "--env-steps", "112"], stdout=subprocess.DEVNULL):
        wait_for(folder, 64)
    (job, *_) = plan(tmp_path, env_steps=112).jobs
    run_jobs(Pool([job], Local([job], 1)))
    assert job.progress().score is not None
    assert checkpoint.steps(folder / "checkpoint")[-1] == 112
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert {*range(16, 113, 16)} <= set(steps)


@pytest.mark.slow
def test_interrupted_it_saves_and_does_not_look_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = plan(tmp_path, env_steps=1000).jobs
    folder = todo[0].run.folder

    def press(_: float) -> None:
        wait_for(folder, 64)
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    with (
        monkeypatch.context() as patched,
        pytest.raises(GlamkitError, match="stopped, and everything is saved: run it again"),
    ):
        patched.setattr(status_table, "time", type("Time", (), {**vars(time), "sleep": staticmethod(press)}))
        run_jobs(Pool(todo, Local(todo, 1)))
    assert checkpoint.steps(folder / "checkpoint")[-1] >= 64
    assert "stopped at step" in (folder / "errors.txt").read_text()
    assert not todo[1].run.started


@pytest.mark.slow
def test_one_failure_does_not_stop_the_others(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good, *_) = plan(made).jobs
    game = preset("debug", "trainer.env_steps=64", game="CartPole-v1")
    bad = Job("bad", Run(made / "bad"), game)
    after = Job("after", Run(made / "after"), preset("debug", f"trainer.env_steps=50 {QUICK}", game=GAME))
    with pytest.raises(GlamkitError, match="1 of 3 runs failed; bad: CartPole-v1 cannot be played"):
        run_jobs(Pool([bad, good, after], Local([bad], 1)))
    assert after.progress().score is not None
    assert "bad: CartPole-v1 cannot be played" in capsys.readouterr().out
    assert "cannot be played" in (made / "bad" / "errors.txt").read_text()


def test_the_table_says_where_runs_are(made: Path, tmp_path: Path) -> None:
    todo = [*plan(made).jobs, plan(tmp_path, "modules-gmamba").jobs[1]]
    seen = {job.name: job.progress() for job in todo}
    assert status_table.summary(seen) == "2 of 3 runs done, 1 queued  step 128/192"
    assert [row[0] for row in status_table.rows(seen)][1] == "modules-gmamba-seed1"


# For people -----------------------------------------------------------------------------------------------------------


def test_the_command_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(made, "--env-steps", "64")[4:]
    assert cli.main(["ablate", "--folder", str(tmp_path / "none"), "--show"]) == 1
    assert "holds no runs yet" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert cli.main(["ablate", *arguments, "--show"]) == 0
    out = capsys.readouterr().out
    assert "bootstrap: current (preset)  1 of 1" in out
    assert "step 128/128" not in out  # nothing was begun
    assert (made / "Catch-v0" / "ablation.png").stat().st_size > 10_000
    assert cli.main(["ablate", *arguments]) == 0
    assert "2 of 2 runs done  step 128/128  done" in capsys.readouterr().out
    assert cli.main(["sweep", "status", str(made / "Catch-v0")]) == 0
    assert "preset-seed1" in capsys.readouterr().out
    misspelt = [*arguments]
    misspelt[misspelt.index("--variants") + 1] = "bootstap"
    assert cli.main(["ablate", *misspelt]) == 1
    assert (
        capsys.readouterr().err
        == "unknown variant 'bootstap'; did you mean 'bootstrap' or 'bootstrap-next' or 'bootstrap-current'?\n"
    )
    changed = [*arguments]
    changed[changed.index("--overrides") + 1] += " actor_critic.discount=0.9"
    for more in ([], ["--show"]):  # nor are its scores shown as those of what is asked for
        assert cli.main(["ablate", *changed, *more]) == 1
        shown = capsys.readouterr()
        assert "holds another experiment" in shown.err and not shown.out


@pytest.mark.slow
def test_the_notebook(made: Path, tmp_path: Path) -> None:
    given = {"preset": "debug", "env_steps": 64, "variants": "bootstrap", "seeds": 1, "overrides": QUICK}
    book = executed("07_ablation", tmp_path / "out.ipynb", folder=made, **given)
    cells = {cell.id: cell.get("outputs", []) for cell in book.cells}
    assert "2 of 2 runs done" in cells["setup"][0]["data"]["text/plain"]
    assert "2 of 2 runs done" in cells["run"][0]["text"]
    assert "bootstrap: next" in cells["table"][0]["data"]["text/html"]
    assert "image/png" in cells["figure"][0]["data"]
