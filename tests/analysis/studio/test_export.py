"""What is saved of a dream plays by itself, and pictures for readers without a kernel show what there is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figures import faults
from PIL import Image

from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.studio import compare, dream_tree, export, plots
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun


def walked(run: LoadedRun) -> Dream:
    dream = Dream(run, 40)
    for action in (0, 1, 2, 2):
        dream.step(action)
    dream.futures(draws=1, horizon=3)
    return dream


def durations(film: Image.Image) -> list[int]:
    """Milliseconds of each picture."""
    return [film.seek(number) or film.info["duration"] for number in range(film.n_frames)]  # type: ignore[attr-defined]


def test_exports_hold_the_way_taken(run: LoadedRun, tmp_path: Path) -> None:
    dream = walked(run)
    pictures = np.stack([*export.frames(dream)])
    assert pictures.shape == (5, 272, 256, 3)  # below the picture a line of words
    np.testing.assert_array_equal(
        pictures[:, :256:8, ::8], [dream.picture(node.number) for node in dream.path(dream.here)]
    )
    export.save(dream, tmp_path / "a" / "dream.gif")
    with Image.open(tmp_path / "a" / "dream.gif") as film:
        assert film.n_frames == 5 and film.info["loop"] == 0 and durations(film) == [70, 60, 70, 70, 60]
    (tmp_path / "file").write_text("")
    with pytest.raises(GlamkitError, match="cannot be written"):
        export.save(dream, tmp_path / "file" / "dream.gif")


def test_films_show_what_stands_beside_the_dream(run: LoadedRun) -> None:
    dream = walked(run)
    beside = compare.comparisons(dream, ["lmamba"])
    pictures = np.stack([*export.frames(dream, beside)])
    assert pictures.shape == (5, 272, 520, 3)
    np.testing.assert_array_equal(pictures[3, 4:256:8, 4:256:8], dream.picture(3))
    np.testing.assert_array_equal(pictures[3, 4:256:8, 268::8], beside[0].at(3).picture)
    end = compare.comparisons(Dream(run, run.replay.count), ["real"])
    (blank,) = (one[4:256:8, 268::8] for one in export.frames(end[0].dream, end))
    assert (blank == 255).all()  # no real step is stored there


def test_the_end_and_other_actions_stand_outside_the_pictures_of_a_film(
    run: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    dream = Dream(run, 40)
    dream.step((dream.recorded(0) + 1) % 3)  # another action than the real one
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # every step ends the game
    dream.step(0)
    beside = compare.comparisons(dream, ["real"])
    words, plain = list[str](), export.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        export.ImageDraw.ImageDraw,
        "text",
        lambda self, place, text, **how: words.append(text) or plain(self, place, text, **how),
    )
    pictures = np.stack([*export.frames(dream, beside)])
    note = "real game: other actions since step 1"
    assert [word.removeprefix("END; ") for word in words if "real" in word] == ["what really happened", note, note]
    over = [(dream.nodes[number].over, beside[0].at(number).over) for number in dream.line()]
    assert [word.startswith("END; ") for word in words] == [one for pair in over for one in pair]
    assert over[2][0] and words[4].startswith("END; the dream: step 2")
    np.testing.assert_array_equal(pictures[2, 4:256:8, 4:256:8], dream.picture(2))  # nothing covers the picture


def test_static_pictures_show_what_there_is(run: LoadedRun) -> None:
    loop, dream = measure_open_loop(run, 12, 12), walked(run)
    assert plots.spread(12)[0] == 0 and plots.spread(12)[-1] == 11 and len(plots.spread(12)) == 8
    drawn = plots.errors(loop)
    title = " ".join(drawn.get_suptitle().split())
    assert loop.finding in title and "no usable horizon" in loop.finding  # after so little training
    able = replace(loop, seen=1.0)
    title = " ".join(plots.errors(able).get_suptitle().split())
    assert re.search(rf"Usable horizon: (at least )?{able.usable} (of 12 )?steps", title)
    assert "95 % intervals, as if no clips overlapped" in title
    (line, *_) = drawn.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), loop.pixels["imagined"].mean)
    long = walked(run._replace(actions=("UP", "DOWNLEFTFIRE", "RIGHTFIRE")))  # names as long as Atari's
    for picture in (
        drawn,
        plots.dream_so_far(long),
        plots.futures(long, long.futures(draws=2, horizon=12)),
        plots.clip(loop),
        plots.worst(loop),
        plots.dream_so_far(dream),
        plots.dream_so_far(Dream(run, 40)),
        plots.futures(dream, dream.futures(draws=2, horizon=3)),
        plots.switches(run, 40, 5),
    ):
        assert faults(picture) == [] and len(picture.png(40)) > 3000
    assert str(run.run.folder) in repr(plots.about(run))


def test_the_drawn_action_is_among_the_bars(run: LoadedRun) -> None:
    names = tuple(f"a{number}" for number in range(18))
    dream = walked(run._replace(actions=names))
    policy = np.linspace(0.05, 0.06, 18)
    dream.nodes = [node._replace(policy=policy / policy.sum()) for node in dream.nodes]
    dream.choose = lambda _: 0  # type: ignore[method-assign]
    axes = plots.dream_so_far(dream).axes[-1]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["a0", *names[-7:]] and "8 of 18 actions" in " ".join(axes.get_title(loc="left").split())
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


def test_an_interval_of_few_futures_is_student_s(run: LoadedRun) -> None:
    dream = walked(run)
    answers = dream.futures(draws=2, horizon=2)
    answers = [answer._replace(gain=place / 2, value=place / 2) for place, answer in enumerate(answers)]
    dots = plots.futures(dream, answers).axes[0]
    (low, high), *_ = (bar.get_segments()[0][:, 0] for bar in dots.collections)
    # Two values that lie 1 apart: s = 0.7071, and t of one degree of freedom is 12.7062.
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.7071 / 2**0.5, rel=1e-3)


def test_futures_are_grey_after_their_end(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # every step ends the game
    dream = Dream(run, 40)
    answers = dream.futures(horizon=3)
    picture = plots.futures(dream, [answer._replace(gain=0.75 + 0.02 * answer.first, value=0.25) for answer in answers])
    dots, axes = picture.axes
    assert np.ptp(dots.get_xlim()) > 0.19, "nearly equal actions do not look ranked"
    assert {label.get_text() for label in dots.get_yticklabels()} == set(run.actions)
    said = " ".join(picture.get_suptitle().split())
    assert "3 futures of 3 steps from step 0 of the dream from step 40" in said and "A future is one way" in said
    assert "Each of 3 actions came first in 1 of them" in said
    best = axes.get_yticklabels()[0].get_text().split("\n")[0]
    numbers = next(future.numbers for future in answers if run.actions[future.first] == best)
    ended, later = (dream.picture(number) for number in numbers[:2])
    image, size = np.asarray(axes.images[0].get_array()), len(ended)
    scale = 128 // size
    begin = size * scale + round(0.06 * size * scale)  # of the second picture
    np.testing.assert_array_equal(image[: size * scale : scale, : size * scale : scale], ended)
    grey = image[: size * scale : scale, begin : begin + size * scale : scale]
    np.testing.assert_array_equal(grey, plots.faded(later[None], np.array([True]))[0])
