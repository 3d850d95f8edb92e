"""Batches: what they are made of, who works on them, and where each run is, said from files alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from tiny_runs import evaluated

from glamkit import cli
from glamkit.bench import timing
from glamkit.config import Config, preset
from glamkit.errors import GlamkitError
from glamkit.sweeps import plan as planning
from glamkit.sweeps import status_table, sweep
from glamkit.sweeps.local import Local
from glamkit.sweeps.sweep import Sweep
from glamkit.sweeps.worker import parameters

CATCH, MEMORY = "glamkit/Catch-v0", "glamkit/Memory-v0"
CPU = "runtime.device=cpu"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For the processes that are started: the models are tiny and the machine may be busy."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield


# What a batch consists of ---------------------------------------------------------------------------------------------


def test_games_times_seeds_times_variants(tmp_path: Path) -> None:
    variants = {"plain": {}, "reset": {"agent": {"context": "reset"}}}
    plan = planning.make([CATCH, "Pong"], "1-2", "debug", 64, "env.sticky=0", variants, tmp_path)
    names = [entry.folder for entry in plan.entries]
    assert names[:4] == ["Catch-v0/plain-seed1", "Catch-v0/reset-seed1", "Pong/plain-seed1", "Pong/reset-seed1"]
    assert len(set(names)) == 8
    job = {job.name: job for job in Sweep(plan).jobs}["Pong/reset-seed2"]
    assert job.run.folder == tmp_path / "Pong" / "reset-seed2"
    config = job.config
    assert (config.env.game, config.trainer.seed, config.trainer.env_steps) == ("Pong", 2, 64)
    assert (config.env.sticky, config.agent.context, config.preset) == (0, "reset", "debug")
    assert [entry.folder for entry in planning.make("Pong", 3).entries] == ["Pong/seed3"]


def test_the_notebook_is_given_what_makes_the_same_config(tmp_path: Path) -> None:
    changes = "world_model.channels=8,8,8 env.life_loss=no trainer.warmup=50 trainer.env_steps=70"
    config = preset("debug", changes + " imagination.contexts=batch world_model.unimix=1e-3", game=CATCH, seed=7)
    given = parameters(config, tmp_path)
    names = {"preset", "overrides", "game", "seed", "env_steps"}
    assert set(given) == names | {"run_dir", "resume"}
    assert given["run_dir"] == str(tmp_path) and given["resume"] is True  # whatever the notebook was saved with
    again = preset(given["preset"], given["overrides"], **{k: given[k] for k in ("game", "seed", "env_steps")})
    assert again == config
    book = nbformat.read(ROOT / "notebooks" / "02_train.ipynb", as_version=4)
    (cell,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    assert all(f"{name}: " in cell.source for name in given)


def written(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


def test_a_sweep_file(tmp_path: Path) -> None:
    text = """
        games: [glamkit/Catch-v0, glamkit/Memory-v0]
        seeds: 1-3
        preset: debug
        env_steps: 64
        overrides: {trainer: {save_every: 16}, world_model.unimix: 1e-3}
        variants: {a: , b: agent.context=reset}
    """
    plan = planning.make(**planning.read_file(written(tmp_path, text)))
    assert plan.folder.name == "study"
    assert len(plan.entries) == 12
    config = plan.entries[-1].config()
    assert (config.trainer.save_every, config.world_model.unimix, config.agent.context) == (16, 1e-3, "reset")
    rows, common = sweep.Sweep(plan).overview().rows, "trainer.save_every=16 world_model.unimix=1e-3"
    # Once, whatever the number of runs.
    assert [row for row in rows if row[0] in ("a", "b")] == [["a", common], ["b", f"{common} agent.context=reset"]]


def test_settings_of_the_line_come_to_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "games: Pong\npreset: debug\noverrides: {agent.context: reset}")
    assert cli.main(["sweep", file, "--overrides", "runtime.max_hours=3", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "agent.context=reset" in shown and "runtime.max_hours=3" in shown
    assert cli.main(["sweep", file, "--overrides", "agent.context=carried", "--dry-run"]) == 1
    assert "agent.context is given twice" in capsys.readouterr().err


def test_variants_whose_names_differ_in_a_dash_are_two(tmp_path: Path) -> None:
    made = Sweep(planning.make("Pong", variants=["a:", "a-:env.sticky=0", "b-seed:env.sticky=0.5"], folder=tmp_path))
    assert list(made.groups()["Pong"]) == ["a", "a-", "b-seed"]
    assert [row[0] for row in made.table().rows[1:]] == ["Pong: a", "Pong: a-", "Pong: b-seed"]
    alone = Sweep(planning.make(CATCH, "1 2", "debug", folder=tmp_path))
    assert list(alone.groups()[CATCH]) == ["debug"] and "seeds 1, 2" in alone.figure().get_suptitle()


MISTAKES = {
    "gmaes: Pong": "unknown key 'gmaes' in '{file}'; did you mean 'games'?",
    "games: Pong\nseed: 3": "unknown key 'seed' in '{file}'; did you mean 'seeds'?",
    "games: Pnog": "unknown game 'Pnog'; did you mean 'Pong'?",
    "games: [Pong, glamkit/Cacth-v0]": "did you mean 'glamkit/Catch-v0'",
    "games: [Pong, ALE/Pong-v5]": "two runs would share the folder Pong/seed1; name games and variants only once.",
    "games: 3": "unknown game '3'",
    "games: []": "games = [] names none",
    "games: [[Pong]]": "games = ['Pong'] is not text.",
    "games: Pong\nseeds: one": "seeds = 'one' is not a list of whole numbers",
    "games: Pong\nseeds: 1.5": "seeds = '1.5' is not a list of whole numbers",
    "games: Pong\npreset: debgu": "unknown preset 'debgu'; did you mean 'debug'?",
    "games: Pong\noverrides: trainer.warmpu=60": "unknown setting 'trainer.warmpu'; did you mean 'trainer.warmup'",
    "games: Pong\noverrides: {trainer: {seed: 2}}": "trainer.seed is given twice, as '2' and as 1;",
    "games: Pong\noverrides: 3": "override '3' is not of the form key=value",
    "games: Pong\nvariants: 3": "variants = '3' is no table of names",
    "games: Pong\nvariants: [a, a]": "two runs would share the folder Pong/a-seed1",
    "games: Pong\nvariants: {a/b: {}}": "variant 'a/b' is no name for a folder",
    "games: Pong\nvariants: {_a: {}}": "variant '_a' is no name for a folder and a curve",
    "games: Pong\nvariants: {..: {}}": "variant '..' is no name for a folder",
    "games: Pong\nvariants: {a: {agent.contxt: reset}}": "unknown setting 'agent.contxt'; did you mean 'agent.context'",
    "games: Pong\nenv_steps: many": "env_steps = 'many' is not a whole number.",
    "- Pong": "holds no table",
    "games: [Pong": "cannot be read: while parsing a flow sequence",
    "seeds: 1": "games = '' names none; write 'Pong Boxing'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_sweep_file_is_refused_at_once(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, text)
    assert cli.main(["sweep", file]) == 1
    message = capsys.readouterr()
    assert MISTAKES[text].format(file=file) in message.err
    assert message.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [Path(file)]


def test_a_missing_sweep_file_and_a_folder_without_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", str(tmp_path / "none.yaml")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["sweep", "status", str(tmp_path)]) == 1
    assert "holds no batch: there is no sweep.json in it." in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text('{"format": 1, "runs": [{"folder": "../../x"}]}')
    assert cli.main(["sweep", "status", str(tmp_path)]) == 1
    assert "sweep.json is damaged" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text('{"format": 2, "runs": [{"place": "x"}]}')
    assert cli.main(["sweep", "status", str(tmp_path)]) == 1
    assert "sweep.json has format 2; this glamkit reads 1, update it." in capsys.readouterr().err


def test_the_folder_lists_all_that_was_ever_asked_for(tmp_path: Path) -> None:
    first = planning.make(CATCH, "1", "debug", folder=tmp_path)
    second = planning.make([MEMORY, CATCH], "1 2", "debug", folder=tmp_path)
    planning.save(first)
    assert Sweep(tmp_path).plan == first
    planning.save(second)
    saved = Sweep(tmp_path).plan
    assert [entry.folder for entry in saved.entries][:2] == ["Catch-v0/seed1", "Memory-v0/seed1"]
    assert len(saved.entries) == 4


def test_only_what_was_asked_for_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost was shown and agreed to; what an earlier batch in the folder has left would be more."""
    planning.save(planning.make([CATCH, MEMORY], "1-3", "debug", overrides=CPU, folder=tmp_path))
    batch = Sweep(planning.make(MEMORY, "2", "debug", overrides=CPU, folder=tmp_path))
    run: list[str] = []
    monkeypatch.setattr(status_table, "run_jobs", lambda pool: run.extend(job.name for job in pool.jobs))
    for _ in range(2):  # the second time as after the stop button
        batch.run(Local(batch.jobs, 1))
    assert run == ["Memory-v0/seed2"] * 2
    assert len(Sweep(tmp_path).jobs) == 6


# What it costs --------------------------------------------------------------------------------------------------------


class Clock:
    """An engine on which every run takes ten hours."""

    at_once = 2

    def __init__(self) -> None:
        self.asked: list[Config] = []

    def hours(self, config: Config) -> float:
        self.asked.append(config)
        return 10.0


def test_the_cost_is_that_of_what_is_left(tmp_path: Path) -> None:
    batch, clock = Sweep(planning.make(CATCH, "1-4", "debug", overrides=CPU, folder=tmp_path)), Clock()
    todo = batch.jobs
    for job in todo[:2]:
        job.run.folder.mkdir(parents=True)
    evaluated(todo[0])
    todo[1].run.log_file.write_text('{"step": 72, "kind": "log"}\n')
    lines: list[str] = []
    # Half of one is left, so a run takes 8h20m on average, and two take turns.
    sentence = "3 runs to make, 2 at once: about 16h40m (by a few steps, uncompiled; without evaluation)."
    assert batch.cost(clock, tell=lines.append) == batch.cost(Clock(), True, most=0.25) == sentence
    assert len(clock.asked) == 1 and clock.asked[0].runtime.compile == "off"  # games and seeds cost the same
    assert lines == ["timing a few steps of glamkit/Catch-v0 by debug"]
    with pytest.raises(GlamkitError, match="That is more than 15 minutes; add --yes"):
        batch.cost(clock, most=0.25)
    todo[1].run.log_file.write_text('{"step": 48, "kind": "log"}\n')
    assert "about 20h00m" in batch.cost(clock)  # only its random steps are behind it
    todo[2].run.begin(todo[2].config.override({"trainer.seed": 9}), {})
    with pytest.raises(GlamkitError, match=r"holds another experiment: trainer\.seed is 9 there"):
        Sweep(batch.plan)


def test_a_batch_of_days_does_not_start_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "hours_apart", lambda *_: 50.0)
    given = [*f"--games {CATCH} --preset debug --folder".split(), str(tmp_path / "study")]
    assert cli.main(["sweep", *given]) == 1
    assert "more than a day; add --yes" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_wrong_number_or_engine_is_refused(tmp_path: Path) -> None:
    batch = Sweep(planning.make(CATCH, "1", "debug", folder=tmp_path / "study"))
    with pytest.raises(GlamkitError, match="unknown engine 'rya'; did you mean 'ray'"):
        batch.engine("rya")
    with pytest.raises(GlamkitError, match="retries = -1 is outside its range"):
        batch.run(Local(batch.jobs), -1)
    assert not (tmp_path / "study").exists()


def test_without_ray_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GlamkitError, match=r"needs Ray, which is not installed: pip install 'glamkit-rl\[cluster\]'"):
        Sweep(planning.make(CATCH, "1", "debug", folder=tmp_path)).engine("ray")
