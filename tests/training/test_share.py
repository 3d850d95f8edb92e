"""A shared run is one small file: it opens as its folder does, scores the same, and hostile ones are refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hub import Hub
from tiny_runs import finished

import glamkit
from glamkit.config import preset
from glamkit.errors import GlamkitError
from glamkit.report import Report
from glamkit.report.compare import Comparison
from glamkit.runs import Run, log
from glamkit.training import Trainer, checkpoint, evaluation, open_run, shared_runs
from glamkit.training.share import share

SETTINGS = "runtime.compile=off evaluation.episodes=3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "catch"
    trainer = finished(preset("debug", SETTINGS, game="glamkit/Catch-v0", seed=3), made)
    about = trainer.agent, trainer.config, trainer.machine, trainer.step
    evaluation.evaluate(*about, file=trainer.run.evaluation_file)
    return made


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return share(folder, tmp_path_factory.mktemp("shared") / "catch.glam", steps=40)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLAMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shared"


def test_it_opens_as_the_folder_does(folder: Path, file: Path) -> None:
    own, shared = open_run(folder), open_run(file)
    assert (shared.step, shared.config, shared.actions) == (own.step, own.config, own.actions)
    assert (shared.replay.oldest, len(shared.replay)) == (own.step - 40, 40)
    for name, value in checkpoint.rounded(own.agent).items():
        assert torch.equal(shared.agent.state_dict()[name], value.to(own.agent.state_dict()[name].dtype)), name
    first = torch.tensor([own.step - 40])
    for mine, theirs in zip(own.replay.window(first, 40), shared.replay.window(first, 40), strict=True):
        assert torch.equal(mine, theirs)
    episodes = [
        [entry for entry in log.read(Run(place).log_file) if entry["kind"] == "episode"]
        for place in (folder, shared.run.folder)
    ]
    assert episodes[0] == episodes[1] != []
    assert shared.run.evaluation_file.read_text() == json.dumps(json.loads(own.run.evaluation_file.read_text()))


def test_it_is_unpacked_once(file: Path, cache: Path) -> None:
    place = open_run(file).run.folder
    assert place.parent == cache and [path.name for path in cache.iterdir()] == [place.name]
    marked = place / "shared.json"
    before = marked.stat().st_mtime_ns
    assert open_run(file).run.folder == place and marked.stat().st_mtime_ns == before


def test_it_is_evaluated_but_not_trained_on(file: Path) -> None:
    run = open_run(file).run
    came = run.evaluation_file.read_bytes()
    report, path = evaluation.evaluate_run(evaluation.opened(file))
    assert len(report["episodes"]) == 3
    assert path == run.folder / "evaluations" / "000000096-3-episodes-episode_steps-40.json"
    assert run.evaluation_file.read_bytes() == came  # the score that came with the file
    assert all(entry["file"].startswith("evaluation-000000096") for entry in report["videos"].values())
    with pytest.raises(GlamkitError, match="is a shared run, which can be looked at but not trained on"):
        Trainer(run.config(), run.folder)


def test_it_says_how_it_was_made_but_not_on_whose_machine(folder: Path, file: Path) -> None:
    made = json.loads((open_run(file).run.folder / "shared.json").read_text())
    (session,) = made["provenance"]["sessions"]
    (own,) = json.loads((folder / "provenance.json").read_text())["sessions"]
    assert own["machine"].pop("host") and session == own
    assert "research only" in made["rights"]


def test_reports_and_comparisons_take_files_and_names(folder: Path, file: Path) -> None:
    made = Report([folder, file, "catch"])
    assert [result.game for result in made.results] == ["glamkit/Catch-v0"] * 2
    assert ["the same game, seed and settings" in left.reason for left in made.left_out] == [True]
    assert Report(f"{file}, catch").results[1].run.folder.name.startswith("catch-")
    with pytest.raises(GlamkitError, match="is not a folder"):
        Report(["cacth"])
    same = Comparison(folder, file)
    assert same.settings == {} and "so is every line of their logs" in same.verdict()
    assert set(same.facts) <= {"machine host"}, "its provenance came with it"
    other = Comparison(file, "catch")
    assert other.settings["trainer.env_steps"] == (96, 10_000)
    assert other.verdict().startswith("Settings that differ: ")


def test_a_folder_gets_a_file_of_the_run_s_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert share(folder, tmp_path, steps=40) == tmp_path / "catch.glam"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert share(folder, ".", steps=40) == Path("catch.glam") and Path("catch.glam").is_file()
    assert share(tmp_path / "catch.glam", steps=40) == Path("catch.glam")  # not by the name that it has in the cache
    for place, made in (("new/", "new/catch.glam"), ("out/x.glam", "out/x.glam")):
        assert share(folder, place, steps=40) == Path(made) and Path(made).is_file()
    Path("link.glam").symlink_to("out/x.glam")
    assert open_run("link.glam").run.name == "link"


def test_mistakes_get_a_sentence(folder: Path, tmp_path: Path) -> None:
    assert glamkit.share is share
    with pytest.raises(GlamkitError, match="steps = 3 is outside 20 to 174762, enough to look at"):
        share(folder, tmp_path / "few.glam", steps=3)
    with pytest.raises(GlamkitError, match="steps = 1000000 is outside 20 to 174762, enough to look at"):
        share(folder, tmp_path / "many.glam", steps=10**6)
    with pytest.raises(GlamkitError, match="is no run folder and no shared file"):
        open_run(tmp_path / "absent")
    with pytest.raises(GlamkitError, match="holds no run"):
        share(tmp_path, tmp_path / "none.glam")


def entries(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(file: Path, **new: bytes) -> bytes:
    """The file's bytes with some entries replaced; their names with __ for the dot."""
    buffer = io.BytesIO()
    parts = entries(file) | {name.replace("__", "."): data for name, data in new.items()}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def about(file: Path, **new: object) -> bytes:
    return json.dumps(json.loads(entries(file)["run.json"]) | new).encode()


def config(file: Path, **new: object) -> bytes:
    """run.json with other settings; their names with __ for the dot."""
    table = json.loads(entries(file)["run.json"])
    for key, value in new.items():
        section, _, name = key.partition("__")
        table["config"][section][name] = value
    return json.dumps(table).encode()


def header(file: Path, **new: object) -> bytes:
    """The file with another entry for one weight in the header of its safetensors."""
    data = entries(file)["agent.safetensors"]
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    table["world_model.stem.0.weight"] |= new
    text = json.dumps(table).encode()
    return changed(file, agent__safetensors=len(text).to_bytes(8, "little") + text + data[end:])


def weights(file: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    """The weights of the file, all of several axes changed."""
    own = safetensors.torch.load(entries(file)["agent.safetensors"])
    return safetensors.torch.save({name: change(value) if value.dim() > 1 else value for name, value in own.items()})


def lying(file: Path) -> bytes:
    """A file with an entry that unpacks to a megabyte, while its directory says 100 bytes."""
    data = changed(file, log__jsonl=b" " * 2**20)
    return data.replace((2**20).to_bytes(4, "little"), (100).to_bytes(4, "little"))


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "text": (lambda _: b"hello", "cannot be opened as a shared run"),
    "cut": (lambda file: file.read_bytes()[:-100], "cannot be opened as a shared run"),
    "path outside": (lambda file: changed(file, **{"../../evil__txt": b"x"}), "does not hold the entries"),
    "pickle": (lambda file: changed(file, agent__safetensors=b"\x80\x04cos\nsystem\n."), "as a shared run: .*eader"),
    "newer": (lambda file: changed(file, run__json=about(file, format=99)), "written by a newer glamkit"),
    "no config": (lambda file: changed(file, run__json=about(file, config=[])), "shared run: a config is a table"),
    "no step": (lambda file: changed(file, run__json=about(file, step=-1)), "stored steps are outside 1 to 174,762"),
    "huge steps": (lambda file: changed(file, run__json=about(file, step=10**8)), "stored steps are outside 1 to"),
    "list": (lambda file: changed(file, run__json=b"[]"), "cannot be opened as a shared run"),
    "deep": (lambda file: changed(file, evaluation__json=b"[" * 10**5), "cannot be opened as a shared run"),
    "log": (lambda file: changed(file, log__jsonl=b"\xff\xfe{\n{}\n"), "cannot be read|damaged"),
    "steps": (lambda file: changed(file, steps__npz=b"PK"), "is damaged"),
    "lying size": (lying, "cannot be opened as a shared run"),
    "huge weights": (lambda file: header(file, shape=[10**9, 10**9]), "cannot be opened as a shared run"),
    "weights of no type": (lambda file: header(file, dtype="X9"), "cannot be opened as a shared run"),
    "weights of half the size": (lambda file: header(file, dtype="U8"), "cannot be opened as a shared run"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_leaves_nothing(name: str, file: Path, tmp_path: Path, cache: Path) -> None:
    make, sentence = HOSTILE[name]
    hostile = tmp_path / "hostile.glam"
    hostile.write_bytes(make(file))
    with pytest.raises(GlamkitError, match=sentence):
        open_run(hostile)
    assert not cache.exists() or list(cache.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) in (["hostile.glam"], ["cache", "hostile.glam"])


def test_an_entry_that_would_fill_the_memory_is_not_unpacked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_runs, "LARGEST", 10**6)
    bomb = tmp_path / "bomb.glam"
    bomb.write_bytes(changed(file, steps__npz=b" " * (10**6 + 1)))
    assert bomb.stat().st_size < 10**5 + file.stat().st_size
    with pytest.raises(GlamkitError, match="or too large ones"):
        open_run(bomb)


def actions(file: Path, action: int) -> bytes:
    """The stored steps of the file with another action in each of them."""
    steps = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(entries(file)["steps.npz"])) as old, zipfile.ZipFile(steps, "w") as new:
        for name in old.namelist():
            values = np.load(io.BytesIO(old.read(name)))
            with new.open(name, "w") as entry:
                np.save(entry, np.full_like(values, action) if name == "actions.npy" else values)
    return steps.getvalue()


MISFITS: dict[str, Callable[[Path], bytes]] = {
    "another size": lambda f: changed(f, agent__safetensors=weights(f, lambda value: value[:1])),
    "a width for which no machine has memory": lambda f: changed(f, run__json=config(f, world_model__width=10**9)),
    "more latents than can be counted": lambda f: changed(f, run__json=config(f, world_model__variables=10**30)),
    "actions that the agent has not": lambda file: changed(file, steps__npz=actions(file, 9)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_together_are_refused(name: str, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.glam"
    other.write_bytes(MISFITS[name](file))
    with pytest.raises(GlamkitError, match=r"does not fit its config\.json|holds actions that the agent does not have"):
        open_run(other)


def test_the_config_of_a_file_asks_for_no_memory(file: Path, tmp_path: Path) -> None:
    """A ring for the stored steps alone, whatever the config says: 12 terabytes here."""
    other = tmp_path / "other.glam"
    other.write_bytes(changed(file, run__json=config(file, replay__capacity=10**9)))
    replay = open_run(other).replay
    assert len(replay) == 40 and replay.frames.shape[0] == 64


def test_a_module_named_by_a_file_is_used_only_if_it_is_there_already(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "evil_games.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    other = tmp_path / "other.glam"
    other.write_bytes(changed(file, run__json=config(file, env__game="evil_games:Foo-v0")))
    with pytest.raises(GlamkitError, match="import evil_games in Python before"):
        open_run(other)
    monkeypatch.setitem(sys.modules, "evil_games", type(sys)("evil_games"))
    assert open_run(other).actions[0] == "action 0" and "unknown game" in caplog.text
    monkeypatch.delitem(sys.modules, "evil_games")
    with pytest.raises(GlamkitError, match="import evil_games in Python before"):  # unpacked as it is by now
        open_run(other)


def test_a_folder_without_a_log_or_a_score_can_be_shared(folder: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    for name in ("metrics.jsonl", "evaluation.json", "provenance.json"):
        (bare / name).unlink()
    opened = open_run(share(bare, steps=40))
    assert opened.step == open_run(folder).step and not opened.run.evaluation_file.exists()


def test_a_run_goes_to_the_hub_and_comes_back(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the hub's library: pip install huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = (
        "import sys, glamkit\nfrom glamkit.training import share\n"
        f"share.upload({str(folder)!r}, 'ann/catch')\n"
        "run = glamkit.open_run('hub:ann/catch')\nprint(run.step, len(run.replay))\n"
        "try:\n    glamkit.open_run('hub:ann/none')\nexcept glamkit.GlamkitError as error:\n    print(error)\n"
    )
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "t"}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    own |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | own, capture_output=True, text=True, check=False
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    opened, refused = done.stdout.splitlines()
    assert opened.split() == ["96", "96"]
    assert refused.startswith("'ann/none' cannot be fetched from the hub: ")
    card = Hub.files["README.md"].decode()
    assert 'open_run("hub:ann/catch")' in card
    assert "preset `debug`,\nseed 3, 96 of 96 agent steps; step 96: mean return" in card
