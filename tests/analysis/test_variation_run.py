"""The lens over a run: its events, the stretch that is chosen, what notebook 04 and its slider show of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from figures import contrast, faults
from matplotlib.colors import to_rgb
from tiny_runs import finished, short

from glamkit import notebook
from glamkit.analysis import fresh_play
from glamkit.analysis.fresh_play import FreshReplay, play
from glamkit.analysis.starts import episode_ends
from glamkit.analysis.variation import (
    Lens,
    effective_memory,
    events,
    frame_plots,
    metrics,
    plots,
)
from glamkit.analysis.variation.events import GameEvent
from glamkit.analysis.variation.frame_plots import slider, step_by_step, striking
from glamkit.analysis.variation.lens import QUANTITIES
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.plotting import Picture
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
    return Lens(opened)


def test_episode_ends_are_those_of_the_log(opened: LoadedRun, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ends = [line["step"] - 1 for line in lines if line["kind"] == "episode" and line["step"] > 92]
    assert episode_ends(opened) == ends and len(ends) > 8


def test_without_a_log_terminations_end_episodes(opened: LoadedRun) -> None:
    result = episode_ends(opened)
    opened.run.log_file.rename(opened.run.folder / "moved")
    try:
        assert episode_ends(opened) == result  # a game of Catch ends by termination alone
    finally:
        (opened.run.folder / "moved").rename(opened.run.log_file)


def test_events_are_where_the_replay_says(opened: LoadedRun) -> None:
    steps = opened.replay.part(92, 220)
    result = events.events(opened)
    rewards = {92 + int(place): float(steps["rewards"][place]) for place in np.flatnonzero(steps["rewards"])}
    assert {e.step: e.kind for e in result if "end" not in e.kind} == {
        step: "reward" if reward > 0 else "penalty" for step, reward in rewards.items()
    }
    assert {e.step for e in result if e.kind == "episode end"} == set(rewards)  # a ball ends with its reward
    assert not any(e.kind == "life lost" for e in result)


def test_the_stretch_that_is_chosen(opened: LoadedRun, lens: Lens) -> None:
    first, last = 92 + lens.before, 218
    marks = [e.step for e in events.events(opened) if e.step + 4 <= last]
    begin, length = events.choose(opened, lens)
    assert begin == first and begin + length - 1 == marks[-1] + 4
    assert events.choose(opened, lens, length=20) == (marks[-1] + 4 - 19, 20)
    assert events.choose(opened, lens, start=150, length="7") == (150, 7)  # type: ignore[arg-type]
    assert events.choose(opened, lens, start=150) == (150, last - 149)


MISTAKES = [
    ({"start": "last"}, "start = 'last' is not a whole number"),
    ({"start": 3}, "is not within the steps that can be looked at, 98 to 218: the 6 before are only read."),
    ({"start": 219}, "start = 219 with length = 1 is not within"),
    ({"length": 500}, "start = 98 with length = 500 is not within"),
    ({"start": 210, "length": 50}, "start = 210 with length = 50 is not within"),
    ({"length": 0}, "with length = 0 is not within"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_a_stretch_that_is_not_there_gets_a_sentence(
    opened: LoadedRun, lens: Lens, mistake: dict, message: str
) -> None:
    with pytest.raises(GlamkitError) as error:
        events.look(opened, lens, *events.choose(opened, lens, **mistake))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_figure_can_be_drawn(opened: LoadedRun, lens: Lens) -> None:
    begin, length = events.choose(opened, lens, length=30)
    seen = events.look(opened, lens, begin, length)
    reach = effective_memory.memory(lens, effective_memory.moments(lens, begin, length))
    figures = [
        frame_plots.where(seen),
        frame_plots.moment(seen, begin + 3),
        plots.predicted(seen),
        plots.branches(seen, reach, 4),
    ]
    # A stretch of one step, and one without any event.
    one = events.view(lens, lens.read(begin, 1))
    figures += [plots.predicted(one), frame_plots.where(one)]
    assert [faults(figure) for figure in figures] == [[]] * len(figures)
    assert min(len(figure.png(50)) for figure in figures) > 4000


def test_both_codes_of_the_step_view_have_one_scale(lens: Lens) -> None:
    """So that what is hardly expected looks so beside what came."""
    seen = events.view(lens, lens.read(120, 10))
    seen.variation.expected[3] = (
        1 / seen.variation.expected.shape[-1] + np.eye(*seen.variation.expected.shape[1:]) / 1e6
    )
    codes = [axes for axes in frame_plots.moment(seen, 123).axes if axes.get_xlabel() == "class"]
    assert len(codes) == 2 and len({axes.images[0].get_clim() for axes in codes}) == 1
    came, expected = (np.abs(np.asarray(axes.images[0].get_array())).max() for axes in codes)
    assert codes[0].images[0].get_clim()[1] == pytest.approx(came) and expected < came / 1000


def test_the_step_view_has_a_bar_or_a_word_for_every_quantity(lens: Lens) -> None:
    seen = events.view(lens, lens.read(110, 5))
    seen.effects[3, :, 2] = 0  # neither branch moves the reward
    axes = next(one for one in frame_plots.moment(seen, 113).axes if "GMamba blue" in one.get_title(loc="left"))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(QUANTITIES)
    lengths = {
        row: [bar.get_width() for bar in axes.patches if bar.get_y() < row < bar.get_y() + 0.85] for row in range(4)
    }
    local = metrics.local_share(seen.effects[3])
    assert [lengths[row] == pytest.approx([1 - local[row], local[row]]) for row in (0, 1, 3)] == [True] * 3
    assert lengths[2] == [] and "too small to divide" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("factor", "text"), [(0.9, "too small to divide"), (1.1, "")])
def test_a_share_of_almost_nothing_is_not_drawn_and_every_effect_has_its_size(
    lens: Lens, factor: float, text: str
) -> None:
    seen, reach = events.view(lens, lens.read(110, 5)), effective_memory.Reach(*(np.zeros((2, 6)),) * 2)
    seen.effects[:] = 1
    seen.effects[:, 0, 2], seen.effects[:, 1, 2] = 0, factor * metrics.SMALLEST[2]  # LMamba's: 100 %
    assert np.isnan(metrics.local_share(seen.effects)[0, 2]) == bool(text)
    axes = plots.branches(seen, reach, 4).axes[0]
    texts = [words.get_text() for words in axes.texts]
    assert [words for words in texts if "too small" in words] == ([text] if text else [])
    assert ("100%" in texts) is not bool(text)
    beside = [words.get_text() for words in axes.texts if words.get_position()[0] > 1]
    assert beside == ["2", "2 nats", "0.009" if text else "0.011", "2"]
    assert "the effect's size" in axes.get_xlabel()


def test_dots_of_single_steps_can_be_seen(lens: Lens) -> None:
    seen = events.view(lens, lens.read(110, 5))
    dots = frame_plots.where(seen).axes[1].lines[0]
    light = [255 * (1 - (dots.get_alpha() or 1) * (1 - part)) for part in to_rgb(dots.get_color())]
    assert contrast(light, [255] * 3) >= 3
    assert dots.get_markersize() >= 4


def test_how_far_back_each_branch_reaches_is_said(lens: Lens) -> None:
    effects = np.zeros((2, 6))
    effects[:, 3] = 1
    reach = effective_memory.Reach(effects, effects * 0)
    axes = plots.branches(events.view(lens, lens.read(110, 5)), reach, 4).axes[1]
    title = axes.get_title(loc="left").splitlines()
    assert title[1:] == ["GMamba: 90 % within 3 steps; LMamba: no effect", "Mean over 2 steps of play"]


def test_the_slider_shows_the_step_it_is_at(lens: Lens) -> None:
    marks = [
        GameEvent(115, "reward"),
        GameEvent(115, "episode end"),
        GameEvent(130, "penalty"),
    ]
    seen = events.view(lens, lens.read(110, 30), events=marks)
    shown = slider(seen)
    steps, picture_of_it = shown.children

    def right() -> bool:
        return picture_of_it.value == frame_plots.moment(seen, steps.value).html()

    assert (steps.min, steps.max, steps.value) == (110, 139, 130) and right()
    steps.value = 112
    assert right() and frame_plots.moment(seen, 130).html() != picture_of_it.value
    picture = step_by_step(seen)  # nobody watches the tests
    assert isinstance(picture, Picture) and picture.html() == frame_plots.moment(seen, 130).html()
    assert 110 <= slider(seen._replace(events=())).children[0].value <= 139


def test_an_export_of_the_slider_has_a_sentence_and_no_empty_strip(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = list[dict]()
    monkeypatch.setattr(notebook, "is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    folded = step_by_step(events.view(lens, lens.read(110, 5)))
    assert "needs a running kernel" in shown[0]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert "<details>" in folded._repr_html_()  # type: ignore[union-attr]


# Fresh play -----------------------------------------------------------------------------------------------------------


def test_fresh_play_is_new_and_can_be_made_again(opened: LoadedRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in opened.run.folder.rglob("*")}
    fresh, again, other = play(opened, 100), play(opened, 100), play(opened, 100, seed=1)
    assert {path: path.stat().st_mtime_ns for path in opened.run.folder.rglob("*")} == before
    assert isinstance(fresh.replay, FreshReplay) and (fresh.replay.oldest, fresh.replay.count) == (0, 100)
    assert fresh.agent is opened.agent and opened.replay.count == 220
    one, two, three = (run.replay.part(0, 100) for run in (fresh, again, other))
    assert all((one[name] == two[name]).all() for name in one) and not (one["frames"] == three["frames"]).all()
    assert fresh.replay.ends == np.flatnonzero(one["terminations"]).tolist()  # a game of Catch ends by termination
    assert episode_ends(fresh) == fresh.replay.ends and len(fresh.replay.ends) > 5
    stored = opened.replay.part(92, 220)["frames"]
    drops = {tuple(frame.flatten().tolist()) for frame in stored}
    assert any(tuple(frame.flatten().tolist()) not in drops for frame in one["frames"])


def test_steps_into_a_new_game_are_not_counted(opened: LoadedRun) -> None:
    fresh = play(opened, 100)
    lens, ends = Lens(fresh), fresh.replay.ends  # type: ignore[attr-defined]
    seen = events.look(fresh, lens, 20, 60)
    assert np.flatnonzero(~seen.counted).tolist() == [end - 20 for end in ends if 20 <= end < 80]
    assert np.isnan(seen.screen.skill[~seen.counted]).all()
    whole = events.view(lens, lens.read(20, 60))
    assert whole.counted.all() and whole.screen.overall() != seen.screen.overall()
    left = int((~seen.counted).sum())
    about = f"Measured on {60 - left} steps of fresh play, never trained on; {left} that lead into a new game are"
    assert seen.about.startswith(about)
    assert not set(frame_plots.busiest(seen.screen, 8)) & set(np.flatnonzero(~seen.counted))
    # Every event of Catch ends its game, so none of them is the step to begin with.
    assert seen.counted[striking(seen) - 20]
    assert "stored steps" in events.look(opened, Lens(opened), 110, 20).about


@pytest.mark.parametrize(("steps", "sentence"), [(3, "steps = 3 is outside its"), ("x", "not a whole number")])
def test_a_length_of_fresh_play_that_is_none_gets_a_sentence(opened: LoadedRun, steps: int, sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        play(opened, steps)
    with pytest.raises(GlamkitError, match="seed = -1 is outside 0 to"):
        play(opened, seed=-1)


def test_a_game_is_closed_if_playing_fails(opened: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    game, closed = make_env(opened.config.env), list[bool]()
    monkeypatch.setattr(game, "step", lambda _: (_ for _ in ()).throw(RuntimeError("broken")))
    monkeypatch.setattr(game, "close", lambda: closed.append(True))
    monkeypatch.setattr(fresh_play, "make_env", lambda _: game)
    with pytest.raises(RuntimeError, match="broken"):
        play(opened)
    assert closed == [True]
