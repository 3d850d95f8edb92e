"""Stopped anywhere and resumed, a run is the unbroken one to the last bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import after_steps, finished, log, same, short

from glamkit.errors import GlamkitError
from glamkit.runs import files
from glamkit.runs.log import read
from glamkit.training import checkpoint
from glamkit.training.trainer import Trainer


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return finished(short(), tmp_path_factory.mktemp("unbroken"))


def differing(one: Trainer, other: Trainer) -> list[str]:
    """What two runs do not have in common when they are done, down to the last bit."""
    states = [checkpoint.load(run.run.checkpoints) or {} for run in (one, other)]
    parts = [run.replay.part(run.replay.oldest, run.replay.count) for run in (one, other)]
    assert same(states[0]["agent"], one.agent.state_dict())
    # The log's size is left out, as the clock's numbers in it vary.
    names = [name for name in states[0] if name != "log_size" and not same(states[0][name], states[1][name])]
    return names + ([] if same(*parts) else ["stored steps"]) + ([] if log(one) == log(other) else ["log"])


def test_the_same_seed_is_the_same_run(unbroken: Trainer, tmp_path: Path) -> None:
    torch.rand(7)  # whatever was drawn before
    assert differing(finished(short(), tmp_path), unbroken) == []


def test_another_seed_is_another_run(unbroken: Trainer, tmp_path: Path) -> None:
    other = finished(short(seed=2), tmp_path)
    assert {"agent", "replay", "past", "random", "stored steps", "log"} <= set(differing(other, unbroken))


@pytest.mark.parametrize("stop", [0, 57])
def test_other_trainers_leave_a_run_its_random_numbers(stop: int, unbroken: Trainer, tmp_path: Path) -> None:
    """Those made before it goes on, at its start and resumed, and those that run between two of its loops."""
    if stop:
        after_steps(short(), tmp_path / "run", stop).save()
    trainer, other = Trainer(short(), tmp_path / "run"), Trainer(short(seed=2), tmp_path / "other")
    for event in trainer:
        if event.step == max(20, stop + 3):
            break
    assert torch.equal(trainer.replay.actions[:20], unbroken.replay.actions[:20])
    for _ in (*other, *trainer):
        pass
    assert differing(trainer, unbroken) == []


@pytest.mark.parametrize("stop", [1, 49, 57, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (25, 48, 63))])
def test_stopped_and_resumed_is_unbroken(stop: int, unbroken: Trainer, tmp_path: Path) -> None:
    after_steps(short(), tmp_path, stop).save()
    resumed = Trainer(short(), tmp_path)
    assert resumed.step == stop
    for _ in resumed:
        pass
    assert differing(resumed, unbroken) == []


def test_a_run_whose_checkpoints_are_gone_is_refused_and_keeps_the_rest(tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 57)
    put_away = {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    for path in put_away:
        path.unlink()
    (tmp_path / "checkpoint" / "notes.json").write_text("a person's, and no checkpoint")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(
        GlamkitError, match=r"checkpoint holds no checkpoint, though 50 steps of this run were saved; put"
    ):
        Trainer(short(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    for path, content in put_away.items():
        path.write_bytes(content)
    assert Trainer(short(), tmp_path).step == 50


def test_a_pause_is_no_part_of_the_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer waits between two turns of the loop, as in a notebook; the log's speed counts the turns alone."""
    clock = [0.0]
    monkeypatch.setattr("glamkit.training.trainer.time.perf_counter", lambda: clock[0])
    trainer = Trainer(short(), tmp_path)
    for stop in (15, 64):
        clock[0] += 3600.0
        for event in trainer:
            clock[0] += 0.5 * (event.kind == "step")
            trainer.session.stops.reason = "asked" if event.step >= stop else ""
    speeds = [line["time/steps_per_second"] for line in read(tmp_path / "metrics.jsonl") if line["kind"] == "log"]
    assert len(speeds) == 6 and all(1.9 < speed < 2.6 for speed in speeds)


def test_a_session_is_kept_as_far_as_the_run_went_back(tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 57).provenance.write(57)
    resumed = Trainer(short(), tmp_path)  # from the checkpoint of step 50
    assert [(one["first_step"], one["step"]) for one in resumed.provenance.sessions] == [(0, 50)]
    for content in ({"step": None}, {"step": 9}, {"first_step": "0", "step": 9}, "text"):
        resumed.run.provenance_file.write_text(json.dumps({"sessions": [content]}))
        assert Trainer(short(), tmp_path).provenance.sessions == []


@pytest.mark.parametrize("stop", [7, 33, 60])
def test_killed_and_resumed_is_unbroken(stop: int, unbroken: Trainer, tmp_path: Path) -> None:
    """Without the last save: what came after the newest checkpoint is done again, and logged once."""
    after_steps(short(), tmp_path, stop)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "kind": "lo')  # the line that was being written
    resumed = Trainer(short(), tmp_path)
    assert resumed.step == stop // 25 * 25
    for _ in resumed:
        pass
    assert differing(resumed, unbroken) == []


@pytest.mark.parametrize("done", range(4))
def test_killed_between_the_writes_of_the_first_save_is_unbroken(
    done: int, unbroken: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored steps, the state and its manifest: with fewer than all three, nothing counts as saved."""
    killed, replace, written = after_steps(short(), tmp_path, 24), files.replace, list[Path]()

    def at_most(path: Path, fill: Any) -> None:
        if len(written) == done:
            raise KeyboardInterrupt
        replace(path, fill)
        written.append(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "replace", at_most)
        patched.setattr(checkpoint, "replace", at_most)
        killed.advance()
    resumed = Trainer(short(), tmp_path)
    assert len(written) == done and resumed.step == (25 if done == 3 else 0)
    for _ in resumed:
        pass
    assert differing(resumed, unbroken) == []


SMALLER = "imagination.contexts=batch imagination.memory=recurrent agent.acting=posterior world_model.latents=likeliest"
CHOICES = (
    "world_model.modules=lmamba",
    pytest.param(SMALLER, id="those of smaller presets"),
    pytest.param("world_model.modules=gmamba", marks=pytest.mark.slow),
    pytest.param("runtime.precision=bfloat16", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("overrides", CHOICES)
def test_other_choices_resume_too(overrides: str, tmp_path: Path) -> None:
    """A module that is not trained, what the smaller presets choose, and another precision."""
    config = short(overrides)
    whole = finished(config, tmp_path / "whole")
    after_steps(config, tmp_path / "parts", 55).save()
    assert differing(finished(config, tmp_path / "parts"), whole) == []


def test_stopped_many_times_with_a_ring_that_wraps(tmp_path: Path) -> None:
    config = short("replay.capacity=64 trainer.warmup=60 trainer.env_steps=100 trainer.update_every=8")
    whole = finished(config, tmp_path / "whole")
    for stop in (30, 61, 83, 99):
        after_steps(config, tmp_path / "parts", stop).save()
    resumed = finished(config, tmp_path / "parts")
    assert resumed.replay.oldest == 36
    assert differing(resumed, whole) == []


def test_the_stop_button_saves_and_running_again_goes_on(unbroken: Trainer, tmp_path: Path) -> None:
    trainer, events = Trainer(short(), tmp_path), []
    handler = signal.getsignal(signal.SIGINT)
    for event in trainer:
        events.append(event)
        if event.step == 50 and event.kind == "log":
            os.kill(os.getpid(), signal.SIGINT)
    assert events[-1].kind == "stopped"
    assert events[-1].step == 50
    assert signal.getsignal(signal.SIGINT) is handler
    assert trainer.step == events[-1].step
    assert [event.kind for event in trainer][-1] == "done"  # the same cell, run again
    assert differing(trainer, unbroken) == []


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    trainer = Trainer(short(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for _ in trainer:  # the handler is Python's own again afterwards, for whoever runs next
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


def test_a_finished_run_is_done_at_once(unbroken: Trainer) -> None:
    assert [(event.kind, event.step) for event in Trainer(short(), unbroken.run.folder)] == [("done", 64)]


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(unbroken: Trainer, tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 60)
    newest = tmp_path / "checkpoint" / "000000050.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = Trainer(short(), tmp_path)
    assert resumed.step == 25
    for _ in resumed:
        pass
    assert differing(resumed, unbroken) == []


def test_another_experiment_s_folder_is_refused_untouched(unbroken: Trainer) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in unbroken.run.folder.rglob("*") if p.is_file()}

    before = contents()
    with pytest.raises(GlamkitError, match=r"another experiment: trainer\.seed is 1 there and 2 here; use another"):
        Trainer(short(seed=2), unbroken.run.folder)
    with pytest.raises(GlamkitError, match=r"already holds a run; use resume=True"):
        Trainer(short(), unbroken.run.folder, resume=False)
    assert contents() == before


def test_another_machine_may_go_on(tmp_path: Path) -> None:
    after_steps(short(), tmp_path, 25)
    assert Trainer(short("runtime.kernel=glamkit"), tmp_path).step == 25


def test_steps_saved_without_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    killed = after_steps(short("trainer.save_every=1000"), tmp_path, 30)
    checkpoint.save_replay(killed.run.replay, killed.replay, 0)  # and killed before the checkpoint itself
    fresh = Trainer(short("trainer.save_every=1000"), tmp_path)
    assert (fresh.step, fresh.replay.count) == (0, 0)
    for _ in range(20):
        fresh.advance()
    fresh.save()
    assert [path.stem for path in fresh.run.replay.iterdir()] == ["000000000-000000020"]
    assert Trainer(short("trainer.save_every=1000"), tmp_path).replay.count == 20


@pytest.mark.cuda
def test_on_a_gpu_with_deterministic_kernels_too(tmp_path: Path) -> None:
    config = short("runtime.device=cuda runtime.deterministic=true")
    whole = finished(config, tmp_path / "whole")
    after_steps(config, tmp_path / "parts", 55).save()
    assert differing(finished(config, tmp_path / "parts"), whole) == []
