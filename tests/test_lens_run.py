"""The lens over a run: its events, the stretch that is chosen, what notebook 04 and its slider show of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import finished, short

from glamkit import lens_events, lens_measures, lens_plots, lens_screens, lens_training, memory_reach
from glamkit.errors import GlamkitError
from glamkit.lens import Lens
from glamkit.lens_events import Event
from glamkit.lens_training import Point
from glamkit.opened import Opened, open_run
from glamkit.scrubber import Moments, Scrubber, show


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """220 steps of Catch, whose episodes take twelve; the ring holds the last 128."""
    config = short(
        "trainer.update_every=16 replay.capacity=128 trainer.save_every=50", env_steps=220, game="glamkit/Catch-v0"
    )
    return finished(config, tmp_path_factory.mktemp("lens") / "run").run.folder


@pytest.fixture
def opened(run: Path) -> Opened:
    return open_run(run)


@pytest.fixture
def lens(opened: Opened) -> Lens:
    return Lens.over(opened)


def test_episodes_are_those_of_the_log(opened: Opened, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ends = [line["step"] - 1 for line in lines if line["kind"] == "episode" and line["step"] > 92]
    found = lens_events.episodes(opened)
    assert found[0][0] == opened.replay.oldest == 92 and found[-1][1] == 219
    assert [last for _, last in found][: len(ends)] == ends and len(ends) > 8
    assert all(first == before + 1 for (_, before), (first, _) in pairwise(found))


def test_without_a_log_terminations_end_episodes(opened: Opened) -> None:
    found = lens_events.episodes(opened)
    opened.run.log_file.rename(opened.run.folder / "moved")
    try:
        assert lens_events.episodes(opened) == found  # a game of Catch ends by termination alone
    finally:
        (opened.run.folder / "moved").rename(opened.run.log_file)


def test_events_are_where_the_replay_says(opened: Opened) -> None:
    steps = opened.replay.part(92, 220)
    found = lens_events.events(opened)
    rewards = {92 + int(place): float(steps["rewards"][place]) for place in np.flatnonzero(steps["rewards"])}
    assert {e.step: e.kind for e in found if "end" not in e.kind} == {
        step: "reward" if reward > 0 else "penalty" for step, reward in rewards.items()
    }
    assert {e.step for e in found if e.kind == "episode end"} == set(rewards)  # a ball ends with its reward
    assert not any(e.kind == "life lost" for e in found)


def test_what_is_aligned_stays_in_the_event_s_episode(opened: Opened, lens: Lens) -> None:
    found = lens_events.aligned(opened, lens, "penalty")
    assert found is not None
    assert found.lags.tolist() == list(range(-8, 5)) and found.expected.values.shape == (len(found.came.values), 13)
    assert np.isnan(found.expected.values[:, found.lags > 0]).all()  # the next game is another
    assert not np.isnan(found.expected.values[:, found.lags <= 0]).any()
    early, late = found.expected.values[:, :4].mean(1), found.expected.values[:, 7:9].mean(1)
    assert found.rise.values[:, 0] == pytest.approx(late - early, abs=1e-6)
    step = next(e.step for e in lens_events.events(opened) if e.kind == "penalty" and 92 + 6 + 8 <= e.step <= 214)
    alone = lens_measures.variation(lens, lens.read([step - 8], 9))[0]
    assert alone.size_came == pytest.approx(found.came.values[0, :9], rel=1e-3, abs=1e-6)
    assert lens_events.aligned(opened, lens, "life lost") is None


def test_the_stretch_that_is_chosen(opened: Opened, lens: Lens) -> None:
    spans = lens_events.episodes(opened)
    first, last = 92 + lens.before, 218
    marks = [e.step for e in lens_events.events(opened) if e.step + 4 <= last]
    begin, length = lens_events.choose(opened, lens)
    assert begin == first and begin + length - 1 == marks[-1] + 4
    assert lens_events.choose(opened, lens, length=20) == (marks[-1] + 4 - 19, 20)
    assert lens_events.choose(opened, lens, episode=3) == (spans[2][0], spans[2][1] - spans[2][0] + 1)
    assert lens_events.choose(opened, lens, episode=1)[0] == first
    assert lens_events.choose(opened, lens, episode=-2, length=5) == (spans[-2][0], 5)
    assert lens_events.choose(opened, lens, start=150, length="7") == (150, 7)  # type: ignore[arg-type]
    assert lens_events.choose(opened, lens, start=150)[0] == 150


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
def test_a_stretch_that_is_not_there_gets_a_sentence(opened: Opened, lens: Lens, mistake: dict, said: str) -> None:
    with pytest.raises(GlamkitError) as error:
        lens_events.choose(opened, lens, **mistake)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_points_of_a_run_are_its_keepsakes_and_checkpoints(opened: Opened) -> None:
    found = lens_training.points(opened, 110, 20)
    assert [point.step for point in found] == [51, 59, 72, 91, 115, 145, 180, 200, 220]
    assert all(0 <= point.agreement <= 1 and point.local.shape == (4,) for point in found)
    earlier = open_run(opened.run.folder, 200)
    assert found[-2].skill == lens_training.point(earlier, 110, 20).skill
    assert found[-1].skill == lens_training.point(opened, 110, 20).skill
    assert [point.step for point in lens_training.points(earlier, 110, 20)][-2:] == [180, 200]


def test_a_long_stretch_is_seen_from_its_end_and_damage_is_passed_over(opened: Opened) -> None:
    path = opened.run.keepsakes / "000000072.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    try:
        found = lens_training.points(opened, 110, 100)
    finally:
        path.write_bytes(whole)
    assert [point.step for point in found] == [51, 59, 91, 115, 145, 180, 200, 220]
    assert found[-1].skill == lens_training.point(opened, 146, 64).skill


def test_every_figure_can_be_drawn(opened: Opened, lens: Lens) -> None:
    begin, length = lens_events.choose(opened, lens, length=30)
    events, reading = lens_events.events(opened), lens.read([begin], length)
    seen, window = lens_measures.view(lens, reading), memory_reach.window(lens, reading)[0]
    found = [one for kind in lens_events.KINDS if (one := lens_events.aligned(opened, lens, kind))]
    reach = memory_reach.memory(lens, memory_reach.moments(lens, begin, length))
    dreamt = lens_measures.view(lens, lens.dream(opened.agent.actor_critic.act, opened.config.imagination, begin, 10))
    figures = [
        lens_plots.timeline(seen, events),
        lens_plots.reliability(seen),
        lens_plots.coming(found),
        lens_plots.coming([]),
        lens_plots.shares(seen, events),
        lens_plots.memory(window, reach, 8),
        lens_screens.where(seen, events),
        lens_screens.moment(seen, window, 3),
        lens_screens.dream(seen, dreamt, events),
        lens_training.training(opened, [Point(220, 0.5, 0.4, 0.1, 0.2, np.full(4, 0.5), 3.0)]),
    ]
    for figure in figures:
        assert len(figure.png(50)) > 4000
    # A stretch of one step, and one without any event.
    one = lens_measures.view(lens, lens.read([begin], 1))
    for figure in (lens_plots.timeline(one, []), lens_screens.where(one, [])):
        assert len(figure.png(50)) > 4000


def test_the_slider_shows_the_step_it_is_at(lens: Lens) -> None:
    reading = lens.read([110], 30)
    seen, window = lens_measures.view(lens, reading), memory_reach.window(lens, reading)[0]
    events = [Event(100, "reward"), Event(115, "reward"), Event(115, "episode end"), Event(130, "penalty")]
    moments = Moments(seen, window, events)
    assert (moments.first, moments.last, moments.striking()) == (110, 139, 130)
    shown = Scrubber(moments)
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
    quiet = Moments(seen, window, [])
    assert quiet.first <= quiet.striking() <= quiet.last and Scrubber(quiet).children[0].children[1].disabled
