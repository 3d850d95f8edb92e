"""Parity with the released code, and that a disagreement would be noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from glamkit import cli
from glamkit.bench import parity
from glamkit.bench.parity import Row, compare, fit
from glamkit.config import WorldModelConfig
from glamkit.models.released import export_released
from glamkit.models.world_model import WorldModel

DATA = ROOT / "tests" / "data"
WORLD_MODEL, AGENT = DATA / "official_world_model.npz", DATA / "official_agent.npz"
BY_DESIGN = {"eval/inference_forward.last2", "eval/inference_forward.last3"}  # README: contexts shorter than S


class Checked:
    """A reference file and our values for it, computed once."""

    def __init__(self, path: Path) -> None:
        self.meta, self.arrays = parity.read(path)
        compute = parity.agent_values if path == AGENT else parity.world_model_values
        self.values = compute(self.meta)
        self.rows = {name: self.row(name) for name in self.arrays}

    def row(self, name: str, change: float = 0.0, factor: float = 1.0) -> Row:
        return compare(name, self.arrays[name] * factor + change, self.values)


@pytest.fixture(scope="module")
def world_model() -> Checked:
    return Checked(WORLD_MODEL)


@pytest.fixture(scope="module")
def agent() -> Checked:
    return Checked(AGENT)


def test_the_world_model_is_the_released_one(world_model: Checked) -> None:
    rows = world_model.rows
    assert {name for name, row in rows.items() if row.verdict != "ok"} == BY_DESIGN
    for name, row in rows.items():
        if name in BY_DESIGN:
            assert row.absolute > 0.1  # the choice is a real one
        elif "forward." in name:
            assert row.absolute <= 1e-3, name
        elif "/loss." in name:
            assert row.relative <= 1e-5, name
        elif "/grad_norm/" in name:
            assert row.relative <= 1e-2, name
    names = " ".join(rows)
    for part in ("latent", "global", "last1", "last4", "last5", "last8", "last16", "loss.total", "loss.variation_kl"):
        assert part in names


def test_every_parameter_s_gradient_is_compared(world_model: Checked) -> None:
    trained = {name for name in world_model.meta["shapes"] if not name.endswith(("_var", "_mean", "_tracked"))}
    assert {name.removeprefix("train/grad_norm/") for name in world_model.rows if "grad_norm" in name} == trained


def test_the_actor_critic_is_the_released_one(agent: Checked) -> None:
    assert all(row.verdict == "ok" for row in agent.rows.values())
    assert sum("three_updates" in name for name in agent.rows) == 6
    for name, row in agent.rows.items():
        if "three_updates" in name:
            assert row.relative <= 1e-4, name


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("eval/embedding[::64]", "scaled 1e-04"),
        ("eval/train_forward.latent", "absolute 1e-03"),
        ("eval/inference_forward.last16", "absolute 1e-03"),
        ("eval/prior_logits[:,:,:4]", "scaled 1e-03"),
        ("eval/reward", "scaled 1e-03"),
        ("train/loss.total", "relative 1e-05"),
        ("train/grad_norm/encoder.backbone.0.weight", "relative 1e-02"),
        ("three_updates/S", "relative 1e-04"),
        ("after/actor.6.bias", "absolute 1e-06"),
        ("lambda_return", "scaled 1e-04"),
    ],
)
def test_tolerances_are_not_loosened_in_passing(
    name: str, tolerance: str, world_model: Checked, agent: Checked
) -> None:
    assert {**world_model.rows, **agent.rows}[name].tolerance == tolerance


def test_every_array_would_be_missed(world_model: Checked, agent: Checked) -> None:
    """Each array, moved by twice its tolerance, is beyond it."""
    for checked in (world_model, agent):
        for name, row in checked.rows.items():
            kind, allowed = row.tolerance.split()
            most = 2.2 * float(allowed)
            if kind == "relative":
                moved = checked.row(name, factor=1 + most)
                zero = not checked.arrays[name].any()  # a gradient that must not be: any at all is too much
                moved = checked.row(name, change=1e-9) if zero else moved
            else:
                most *= max(1.0, np.abs(checked.arrays[name]).max()) if kind == "scaled" else 1.0
                moved = checked.row(name, change=most)
            assert moved.verdict == ("differs by design" if name in BY_DESIGN else "BEYOND"), name
            assert checked.row(name, change=float("nan")).verdict != "ok"


def test_one_value_among_many_is_enough(world_model: Checked) -> None:
    name = "eval/train_forward.latent"
    array = world_model.arrays[name].copy()
    array[1, 7, 100] += 2e-3
    row = compare(name, array, world_model.values)
    assert row.fails
    assert row.absolute == pytest.approx(2e-3, rel=0.1)


def test_what_is_not_known_or_does_not_fit_fails(world_model: Checked) -> None:
    for name, array in {
        "eval/something": np.zeros(3),
        "eval/reward[:,:99:7]": np.zeros((2, 16)),
        "eval/reward": np.zeros((2, 15)),
        "eval/inference_forward.last99": np.zeros((2, 1, 256)),
        "eval/embedding[exit()]": np.zeros(3),
        "eval/embedding[0]": np.zeros((20, 4096)),
        "eval/termination_logit[:,:,:]": np.zeros((2, 16)),
        "eval/reward[2:]": np.zeros((0, 16)),
    }.items():
        assert compare(name, array, world_model.values).fails, name


def test_relative_differences_near_zero_are_to_the_largest_value() -> None:
    import torch

    row = compare("train/grad_norm/x", np.array([100.0, 0.0]), {"train/grad_norm/x": torch.tensor([100.0, 0.5])})
    assert row.absolute == 0.5
    assert row.relative == pytest.approx(0.5)  # of a hundredth of 100
    row = compare("train/grad_norm/x", np.array(0.0), {"train/grad_norm/x": torch.tensor(0.0)})
    assert (row.relative, row.verdict) == (0, "ok")


@pytest.mark.parametrize(
    ("part", "shape", "expected"),
    [
        (":,:,:4", (2, 6, 4), "whole[:, :, :4]"),
        ("::4", (2, 6, 3), "whole[..., ::4]"),  # one axis of three: the last, as the shape says
        ("::2", (1, 6, 12), "whole[::2]"),  # or the first
        (":,1:5:2,-3:", (2, 2, 3), "whole[:, 1:5:2, -3:]"),
        ("", (2, 6, 12), "whole"),
        ("", (50,), "whole.ravel()[:50]"),
        ("", (2, 6), None),
        ("", (145,), None),
        ("::4", (2, 6, 4), None),
        (":,:,:,:", (2, 6, 12), None),
        ("::0", (2, 6, 12), None),
        ("__import__('os')", (2, 6, 12), None),
    ],
)
def test_slices_are_read_without_running_them(part: str, shape: tuple[int, ...], expected: str | None) -> None:
    whole = np.arange(144.0).reshape(2, 6, 12)
    got = fit(whole, part, shape)
    if expected is None:
        assert got is None
    else:
        assert got is not None
        assert np.array_equal(got, eval(expected, {"whole": whole}))


# The command line ----------------------------------------------------------------------------------------------------


def rewrite(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of a reference file with arrays replaced (None: left out)."""
    with np.load(source) as file:
        arrays = {name: file[name] for name in file.files}
    arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    with target.open("wb") as file:
        np.savez(file, **arrays)
    return target


def as_meta(meta: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(meta).encode(), np.uint8)


def test_agreement_is_printed_array_by_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parity", str(AGENT)]) == 0
    printed = capsys.readouterr().out
    for name in parity.read(AGENT)[1]:
        assert any(line.startswith(name + " ") and line.endswith(" ok") for line in printed.splitlines()), name
    assert "15 arrays: 15 agree, 0 differ by design, 0 do not agree." in printed


def test_disagreement_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(AGENT) as file:
        returns = file["lambda_return"] + 1e-2
    wrong = rewrite(AGENT, tmp_path / "wrong.npz", lambda_return=returns)
    assert cli.main(["parity", str(AGENT), str(wrong)]) == 1
    printed = capsys.readouterr().out
    assert "15 arrays: 14 agree, 0 differ by design, 1 do not agree." in printed
    line = next(line for line in printed.splitlines()[18:] if line.startswith("lambda_return"))
    assert line.endswith("BEYOND")
    assert "1.00e-02" in line


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    with np.load(AGENT) as file:
        meta = json.loads(file["meta"].tobytes())
    text, empty, truncated = folder / "text.npz", folder / "empty.npz", folder / "truncated.npz"
    text.write_text("not an archive")
    empty.write_bytes(b"")
    truncated.write_bytes(AGENT.read_bytes()[:-200])
    flipped = bytearray(AGENT.read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (folder / "flipped.npz").write_bytes(flipped)
    pickled = folder / "pickled.npz"
    np.savez(pickled, meta=np.array([{"a": 1}], dtype=object))
    alone = folder / "array.npy"
    np.save(alone, np.zeros(3))
    shapes = meta["shapes"]
    return {
        "absent": folder / "absent.npz",
        "a folder": folder,
        "text": text,
        "empty": empty,
        "truncated": truncated,
        "flipped": folder / "flipped.npz",
        "pickled": pickled,
        "array": alone,
        "no meta": rewrite(AGENT, folder / "1.npz", meta=None),
        "meta no json": rewrite(AGENT, folder / "2.npz", meta=np.zeros(4, np.uint8)),
        "meta a list": rewrite(AGENT, folder / "3.npz", meta=as_meta([1])),
        "no seed": rewrite(AGENT, folder / "4.npz", meta=as_meta({**meta, "seed": None})),
        "no feat": rewrite(AGENT, folder / "5.npz", meta=as_meta({k: v for k, v in meta.items() if k != "feat"})),
        "no shapes": rewrite(AGENT, folder / "6.npz", meta=as_meta({**meta, "shapes": {}})),
        "odd shapes": rewrite(AGENT, folder / "7.npz", meta=as_meta({**meta, "shapes": {**shapes, "x": "y"}})),
        "surplus": rewrite(AGENT, folder / "8.npz", meta=as_meta({**meta, "shapes": {**shapes, "x": [2]}})),
        "other feat": rewrite(AGENT, folder / "9.npz", meta=as_meta({**meta, "feat": 17})),
        "other actions": rewrite(AGENT, folder / "10.npz", meta=as_meta({**meta, "actions": 60})),
        "huge": rewrite(AGENT, folder / "11.npz", meta=as_meta({**meta, "batch": 10**12})),
        "text arrays": rewrite(AGENT, folder / "12.npz", value=np.array(["a"])),
    }


BAD_FILES = [
    *["absent", "a folder", "text", "empty", "truncated", "flipped", "pickled", "array", "text arrays"],
    *["no meta", "meta no json", "meta a list", "no seed", "no feat", "no shapes", "odd shapes"],
    *["surplus", "other feat", "other actions", "huge"],
]


@pytest.mark.parametrize("kind", BAD_FILES)
def test_foreign_files_get_one_sentence_and_status_1(
    kind: str, bad_files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", str(bad_files[kind])]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.endswith(".\n")


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glamkit", "parity", str(AGENT), "absent.npz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "15 agree" in done.stdout
    assert done.stderr == "absent.npz is no reference file, or a damaged one: No such file or directory.\n"


def test_other_sizes_actions_and_seeds_are_inferred(tmp_path: Path) -> None:
    """A file of another shape, made by our own model: its weights, inputs and parts are found again."""
    config = WorldModelConfig(channels=(4, 6, 8), variables=3, classes=3, width=32, state=8, bins=41)
    exported, _ = export_released(WorldModel(config, 18))
    meta = {"seed": 12, "actions": 18, "batch": 3, "length": 9, "hidden": 32}
    meta["shapes"] = {name: list(value.shape) for name, value in exported.items()}
    values = {name: value.detach().numpy() for name, value in parity.world_model_values(meta).items()}
    assert values["eval/inference_forward.last7"].shape == (3, 1, 32)
    arrays = {
        "eval/embedding[::16]": values["eval/embedding"][..., ::16],
        "eval/train_forward.latent": values["eval/train_forward.latent"],
        "eval/inference_forward.last7": values["eval/inference_forward.last7"],
        "train/loss.total": values["train/loss.total"],
        "train/grad_norm/dist_head.prior_head.weight": values["train/grad_norm/dist_head.prior_head.weight"],
    }
    path = tmp_path / "other.npz"
    np.savez(path, meta=as_meta(meta), **arrays)
    assert [row.verdict for row in parity.check(path)] == ["ok"] * 5


def test_the_models_agree_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "accelerate", lambda *_: None)
    meta, arrays = parity.read(WORLD_MODEL)
    values = parity.world_model_values(meta)
    rows = [parity.compare(name, theirs, values) for name, theirs in arrays.items()]
    assert len(rows) > 50 and not [row for row in rows if row.fails]
