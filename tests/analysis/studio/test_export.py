"""What is saved of a dream plays by itself, and pictures for readers without a kernel show what there is."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import faults
from PIL import Image

from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.studio import compare, dream_tree, export, plots
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun


class Sources(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


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
    assert pictures.shape == (5, 288, 256, 3)  # below the picture a bar for END and a line of words
    np.testing.assert_array_equal(
        pictures[:, :256:8, ::8], [dream.picture(node.number) for node in dream.path(dream.here)]
    )
    with Image.open(export.save(dream, tmp_path / "a" / "dream.gif")) as film:
        assert film.n_frames == 5 and film.info["loop"] == 0 and durations(film) == [70, 60, 70, 70, 60]
    (tmp_path / "file").write_text("")
    for name in ("dream.gif", "dream.html"):
        with pytest.raises(GlamkitError, match="cannot be written"):
            export.save(dream, tmp_path / "file" / name)
    with Image.open(export.save(dream, tmp_path / "DREAM.GIF")) as film:
        assert film.n_frames == 5
    for name in ("dream.mp4", "dream"):
        with pytest.raises(GlamkitError, match=r"is no file for a dream; let its name end in \.gif or \.html\.$"):
            export.save(dream, tmp_path / name)


def test_the_html_needs_nothing_else_and_runs_nothing_foreign(run: LoadedRun, tmp_path: Path) -> None:
    evil = "</script><img src=http://x onerror=alert(1)>"
    names = run._replace(actions=(evil, "STAY", "RIGHT"))
    text = export.save(walked(names), tmp_path / "dream.html").read_text()
    parser = Sources()
    parser.feed(text)
    data = read(text)
    assert not parser.found
    assert text.count("<script") == text.count("</script>") == 2 and "<img src=http" not in text
    assert data["ways"][0][1] == [0, 1, 2, 3, 4] and len(data["ways"]) == 4
    assert evil in data["nodes"]["1"][0]["text"] and set(data["nodes"]) == {str(n) for w in data["ways"] for n in w[1]}


def read(text: str) -> Any:
    """What a saved page plays."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def decoded(uri: str) -> np.ndarray:
    """A picture (size, size, 3) of a saved page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_saved_page_holds_the_whole_branch_and_what_stands_beside_it(run: LoadedRun) -> None:
    dream = walked(run)
    dream.rewind(3), dream.step(2), dream.rewind(), dream.go(4), dream.rewind(3)
    assert dream.branches == [4, dream.nodes[-1].number] and dream.now.depth == 1
    beside = compare.comparisons(dream, ["real", "lmamba"])
    text = export.html(dream, beside)
    data = read(text)
    # From step 1 two branches go on; the first is that of the present node, and both are whole.
    assert [way for title, way in data["ways"] if "branch" in title] == [[0, 1, 2, 3, 4], [0, 1, dream.branches[1]]]
    assert [title.split(":")[0] for title, _ in data["ways"]] == ["branch 1", "branch 2"] + ["what if"] * 3
    dream.go(dream.branches[1])
    assert read(export.html(dream, beside))["ways"][0][1] == dream.line()  # the branch on screen comes first
    assert re.findall("<figure><b>(.*?)</b>", text) == ["the dream", "what really happened", "LMamba off"]
    assert len(set(data["pictures"])) == len(data["pictures"])  # each once
    for number in (0, 3, 4):
        shown = data["nodes"][str(number)]
        expected = [dream.picture(number), *(one.at(number).picture for one in beside)]
        for one, picture in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(decoded(data["pictures"][one["picture"]]), picture)
        for key, what in (("text", "caption"), ("note", "note"), ("over", "over")):
            assert [one[key] for one in shown[1:]] == [getattr(one.at(number), what) for one in beside]
    assert data["nodes"]["4"][1]["note"].startswith("real game: other actions since step ")


def test_films_show_what_stands_beside_the_dream(run: LoadedRun) -> None:
    dream = walked(run)
    beside = compare.comparisons(dream, ["lmamba"])
    pictures = np.stack([*export.frames(dream, beside)])
    assert pictures.shape == (5, 288, 520, 3)
    np.testing.assert_array_equal(pictures[3, 4:256:8, 4:256:8], dream.picture(3))
    np.testing.assert_array_equal(pictures[3, 4:256:8, 268::8], beside[0].at(3).picture)
    end = compare.comparisons(Dream(run, run.replay.count), ["real"])
    (blank,) = (one[4:256:8, 268::8] for one in export.frames(end[0].dream, end))
    assert (blank == 200).all()  # no real step is stored there


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
    assert [word for word in words if "real" in word] == ["what really happened", note, note]
    assert words.count("END") == 1 + dream.nodes[1].over + sum(beside[0].at(number).over for number in dream.line())
    np.testing.assert_array_equal(pictures[2, 4:256:8, 4:256:8], dream.picture(2))  # nothing covers the picture
    below = pictures[:, 256:272, :256]
    assert (below[0] == 255).all() and (below[2] == 0).mean() > 0.5 and below[2].max() > 200  # white on black
    over = read(export.html(dream, beside))["nodes"]["2"][0]
    assert over["over"] and "value" not in over["text"]  # of an ended game nothing is expected


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


def test_futures_of_a_saved_page_are_told_by_what_was_tried(run: LoadedRun) -> None:
    dream = walked(run)
    depth = dream.now.depth
    dream.futures(draws=1, horizon=2)
    asked = [name for name, way in export.lines(dream) if name.startswith("what if")]
    first = [dream.run.actions[node.action] for node in dream.nodes if node.parent == dream.here]
    assert len(first) == 3
    for action in first:
        assert any(f"from step {depth}: {action}" in name for name in asked), action


def test_the_drawn_action_is_among_the_bars(run: LoadedRun) -> None:
    names = tuple(f"a{number}" for number in range(18))
    dream = walked(run._replace(actions=names))
    policy = np.linspace(0.05, 0.06, 18)
    dream.nodes = [node._replace(policy=policy / policy.sum()) for node in dream.nodes]
    dream.choose = lambda _: 0  # type: ignore[method-assign]
    axes = plots.dream_so_far(dream).axes[-1]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["a0", *names[-7:]] and "8 of 18 actions" in axes.get_title(loc="left")
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


def test_an_interval_of_few_futures_is_student_s(run: LoadedRun) -> None:
    dream = walked(run)
    answers = dream.futures(draws=2, horizon=2)
    answers = [answer._replace(gain=place / 2, value=place / 2) for place, answer in enumerate(answers)]
    dots = plots.futures(dream, answers).axes[1]
    (low, high), *_ = (bar.get_segments()[0][:, 0] for bar in dots.collections)
    # Two values that lie 1 apart: s = 0.7071, and t of one degree of freedom is 12.7062.
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.7071 / 2**0.5, rel=1e-3)


def test_futures_are_grey_after_their_end(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # every step ends the game
    dream = Dream(run, 40)
    answers = dream.futures(horizon=3)
    same = [answer._replace(gain=0.75, value=0.25) for answer in answers]
    said = plots.futures(dream, same).words()
    assert said.startswith("What if? From step 0 on all 3 actions lead to the same return, +1.00 on average: it")
    picture = plots.futures(dream, [answer._replace(gain=0.75 + 0.02 * answer.first) for answer in same])
    curves, dots, axes = picture.axes
    assert np.ptp(dots.get_xlim()) > 0.19 and np.ptp(curves.get_ylim()) > 0.19, (
        "nearly equal actions do not look ranked"
    )
    assert {text.get_text() for text in curves.get_legend().get_texts()} == set(run.actions)
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
