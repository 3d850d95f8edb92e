"""Looking at a run leaves it as it is, and shows what its trainer had at the checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from books import contents
from tiny_runs import finished, short

from glamkit.errors import GlamkitError
from glamkit.training import checkpoint
from glamkit.training.load import open_run
from glamkit.training.trainer import Trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run of 100 steps whose ring holds the last 64; checkpoints are of steps 80 and 100."""
    config = short("replay.capacity=64 trainer.save_every=40", env_steps=100, game="glamkit/Catch-v0")
    return finished(config, tmp_path_factory.mktemp("opened") / "run")


def copied(trainer: Trainer, folder: Path) -> Path:
    """A copy that a test may spoil."""
    for path in trainer.run.folder.rglob("*.*"):
        target = folder / path.relative_to(trainer.run.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def test_what_is_opened_is_what_was_trained(trainer: Trainer) -> None:
    opened = open_run(trainer.run.folder)
    assert opened.step == 100 and not opened.agent.training
    assert opened.config == trainer.config
    ours, theirs = opened.agent.state_dict(), trainer.agent.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert opened.actions == tuple(trainer.env.action_names) == ("LEFT", "STAY", "RIGHT")
    assert (opened.replay.oldest, opened.replay.count) == (36, 100)


def test_frames_are_read_when_they_are_asked_for(trainer: Trainer) -> None:
    replay = open_run(trainer.run.folder).replay
    assert torch.equal(replay.rewards, trainer.replay.rewards) and torch.equal(replay.actions, trainer.replay.actions)
    assert [part.first for part in replay.unread] == [0, 40, 80]
    for ours, theirs in zip(
        replay.window(torch.tensor([60, 61]), 10), trainer.replay.window(torch.tensor([60, 61]), 10), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert [part.first for part in replay.unread] == [0, 80]
    # The oldest part also holds steps that the ring has forgotten; they must not come back over newer ones.
    for ours, theirs in zip(replay.part(36, 100).values(), trainer.replay.part(36, 100).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not replay.unread


def test_an_earlier_checkpoint_sees_the_steps_of_its_time(trainer: Trainer, tmp_path: Path) -> None:
    folder = copied(trainer, tmp_path)
    assert checkpoint.steps(trainer.run.checkpoints) == [80, 100]
    before = contents(folder)
    opened = open_run(folder, 80)
    assert opened.step == 80 and opened.replay.count == 80
    opened.replay.window(torch.tensor([opened.replay.oldest]), 60)
    assert contents(folder) == before  # a trainer would have thrown away the newest part


def test_the_random_numbers_of_others_go_on(trainer: Trainer) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    open_run(trainer.run.folder)
    assert torch.equal(torch.rand(3), expected)


def refused(folder: Path, step: int | None = None) -> str:
    before = contents(folder)
    with pytest.raises(GlamkitError) as error:
        open_run(folder, step)
    assert contents(folder) == before and "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_cannot_be_opened_gets_a_sentence(trainer: Trainer, tmp_path: Path) -> None:
    assert refused(tmp_path).endswith("holds no run: there is no config.json in it.")
    folder = copied(trainer, tmp_path / "run")
    assert refused(tmp_path).endswith(f"there is no config.json in it; runs nearby: {folder}.")
    assert refused(tmp_path / "rum").endswith(f"is no run folder and no shared file; runs nearby: {folder}.")
    assert "of step 81, but those of 80 and 100; snapshots, to look at, of 49, 51, 55, 61" in refused(folder, 81)
    assert "checkpoint = 'newest' is not a whole number" in refused(folder, "newest")  # type: ignore[arg-type]
    for path in (folder / "checkpoint").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-10])
    assert re.search(r"no checkpoint in .* can be used: the checkpoint .*000000100\.pt is damaged", refused(folder))
    for path in (folder / "checkpoint").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert "has format 2; this glamkit reads 1, update it." in refused(folder)
    for path in (folder / "checkpoint").iterdir():
        path.unlink()
    assert "holds no checkpoint yet" in refused(folder)
    assert "holds no checkpoint yet" in refused(folder, 80)


@pytest.mark.parametrize("change", [{"agent": None}, {"agent": [1]}], ids=str)
@pytest.mark.parametrize("wanted", [None, 100])
def test_a_foreign_checkpoint_gets_a_sentence(
    change: dict[str, Any], wanted: int | None, trainer: Trainer, tmp_path: Path
) -> None:
    """It may lack the agent (None here), or hold something else there."""
    folder = copied(trainer, tmp_path)
    state = checkpoint.gather(trainer) | change
    state = {name: value for name, value in state.items() if value is not None}
    checkpoint.write(folder / "checkpoint", 100, state)
    assert refused(folder, wanted).startswith(f"the checkpoint in {folder} does not fit its config.json (")


def test_opening_takes_no_more_memory_than_there_are_steps(tmp_path: Path) -> None:
    """The settings of a run may allow more steps than this machine has memory for."""
    run = finished(short(game="glamkit/Catch-v0"), tmp_path / "run").run
    settings = json.loads(run.config_file.read_text())
    settings["config"]["replay"]["capacity"] = 10**12
    run.config_file.write_text(json.dumps(settings))
    opened = open_run(run.folder)
    assert len(opened.replay) == 64 and opened.replay.frames.nbytes < 10**6


def test_a_relative_folder_is_the_same_for_training_and_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook of a checkout has its own folder as the current one."""
    (tmp_path / "glamkit" / "runs").mkdir(parents=True)
    (tmp_path / "glamkit" / "runs" / "folder.py").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    finished(short(game="glamkit/Catch-v0"), Path("runs/catch"))
    assert open_run("runs/catch").step == 64 and (tmp_path / "runs" / "catch").is_dir()
    monkeypatch.chdir(tmp_path / "runs")  # what is there is meant, and no shipped run
    assert open_run("catch").run.folder == tmp_path / "runs" / "catch"


def test_a_run_without_its_replay_gets_a_sentence(trainer: Trainer, tmp_path: Path) -> None:
    folder = copied(trainer, tmp_path)
    (folder / "replay" / "000000040-000000080.npz").unlink()
    assert "lacks the steps from 40 on." in refused(folder)
    for path in (folder / "replay").iterdir():
        path.unlink()
    assert "holds no replay" in refused(folder)
    (folder / "replay").rmdir()
    assert "holds no replay" in refused(folder)


def test_another_config_than_the_checkpoint_s_gets_a_sentence(trainer: Trainer, tmp_path: Path) -> None:
    folder = copied(trainer, tmp_path)
    stored = json.loads((folder / "config.json").read_text())
    stored["config"]["world_model"]["width"] = 24
    (folder / "config.json").write_text(json.dumps(stored))
    assert re.search(r"does not fit its config.json \(size mismatch for \S+: .*\)\.", refused(folder))
    stored["config"]["world_model"]["widht"] = 24
    (folder / "config.json").write_text(json.dumps(stored))
    assert refused(folder).startswith(f"{folder / 'config.json'}: unknown setting 'world_model.widht'; did you mean")
    stored["format"] = 2
    (folder / "config.json").write_text(json.dumps(stored))
    assert "is not a glamkit config, or that of a newer glamkit" in refused(folder)


def test_a_game_that_is_not_here_has_numbered_actions(trainer: Trainer, tmp_path: Path) -> None:
    folder = copied(trainer, tmp_path)
    stored = json.loads((folder / "config.json").read_text())
    stored["config"]["env"]["game"] = "somewhere:Else-v0"
    (folder / "config.json").write_text(json.dumps(stored))
    assert open_run(folder).actions == ("action 0", "action 1", "action 2")
