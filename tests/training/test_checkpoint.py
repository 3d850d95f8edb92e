"""Checkpoints: whole or not at all, verified when read, and nothing in them is run."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glamkit.config import ReplayConfig
from glamkit.errors import GlamkitError
from glamkit.runtime import random_state, seed_everything, set_random_state
from glamkit.training import checkpoint
from glamkit.training.replay import Replay


def state(step: int) -> dict[str, Any]:
    """What a trainer keeps, in small."""
    return {"step": step, "weights": {"w": torch.full((3,), float(step))}, "text": "x", "random": random_state()}


def saved(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.save(folder, step, state(step))
    return folder / f"{steps[-1]:09d}.pt"


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    saved(tmp_path, 5)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 5
    assert torch.equal(loaded["weights"]["w"], torch.full((3,), 5.0))
    assert torch.equal(loaded["random"]["torch"], state(5)["random"]["torch"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 5, 50, 500, 5000)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000500.json",
        "000000500.pt",
        "000005000.json",
        "000005000.pt",
    ]
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 5000


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_manifest(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1, "sha')


def empty_manifest(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def newer(path: Path) -> None:
    manifest = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**manifest, "format": 2}))


DAMAGES = [truncate, flip, Path.unlink, spoil_manifest, empty_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_passed_over(damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(saved(tmp_path, 1, 2))
    with caplog.at_level(logging.WARNING, "glamkit"):
        loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert len(caplog.records) == 1
    assert "000000002." in caplog.text
    assert "The one before it is used." in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_when_all_are_damaged_a_sentence_says_so(damage: Any, tmp_path: Path) -> None:
    damage(saved(tmp_path, 1))
    with pytest.raises(GlamkitError, match=r"no checkpoint in .* can be used: .*000000001\.") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    """To go on from the one before would write over what the newer glamkit has done."""
    path = saved(tmp_path, 1, 2)
    newer(path)
    for read in (lambda: checkpoint.read(tmp_path, 2), lambda: checkpoint.load(tmp_path)):
        with pytest.raises(GlamkitError, match=r"000000002\.pt has format 2; this glamkit reads 1, update it\."):
            read()


def test_damaged_later_ones_do_not_push_out_good_ones(tmp_path: Path) -> None:
    """As when two checkpoints were damaged and the run goes on from the one before them."""
    saved(tmp_path, 100)
    for step in (200, 300):
        (tmp_path / f"{step:09d}.json").write_text("damaged")
    own = ["best.pt", "notes.json", "zzz.json"]  # a person's, which stay
    for name in own:
        (tmp_path / name).write_text("{}")
    (tmp_path / "000000400.pt").write_bytes(b"without its manifest")
    (tmp_path / "000000050.pt.tmp").write_bytes(b"half")
    saved(tmp_path, 150)
    assert sorted(path.name for path in tmp_path.glob("*")) == [
        "000000100.json",
        "000000100.pt",
        "000000150.json",
        "000000150.pt",
        *own,
    ]


def test_a_checkpoint_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    """As a process leaves it that was killed between the two."""
    saved(tmp_path, 1, 2).with_suffix(".json").unlink()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import os; os.environ['GLAMKIT_BOMB'] = 'went off'",))


def dump(value: Any, file: Any) -> None:
    pickle.dump(value, file, protocol=2)


@pytest.mark.parametrize("write", [torch.save, dump])
def test_code_in_a_checkpoint_is_not_run(write: Any, tmp_path: Path) -> None:
    """Even with the right checksum."""
    path = saved(tmp_path, 1)
    with path.open("wb") as file:
        write({"step": Bomb()}, file)
    manifest = {"format": 1, "step": 1, "sha256": sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(GlamkitError, match="holds something else than plain data"):
        checkpoint.read(tmp_path, 1)
    assert "GLAMKIT_BOMB" not in os.environ


@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_leaves_the_old_one(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the disk is full when the state is written or only when its manifest is."""
    saved(tmp_path, 1)
    sync, calls = os.fsync, []

    def fails_later(number: int) -> None:
        calls.append(number)
        disk_full() if len(calls) > written else sync(number)

    monkeypatch.setattr(os, "fsync", fails_later)
    with pytest.raises(GlamkitError, match=r"cannot be written: No space left on device; what was saved before is"):
        saved(tmp_path, 2)
    monkeypatch.undo()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert not list(tmp_path.glob("*.tmp"))
    saved(tmp_path, 2)
    assert (checkpoint.load(tmp_path) or {})["step"] == 2


def test_a_full_disk_leaves_the_one_of_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a run that was stopped is stopped again at once."""
    saved(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(GlamkitError, match="No space left on device"):
        saved(tmp_path, 1)
    assert (checkpoint.load(tmp_path) or {})["step"] == 1


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draws() -> tuple[float, ...]:
        return (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item())

    draws()  # leaves half of a pair of normal numbers behind
    checkpoint.save(tmp_path, 1, {"random": random_state()})
    expected = draws(), draws()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    seed_everything(5)
    set_random_state(loaded["random"])
    assert (draws(), draws()) == expected


# The replay's parts --------------------------------------------------------------------------------------------------

CAPACITY = 64


def make_replay() -> Replay:
    return Replay(ReplayConfig(capacity=CAPACITY, sequence_length=6), 8, torch.device("cpu"))


def grow(replay: Replay, count: int) -> None:
    while replay.count < count:
        replay.add(np.full((8, 8, 3), replay.count % 256, np.uint8), replay.count, replay.count, False)


def restored(folder: Path, count: int) -> Replay:
    replay = make_replay()
    replay.load_state_dict({"count": count, "generator": torch.Generator().get_state()})
    checkpoint.load_replay(folder, replay)
    return replay


def holds(replay: Replay, count: int) -> bool:
    expected = torch.arange(max(0, count - CAPACITY), count)
    part = replay.part(replay.oldest, replay.count)
    frames = part["frames"][:, 0, 0, 0].long()
    return replay.count == count and torch.equal(part["actions"], expected) and torch.equal(frames, expected % 256)


def save_at(folder: Path, *counts: int) -> Replay:
    replay, done = make_replay(), 0
    for count in counts:
        grow(replay, count)
        done = checkpoint.save_replay(folder, replay, done)
        assert done == count
    return replay


def test_each_save_writes_only_what_is_new(tmp_path: Path) -> None:
    save_at(tmp_path, 10, 10, 25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000000-000000010.npz", "000000010-000000025.npz"]
    assert holds(restored(tmp_path, 25), 25)


@pytest.mark.parametrize("every", [7, 30, 64, 65, 150])
def test_the_two_newest_checkpoints_keep_their_steps(every: int, tmp_path: Path) -> None:
    """The one before the newest must stay loadable, too: the newest may turn out to be damaged."""
    replay, done = make_replay(), 0
    for count in range(every, 400, every):
        grow(replay, count)
        done = checkpoint.save_replay(tmp_path, replay, done)
        for earlier in (count, count - every):
            if earlier:
                folder = tmp_path / f"copy-{count}-{earlier}"
                folder.mkdir()
                for part in tmp_path.glob("*.npz"):
                    (folder / part.name).write_bytes(part.read_bytes())
                assert holds(restored(folder, earlier), earlier)
    spans = [tuple(map(int, path.stem.split("-"))) for path in tmp_path.glob("*.npz")]
    assert min(last for _, last in spans) > done - 2 * every - CAPACITY  # and the oldest are removed


def test_parts_written_after_the_checkpoint_stay_until_the_next_save(tmp_path: Path) -> None:
    """Whoever goes on from the checkpoint before may yet turn back: only what is saved next takes their place."""
    save_at(tmp_path, 10, 20, 30)
    replay = restored(tmp_path, 20)
    assert holds(replay, 20) and holds(restored(tmp_path, 30), 30)
    grow(replay, 25)
    assert checkpoint.save_replay(tmp_path, replay, 20) == 25
    assert sorted(path.stem for path in tmp_path.iterdir())[1:] == ["000000010-000000020", "000000020-000000025"]
    assert holds(restored(tmp_path, 25), 25)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    save_at(tmp_path, 10, 20, 30)
    (tmp_path / "000000010-000000020.npz").unlink()
    with pytest.raises(GlamkitError, match=r"lacks the steps from 10 on\."):
        restored(tmp_path, 30)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_a_damaged_part_is_named(damage: Any, tmp_path: Path) -> None:
    save_at(tmp_path, 40)
    damage(tmp_path / "000000000-000000040.npz")
    with pytest.raises(GlamkitError, match=r"000000000-000000040\.npz is damaged"):
        restored(tmp_path, 40)


def test_a_part_of_another_length_is_refused_and_a_file_of_another_name_passed_over(tmp_path: Path) -> None:
    save_at(tmp_path, 40)
    (tmp_path / "000000000-000000040.npz").rename(tmp_path / "000000000-000000041.npz")
    with pytest.raises(GlamkitError, match="are not those of 41 steps"):
        restored(tmp_path, 41)
    (tmp_path / "000000000-000000041.npz").rename(tmp_path / "000000000-000000040.npz")
    for name in ("notes.npz", "._000000000-000000040.npz", "000000000-000000040 (copy).npz"):
        (tmp_path / name).write_bytes(b"of a Mac, or of a program that copies folders")
    replay = restored(tmp_path, 40)
    grow(replay, 45)
    assert checkpoint.save_replay(tmp_path, replay, 40) == 45 and holds(restored(tmp_path, 45), 45)


def test_a_full_disk_keeps_the_parts_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = save_at(tmp_path, 20)
    grow(replay, 30)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(GlamkitError, match="No space left on device"):
        checkpoint.save_replay(tmp_path, replay, 20)
    assert [p.name for p in tmp_path.iterdir()] == ["000000000-000000020.npz"]
    assert holds(restored(tmp_path, 20), 20)
