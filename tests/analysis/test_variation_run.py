"""The lens over a run: its events, the stretch that is chosen, what notebook 04 and its slider show of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import finished, short

from glamkit.analysis import effective_memory, frame_plots, over_training, variation_metrics, variation_plots
from glamkit.analysis import events as event_plots
from glamkit.analysis.events import GameEvent
from glamkit.analysis.over_training import SnapshotView
from glamkit.analysis.studio.step_slider import StepSlider, StepViews, show
from glamkit.analysis.variation import Lens
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """220 steps of Catch, whose episodes take twelve; the ring holds the last 128."""
    config = short(
        "trainer.update_every=16 replay.capacity=128 trainer.save_every=50", env_steps=220, game="glamkit/Catch-v0"
    )
    return finished(config, tmp_path_factory.mktemp("lens") / "run").run.folder


@pytest.fixture
def opened(run: Path) -> LoadedRun:
    return open_run(run)


@pytest.fixture
def lens(opened: LoadedRun) -> Lens:
    return Lens.over(opened)


def test_episodes_are_those_of_the_log(opened: LoadedRun, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ends = [line["step"] - 1 for line in lines if line["kind"] == "episode" and line["step"] > 92]
    found = event_plots.episodes(opened)
    assert found[0][0] == opened.replay.oldest == 92 and found[-1][1] == 219
    assert [last for _, last in found][: len(ends)] == ends and len(ends) > 8
    assert all(first == before + 1 for (_, before), (first, _) in pairwise(found))


def test_without_a_log_terminations_end_episodes(opened: LoadedRun) -> None:
    found = event_plots.episodes(opened)
    opened.run.log_file.rename(opened.run.folder / "moved")
    try:
        assert event_plots.episodes(opened) == found  # a game of Catch ends by termination alone
    finally:
        (opened.run.folder / "moved").rename(opened.run.log_file)


def test_events_are_where_the_replay_says(opened: LoadedRun) -> None:
    steps = opened.replay.part(92, 220)
    found = event_plots.events(opened)
    rewards = {92 + int(place): float(steps["rewards"][place]) for place in np.flatnonzero(steps["rewards"])}
    assert {e.step: e.kind for e in found if "end" not in e.kind} == {
        step: "reward" if reward > 0 else "penalty" for step, reward in rewards.items()
    }
    assert {e.step for e in found if e.kind == "episode end"} == set(rewards)  # a ball ends with its reward
    assert not any(e.kind == "life lost" for e in found)


def test_what_is_aligned_stays_in_the_event_s_episode(opened: LoadedRun, lens: Lens) -> None:
    found = event_plots.aligned(opened, lens, "penalty")
    assert found is not None
    assert found.lags.tolist() == list(range(-8, 5)) and found.expected.values.shape == (len(found.came.values), 13)
    assert np.isnan(found.expected.values[:, found.lags > 0]).all()  # the next game is another
    assert not np.isnan(found.expected.values[:, found.lags <= 0]).any()
    early, late = found.expected.values[:, :4].mean(1), found.expected.values[:, 7:9].mean(1)
    assert found.rise.values[:, 0] == pytest.approx(late - early, abs=1e-6)
    step = next(e.step for e in event_plots.events(opened) if e.kind == "penalty" and 92 + 6 + 8 <= e.step <= 214)
    alone = variation_metrics.variation(lens, lens.read([step - 8], 9))[0]
    assert alone.size_came == pytest.approx(found.came.values[0, :9], rel=1e-3, abs=1e-6)
    assert event_plots.aligned(opened, lens, "life lost") is None


def test_the_stretch_that_is_chosen(opened: LoadedRun, lens: Lens) -> None:
    spans = event_plots.episodes(opened)
    first, last = 92 + lens.before, 218
    marks = [e.step for e in event_plots.events(opened) if e.step + 4 <= last]
    begin, length = event_plots.choose(opened, lens)
    assert begin == first and begin + length - 1 == marks[-1] + 4
    assert event_plots.choose(opened, lens, length=20) == (marks[-1] + 4 - 19, 20)
    assert event_plots.choose(opened, lens, episode=3) == (spans[2][0], spans[2][1] - spans[2][0] + 1)
    assert event_plots.choose(opened, lens, episode=1)[0] == first
    assert event_plots.choose(opened, lens, episode=-2, length=5) == (spans[-2][0], 5)
    assert event_plots.choose(opened, lens, start=150, length="7") == (150, 7)  # type: ignore[arg-type]
    assert event_plots.choose(opened, lens, start=150)[0] == 150


MISTAKES = [
    ({"start": 150, "episode": 1}, "exclude each other"),
    ({"episode": 0}, "episode = 0 is none of the"),
    ({"episode": 99}, "episode = 99 is none of the"),
    ({"episode": "last"}, "episode = 'last' is not a whole number"),
    ({"start": 3}, "start = 3 is too close to the beginning: 6 steps before it are needed"),
    ({"start": 219}, "start = 219 with length = 1 goes beyond"),
    ({"length": 500}, "length = 500 is too long"),
    ({"start": 210, "length": 50}, "start = 210 with length = 50 goes beyond the stored steps"),
    ({"length": 0}, "length = 0 is outside its range"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES)
def test_a_stretch_that_is_not_there_gets_a_sentence(opened: LoadedRun, lens: Lens, mistake: dict, said: str) -> None:
    with pytest.raises(GlamkitError) as error:
        event_plots.choose(opened, lens, **mistake)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_points_of_a_run_are_its_snapshots_and_checkpoints(opened: LoadedRun) -> None:
    found = over_training.points(opened, 110, 20)
    assert [point.step for point in found] == [51, 59, 72, 91, 115, 145, 180, 200, 220]
    assert all(0 <= point.agreement <= 1 and point.local.shape == (4,) for point in found)
    earlier = open_run(opened.run.folder, 200)
    assert found[-2].skill == over_training.point(earlier, 110, 20).skill
    assert found[-1].skill == over_training.point(opened, 110, 20).skill
    assert [point.step for point in over_training.points(earlier, 110, 20)][-2:] == [180, 200]


def test_a_long_stretch_is_seen_from_its_end_and_damage_is_passed_over(opened: LoadedRun) -> None:
    path = opened.run.snapshots / "000000072.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    try:
        found = over_training.points(opened, 110, 100)
    finally:
        path.write_bytes(whole)
    assert [point.step for point in found] == [51, 59, 91, 115, 145, 180, 200, 220]
    assert found[-1].skill == over_training.point(opened, 146, 64).skill


def test_every_figure_can_be_drawn(opened: LoadedRun, lens: Lens) -> None:
    begin, length = event_plots.choose(opened, lens, length=30)
    events, reading = event_plots.events(opened), lens.read([begin], length)
    seen, window = variation_metrics.view(lens, reading), effective_memory.window(lens, reading)[0]
    found = [one for kind in event_plots.KINDS if (one := event_plots.aligned(opened, lens, kind))]
    reach = effective_memory.memory(lens, effective_memory.moments(lens, begin, length))
    dreamt = variation_metrics.view(
        lens, lens.dream(opened.agent.actor_critic.act, opened.config.imagination, begin, 10)
    )
    figures = [
        variation_plots.timeline(seen, events),
        variation_plots.reliability(seen),
        variation_plots.coming(found),
        variation_plots.coming([]),
        variation_plots.shares(seen, events),
        variation_plots.memory(window, reach, 8),
        frame_plots.where(seen, events),
        frame_plots.moment(seen, window, 3),
        frame_plots.dream(seen, dreamt, events),
        over_training.training(opened, [SnapshotView(220, 0.5, 0.4, 0.1, 0.2, np.full(4, 0.5), 3.0)]),
    ]
    for figure in figures:
        assert len(figure.png(50)) > 4000
    # A stretch of one step, and one without any event.
    one = variation_metrics.view(lens, lens.read([begin], 1))
    for figure in (variation_plots.timeline(one, []), frame_plots.where(one, [])):
        assert len(figure.png(50)) > 4000


def test_the_slider_shows_the_step_it_is_at(lens: Lens) -> None:
    reading = lens.read([110], 30)
    seen, window = variation_metrics.view(lens, reading), effective_memory.window(lens, reading)[0]
    events = [
        GameEvent(100, "reward"),
        GameEvent(115, "reward"),
        GameEvent(115, "episode end"),
        GameEvent(130, "penalty"),
    ]
    moments = StepViews(seen, window, events)
    assert (moments.first, moments.last, moments.striking()) == (110, 139, 130)
    shown = StepSlider(moments)
    saved = shown._repr_mimebundle_()  # an export without a kernel has a sentence and no empty strip
    assert "needs a running kernel" in saved["text/html"] and "application/vnd.jupyter.widget-view+json" in saved
    assert shown.slider.value == 130 and shown.image.value == moments.png(130)
    shown.slider.value = 112
    assert shown.image.value == moments.png(112) != moments.png(130)
    before, after = shown.children[0].children[1:]
    after.click()
    assert shown.slider.value == 115 and shown.image.value == moments.png(115)
    after.click()
    assert shown.slider.value == 130
    after.click()
    assert shown.slider.value == 130
    before.click()
    assert shown.slider.value == 115
    assert set(moments.drawn) == {112, 115, 130}
    assert show(moments) is None  # nobody watches the tests
    quiet = StepViews(seen, window, [])
    assert quiet.first <= quiet.striking() <= quiet.last and StepSlider(quiet).children[0].children[1].disabled
