"""Snapshots: the agent after a few steps of its training, saved without a trace in the training itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_runs import after_steps, finished, log, same, short

from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.variation import Lens
from glamkit.config import PRESETS, preset
from glamkit.errors import GlamkitError
from glamkit.training import checkpoint, evaluation
from glamkit.training.load import at_step, open_run
from glamkit.training.trainer import Trainer

KEPT = [49, 50, 52, 54, 57, 60]  # of steps 48 to 64; the first of seven falls on step 48, which has no update yet


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return finished(short(), tmp_path_factory.mktemp("snapshots") / "run")


def states(trainer: Trainer) -> dict[int, object]:
    folder = trainer.run.snapshots
    return {step: checkpoint.read(folder, step) for step in checkpoint.steps(folder)}


@pytest.mark.parametrize("name", PRESETS)
def test_snapshots_lie_closer_at_first(name: str) -> None:
    settings = preset(name).trainer
    steps = checkpoint.snapshot_steps(settings)
    assert settings.warmup < steps[0] and steps[-1] < settings.env_steps and len(steps) in (6, 7)
    gaps = [after - before for before, after in pairwise(steps)]
    assert gaps == sorted(gaps)


def test_a_run_leaves_what_its_agent_was(trained: Trainer, tmp_path: Path) -> None:
    result = states(trained)
    assert list(result) == KEPT == checkpoint.snapshot_steps(trained.config.trainer)
    agent = after_steps(short(), tmp_path, 54).agent
    own = agent.state_dict()
    assert same(result[54], {"step": 54, "agent": checkpoint.rounded(agent)})
    for name, value in result[54]["agent"].items():  # type: ignore[index]
        assert value.dtype == (torch.bfloat16 if own[name].dim() > 1 else own[name].dtype)
        assert torch.allclose(value.float(), own[name].float(), rtol=2**-8, atol=0)


def test_saving_them_changes_nothing(trained: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "snapshot_steps", lambda _: [])
    without = finished(short(), tmp_path / "run")
    assert not without.run.snapshots.exists()
    one, other = (checkpoint.gather(trainer) | {"log_size": 0} for trainer in (trained, without))
    assert same(one, other) and log(trained) == log(without)


def test_a_resumed_run_leaves_the_same(trained: Trainer, tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 58)  # never saved after step 50: steps and snapshots since then come again
    (tmp_path / "snapshots" / "000000057.pt").write_bytes(b"half")
    (tmp_path / "snapshots" / "000000057.pt.tmp").write_bytes(b"half")
    assert same(states(finished(short(), tmp_path)), states(trained))
    assert not list((tmp_path / "snapshots").glob("*.tmp"))


def test_a_run_is_looked_back_at(trained: Trainer) -> None:
    opened = open_run(trained.run.folder)
    early = open_run(trained.run.folder, 57)
    assert early.step == 57 and early.replay.count == 64 and opened.step == 64
    weights = at_step(opened, 57).agent.state_dict()
    assert same(early.agent.state_dict(), weights) and not same(weights, opened.agent.state_dict())
    assert Dream(early, 40).step().depth == 1 and len(Lens(early).read(30, 10).numbers) == 10
    exact = checkpoint.read(opened.run.checkpoints, 50)["agent"]  # not rounded, so it comes first
    assert same(dict(at_step(opened, 50).agent.state_dict()), dict(exact))


def test_what_a_snapshot_cannot_do_gets_a_sentence(trained: Trainer, tmp_path: Path) -> None:
    with pytest.raises(
        GlamkitError, match=r"of step 55, but those of 50 and 64; snapshots, to look at, of 49, 50, 52, 54"
    ):
        open_run(trained.run.folder, 55)
    with pytest.raises(GlamkitError, match=r"step 57 of .* is a snapshot, rounded; score a checkpoint"):
        evaluation.opened(trained.run.folder, 57)
    opened = open_run(finished(short(), tmp_path).run.folder)
    path = tmp_path / "snapshots" / "000000057.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GlamkitError, match="is damaged"):
        at_step(opened, 57)
    checkpoint.write(path.parent, 57, {"step": 57, "agent": "none"})
    with pytest.raises(GlamkitError, match=r"does not fit its config\.json"):
        at_step(opened, 57)
