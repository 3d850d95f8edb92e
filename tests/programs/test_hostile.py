"""Whatever is put into parameters and run folders: glamkit works or says one sentence, and writes nowhere else."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hostile import changed, contents, contract, damaged, many, plain, texts, values
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import finished, short

from glamkit.config import PRESETS, Config, ReplayConfig, keys, preset
from glamkit.errors import GlamkitError
from glamkit.runs import log, status
from glamkit.runs.folder import Run, resolve
from glamkit.training import checkpoint
from glamkit.training.replay import Replay
from glamkit.training.trainer import Trainer

CONFIG = short("trainer.env_steps=64 trainer.save_every=24", game="glamkit/Catch-v0")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "glamkit")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return finished(CONFIG, tmp_path_factory.mktemp("hostile") / "run").run.folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Makes an empty folder for each input; the one before it is removed."""
    base = tmp_path_factory.mktemp("place")

    def fresh() -> Path:
        shutil.rmtree(base)
        base.mkdir()
        return base

    yield fresh


# Parameters -----------------------------------------------------------------------------------------------------------

names = st.one_of(st.sampled_from(keys()), texts)
pairs = st.lists(st.tuples(names, plain).map(lambda pair: f"{pair[0]}={pair[1]}"), max_size=4).map(" ".join)


@many(60)
@given(
    st.one_of(st.sampled_from(list(PRESETS)), plain),
    st.one_of(pairs, values, st.dictionaries(names, values, max_size=3)),
    st.dictionaries(st.sampled_from(["game", "seed", "env_steps", "sede", ""]), plain, max_size=3),
)
def test_parameters(name: Any, overrides: Any, shorthand: dict[str, Any]) -> None:
    with contract():
        config = preset(name, overrides, **shorthand)
        assert Config.from_dict(json.loads(config.to_json())) == config


@many(60)
@given(st.one_of(changed(json.loads(Config().to_json())), values))
def test_config_tables(data: Any) -> None:
    with contract():
        assert isinstance(Config.from_dict(data), Config)


@many(40)
@given(texts)
def test_names_of_run_folders(place: Callable[[], Path], name: str) -> None:
    base = place()
    if ".." in name or name.startswith(("/", "~")):
        with contract():
            Run(resolve(name))
        return
    with contract():
        Run(f"{base}/inside/{name}").check(CONFIG, True)
    assert {path.name for path in base.iterdir()} <= {"inside"}


# Files ----------------------------------------------------------------------------------------------------------------


def small_files(folder: Path) -> list[tuple[Path, Callable[[], object]]]:
    """The files of JSON, each with what reads it."""
    return [
        (folder / "config.json", Run(folder).config),
        (folder / "metrics.jsonl", lambda: log.read(folder / "metrics.jsonl")),
        (folder / "status.json", lambda: status.read(folder / "status.json")),
    ]


@many(90)
@given(st.data(), st.integers(0, 2))
def test_small_files(place: Callable[[], Path], run: Path, data: st.DataObject, which: int) -> None:
    path, read = small_files(place())[which]
    original = (run / path.name).read_bytes()
    nested = [json.loads(line) for line in original.splitlines()] if which == 1 else json.loads(original)
    if data.draw(st.booleans()):
        text = data.draw(damaged(original))
    elif which == 1:
        text = "\n".join(json.dumps(line) for line in data.draw(changed(nested).filter(lambda v: isinstance(v, list))))
        text = text.encode()
    else:
        text = json.dumps(data.draw(changed(nested))).encode()
    path.write_bytes(text)
    with contract():
        read()


def sealed(folder: Path, data: bytes) -> None:
    """A checkpoint of anything, with the right checksum."""
    folder.mkdir(exist_ok=True)
    (folder / "000000048.pt").write_bytes(data)
    manifest = {"format": 1, "step": 48, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "000000048.json").write_text(json.dumps(manifest))


@many(40)
@given(st.data())
def test_checkpoints_with_the_right_checksum(place: Callable[[], Path], run: Path, data: st.DataObject) -> None:
    folder = place()
    sealed(folder, data.draw(damaged((run / "checkpoint" / "000000048.pt").read_bytes())))
    with contract():
        checkpoint.load(folder)


@many(20)
@given(st.data())
def test_manifests(place: Callable[[], Path], run: Path, data: st.DataObject) -> None:
    folder = place() / "checkpoint"
    shutil.copytree(run / "checkpoint", folder)
    path = data.draw(st.sampled_from(sorted(folder.glob("*.json"))))
    original = path.read_bytes()
    text = data.draw(st.one_of(damaged(original), changed(json.loads(original)).map(lambda v: json.dumps(v).encode())))
    path.write_bytes(text)
    with contract():
        assert checkpoint.load(folder) is not None


MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "size mismatch for world_model.prior.weight": lambda state: state["agent"].update(
        {"world_model.prior.weight": torch.zeros(3)}
    ),
    "different number of parameter groups": lambda state: state["world_model_optimizer"]["param_groups"].clear(),
    "'str' object has no attribute 'numpy'": lambda state: state.update(frame="black"),
    "'means'": lambda state: state.pop("means"),
}


@pytest.mark.parametrize("message", MISFITS)
def test_what_does_not_fit_is_named(place: Callable[[], Path], run: Path, message: str) -> None:
    folder = place() / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoint")
    state, buffer = checkpoint.read(run / "checkpoint", 48), io.BytesIO()
    MISFITS[message](state)
    torch.save(state, buffer)
    sealed(folder / "checkpoint", buffer.getvalue())
    with pytest.raises(GlamkitError, match="does not fit this experiment") as error:
        Trainer(CONFIG, folder)
    assert message in str(error.value)


@many(40)
@given(st.data())
def test_parts_of_the_replay(place: Callable[[], Path], run: Path, data: st.DataObject) -> None:
    folder = place()
    for path in (run / "replay").iterdir():
        shutil.copy(path, folder / path.name)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    kind = data.draw(st.sampled_from(["damaged", "renamed", "array"]))
    if kind == "damaged":
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    elif kind == "renamed":
        path.rename(folder / f"{data.draw(st.text('0123456789-x٣', min_size=1, max_size=20))}.npz")
    else:
        with np.load(path) as arrays:
            stored = dict(arrays)
        name = data.draw(st.sampled_from([*stored, "more"]))
        other = data.draw(
            st.sampled_from([np.zeros(3), np.array("x"), np.zeros((24, 8, 8, 3), np.uint8), np.zeros(24)])
        )
        np.savez(path, **{**stored, name: other})
    replay = Replay(ReplayConfig(capacity=512), 32, torch.device("cpu"))
    replay.count = 64
    with contract():
        checkpoint.load_replay(folder, replay)


@many(30)
@given(st.data())
def test_whole_run_folders(place: Callable[[], Path], run: Path, data: st.DataObject) -> None:
    """One thing in the folder is damaged, replaced, or leads to a file elsewhere; then the run is gone on with."""
    base = place()
    folder, outside = base / "run", base / "outside"
    shutil.copytree(run, folder)
    outside.mkdir()
    (outside / "file").write_text("mine")
    before = contents(outside)
    entries = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    new = ["STOP", "status.json.tmp", "checkpoint/000000060.pt.tmp", "checkpoint/a\nb.json", "replay/x.npz", "videos"]
    path = folder / data.draw(st.sampled_from([*entries, *new]))
    kind = data.draw(st.sampled_from(["damaged", "link", "dangling", "loop", "pipe", "folder", "gone"]))
    original = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "damaged":
        path.write_bytes(data.draw(damaged(original)))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        targets = {"link": outside / "file", "dangling": outside / "new", "loop": path}
        path.symlink_to(targets[kind])
    with contract():
        trainer = Trainer(CONFIG, folder)
        trainer.advance()
        trainer.save()
    assert contents(outside) == before
    assert {entry.name for entry in base.iterdir()} == {"run", "outside"}


@pytest.mark.skipif(not hostile.WANTED, reason="only the long version counts: GLAMKIT_HOSTILE")
def test_how_many_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """Last in the file: what the long version reports."""
    with capsys.disabled():
        print(f"\nhostile inputs: {hostile.tried}; none got past the contract")  # noqa: T201
    assert hostile.tried["inputs"] >= hostile.WANTED
