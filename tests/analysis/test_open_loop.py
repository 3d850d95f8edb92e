"""An open loop measures what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glamkit.analysis import open_loop, rollouts
from glamkit.analysis.open_loop import Curve, OpenLoop, far, measure_open_loop, movement_seen, moving
from glamkit.analysis.starts import Start, bounds, find_starts, is_last
from glamkit.analysis.studio import Dream, plots
from glamkit.analysis.studio.compare import WhatHappened
from glamkit.errors import GlamkitError
from glamkit.runs.folder import Run
from glamkit.training.load import LoadedRun

MISTAKES = {
    "by = 'rewrad' is no way to choose starts; did you mean 'reward'?": lambda o: find_starts(o, "rewrad"),
    "8 real steps before a dream and 200 to compare it with are more than the 120 that are stored; "
    "use a smaller horizon or context.": lambda o: measure_open_loop(o, 200),
    "horizon = 0 is outside its range: at least 1.": lambda o: measure_open_loop(o, 0),
    "horizon = 'long' is not a whole number.": lambda o: measure_open_loop(o, "long"),
    "context = 1 is outside its range: at least 2.": lambda o: bounds(o, 1),
    "count = 1 is outside its range: at least 2.": lambda o: measure_open_loop(o, 5, 1),
    "horizon = 112 leaves one start, and comparing takes two; use a smaller": lambda o: measure_open_loop(o, 112),
    "seed = -1 is outside 0 to": lambda o: measure_open_loop(o, 5, seed=-1),
    "seed = 'one' is not a whole number.": lambda o: find_starts(o, seed="one"),
    "count = 0 is outside its range: at least 1.": lambda o: find_starts(o, "reward", 0),
    "count = -1 is outside its range: at least 1.": lambda o: find_starts(o, count=-1),
    "seed = -2 is outside 0 to": lambda o: rollouts.dream(o, 20, 6, seed=-2),
    "seed = -3 is outside 0 to": lambda o: Dream(o, seed=-3),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_a_mistake_gets_a_sentence(run: LoadedRun, sentence: str) -> None:
    with pytest.raises(GlamkitError) as error:
        MISTAKES[sentence](run)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_clips_are_the_dreams_beside_the_truth(run: LoadedRun) -> None:
    loop = measure_open_loop(run, 6, 4, seed=3)
    for row, start in enumerate(loop.starts):
        dream = rollouts.dream(run, start.step - 8, 6)
        steps = run.replay.window(torch.tensor([start.step - 1]), 7)
        before = steps.frames[0, 0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(loop.real[row], dream.real)
        assert np.abs(loop.imagined[row].astype(int) - dream.imagined).max() <= 1  # a batch may round otherwise
        counted = loop.counted[row]
        ends = np.flatnonzero(steps.terminations[0, 1:])
        assert counted.sum() == (ends[0] + 1 if len(ends) else 6)
        error = (dream.predicted - dream.rewards) ** 2
        np.testing.assert_allclose(loop.rewards["imagined"].values[row][counted], error[counted], atol=1e-5)
        assert np.isnan(loop.rewards["imagined"].values[row][~counted]).all()
        shown = np.concatenate([before[None], dream.real])[None], loop.imagined[row][None]
        kept = np.insert(counted[None], 0, True, 1), counted[None]
        where = moving(shown[0], kept[0]) | moving(shown[1], kept[1])
        # Another moment is half of all clips away: neighbours may share their scene.
        wrong = far(loop.imagined[[(row + 2) % 4]], dream.real[None], where)[0]
        np.testing.assert_allclose(loop.pixels["wrong"].values[row][counted], wrong[counted], rtol=1e-5)
        still = far(before[None, None], dream.real[None], where)[0]
        np.testing.assert_allclose(loop.pixels["still"].values[row][counted], still[counted], rtol=1e-5)


def from_steps(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Clips begin at these steps instead of random ones."""
    monkeypatch.setattr(open_loop, "find_starts", lambda *_: [Start(step, "") for step in steps])


def test_looking_means_having_seen_every_frame_before(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from_steps(monkeypatch, 40, 60)
    loop = measure_open_loop(run, 5)
    from_steps(monkeypatch, 43, 63)
    at = measure_open_loop(run, 1)
    # Step 43 foretold from the window of the 8 steps before it, all of them seen: the fourth step of the first clip.
    seen, first = loop.latents["looking"].values[:, 3], at.latents["imagined"].values[:, 0]
    counted = ~np.isnan(seen)
    np.testing.assert_allclose(seen[counted], first[counted], rtol=1e-4)
    assert counted.any()
    np.testing.assert_allclose(loop.latents["looking"].values[:, 0], loop.latents["imagined"].values[:, 0], rtol=1e-4)


def made(dream: list[float], best: list[float], wrong: list[float], clips: int = 4) -> OpenLoop:
    """Clips with these pixel errors at each step."""

    def curve(values: list[float]) -> Curve:
        return Curve("", "", np.tile(np.array(values, float), (clips, 1)))

    pixels = {"imagined": curve(dream), "reconstructed": curve(best), "wrong": curve(wrong), "still": curve(wrong)}
    frames = np.zeros((clips, len(dream), 2, 2, 3), np.uint8)
    counted = np.ones((clips, len(dream)), bool)
    return OpenLoop([Start(i, "") for i in range(clips)], frames, frames, counted, 1.0, pixels, {}, {}, {})


def test_the_usable_horizon_is_the_last_step_that_knows_more_than_half() -> None:
    assert made([1, 2, 4, 9], [1, 1, 1, 1], [9, 9, 9, 9]).usable == 3
    assert made([1, 6, 2, 2], [1, 1, 1, 1], [9, 9, 9, 9]).usable == 1  # a later recovery does not count
    assert made([9, 9], [1, 1], [9, 9]).usable == 0 and made([1, 1], [1, 1], [1, 1]).usable == 0
    loop = made([1, 2, 4, 9], [1, 1, 1, 1], [9, 9, 9, 9])
    np.testing.assert_allclose(loop.share(), [1, 0.875, 0.625, 0])
    assert loop.usable_range == (3, 3)
    loop.pixels["imagined"].values[:2] = 1
    assert loop.usable == 4 - 1 + int(loop.share()[3] > 0.5) and loop.usable_range[1] == 4


def frames_of(*places: int, clips: int = 2) -> np.ndarray:
    """Clips of 8 x 8 frames, dark but for a bright pixel in the first column at these rows; -1 is none."""
    frames = np.full((clips, len(places), 8, 8, 3), 40, np.uint8)
    for step, place in enumerate(places):
        if place >= 0:
            frames[:, step, place, 0] = 200
    return frames


def test_only_what_moves_is_compared() -> None:
    """A dream without the thing that moves is as wrong as can be, though 63 of 64 pixels are right."""
    real, empty, every = frames_of(1, 2, 3, 4), frames_of(-1, -1, -1, -1), np.ones((2, 4), bool)
    empty[:, :, :, 5] += 15  # a glow that stays, and is faint
    where = moving(real, every)
    assert np.flatnonzero(where[0].any(1)).tolist() == [1, 2, 3, 4] and where.sum() == 8
    np.testing.assert_allclose(far(real, real, where), 0)
    np.testing.assert_allclose(far(empty, real, where), (160 / 2.55) / 4**0.5, rtol=1e-5)
    assert np.isnan(far(empty, empty, moving(empty, every))).all()
    stopped = np.array([[True, True, False, False]] * 2)
    assert np.flatnonzero(moving(real, stopped)[0].any(1)).tolist() == [1, 2]


def test_reconstructions_must_show_what_moves() -> None:
    real, every = frames_of(1, 2, 3, 4), np.ones((2, 4), bool)
    where = moving(real, every)
    assert movement_seen(real, real, where, every) == 1
    assert movement_seen(real, frames_of(-1, -1, -1, -1), where, every) < 0  # worse than the mean of the clip
    still = real.mean(1, keepdims=True).repeat(4, 1)
    assert movement_seen(real, still, where, every) == pytest.approx(0, abs=1e-6)
    assert np.isnan(movement_seen(real[:, :1], real[:, :1], where & False, every[:, :1]))


def test_without_the_moving_things_there_is_no_usable_horizon() -> None:
    loop = made([1, 2, 4, 9], [1, 1, 1, 1], [9, 9, 9, 9])
    assert (
        loop.finding == "Usable horizon: 3 of 4 steps (95 % interval 3 to 3). Reconstructions show 100% of the movement"
    )
    loop = made([1.0, 2, 4, 9], [1, 1, 1, 1], [9, 9, 9, 9])
    short = replace(loop, counted=np.array([[True, True, False, False]] * 4))
    for curve in short.pixels.values():
        curve.values[:, 2:] = np.nan
    assert short.finding.startswith("Usable horizon: at least 2 steps (95 % sure of 2), as no clip is longer before")
    loop = made([1, 2, 4, 9], [1, 1, 1, 1], [9, 9, 9, 9])
    lost = replace(loop, seen=0.2)
    still = replace(loop, seen=float("nan"))
    assert lost.usable == still.usable == 0
    assert lost.finding == still.finding == "Reconstructions show next to nothing that moves: no usable horizon"


def test_clips_that_overlap_are_drawn_together() -> None:
    """One clip in six is wrong at its second step; where neighbours err alike, that may as well be one in three."""
    dream, best, wrong = [1.0, 2, 1, 1, 1, 1], [1.0] * 6, [9.0] * 6
    apart, beside = made(dream, best, wrong, 48), made(dream, best, wrong, 48)
    apart = replace(apart, starts=[Start(9 * place, "") for place in range(48)])
    for loop, off in ((apart, np.arange(48) % 6 == 0), (beside, np.arange(48) < 8)):
        loop.pixels["imagined"].values[off, 1] = 11
    assert (apart.overlapping, beside.overlapping) == (1, 6)
    assert apart.usable == beside.usable == 6 and (apart.usable_range[0], beside.usable_range[0]) == (6, 1)


def test_the_interval_counts_no_step_at_which_no_clip_is_left() -> None:
    """Eleven clips end after two steps; what the twelfth does later is not known of draws without it."""
    loop = made([1.0] * 4, [1.0] * 4, [9.0] * 4, 12)
    for curve in loop.pixels.values():
        curve.values[1:, 2:] = np.nan
    loop.counted[1:, 2:] = False
    assert loop.usable == 4 and loop.usable_range[0] == 2 and "at least" not in loop.finding
    curves = loop.pixels | dict.fromkeys(("looking", "never"), loop.pixels["still"])
    picture = plots.errors(replace(loop, latents=curves, rewards=curves, terminations=curves))
    heading = " ".join(picture._suptitle.get_text().split())
    assert "Means over 12 clips until a real end, 1 of them left at step 4; 95 %" in heading
    loop.pixels["imagined"].values[0, 2:] = 9
    assert loop.usable == 2 and loop.usable_range == (2, 2)


def test_chosen_starts_need_real_steps_around_them(run: LoadedRun) -> None:
    for step in (3, 117):
        with pytest.raises(
            GlamkitError, match=rf"start = {step} is outside 8 to 115: .* 8 real steps before it, and 5 "
        ):
            plots.switches(run, step, 5)


def test_games_cut_by_a_time_limit_end_too(run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no terminations: the log alone tells of them."""
    free = ~is_last(run)
    step = next(step for step in range(20, 100) if free[step - 4 : step + 4].all())  # amid a game
    own = Run(tmp_path)
    own.log_file.write_text(json.dumps({"step": step + 1, "kind": "episode"}) + "\n")
    cut = run._replace(run=own)
    assert np.flatnonzero(is_last(cut) & free).tolist() == [step]
    assert step + 1 in [start.step for start in find_starts(run, "random", 1000)]
    assert step + 1 not in [start.step for start in find_starts(cut, "random", 1000)]
    from_steps(monkeypatch, step - 2, 110)
    loop, whole = (measure_open_loop(one, 5) for one in (cut, run))
    assert loop.counted[0].tolist() == [True, True, True, False, False] and whole.counted[0].all()
    assert WhatHappened(Dream(cut, step - 2)).end == 3


def test_steps_that_are_not_counted_count_nowhere() -> None:
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 4.0, np.nan]])
    curve = Curve("", "", values)
    np.testing.assert_allclose(curve.mean, [3, 3, np.nan])
    np.testing.assert_allclose(curve.reach[:2], [4.3027 * 2 / 3**0.5, 12.7062 * 2**0.5 / 2**0.5])
    assert np.isnan(curve.reach[2])


def test_the_worst_clips_are_named(run: LoadedRun) -> None:
    loop = measure_open_loop(run, 6, 12)
    beyond = np.nanmean(loop.pixels["imagined"].values - loop.pixels["reconstructed"].values, 1)
    long = loop.counted.sum(1) >= 3  # half the horizon: shorter ones show little
    order = [clip for some in (long, ~long) for clip in np.argsort(-beyond) if some[clip]]
    assert 0 < long.sum() < 12 and order[: long.sum()] != np.argsort(-beyond)[: long.sum()].tolist()
    assert loop.worst(3) == order[:3] and loop.worst(12) == order and len(loop.starts) == 12
    named = [(start.step, start.why) for start in loop.failures()]
    assert named == [
        (loop.starts[clip].step, f"dream went wrong: rank {rank} of {len(loop.starts)}")
        for rank, clip in enumerate(loop.worst(), 1)
    ]
    rows = [text.get_text() for text in plots.worst(loop).axes[0].get_yticklabels()]  # the same names in the figure
    assert rows[::2] == [f"rank {rank}\nfrom step\n{step:,}: real" for rank, (step, _) in enumerate(named, 1)]
    assert np.array_equal(measure_open_loop(run, 6, 12).imagined, loop.imagined)
