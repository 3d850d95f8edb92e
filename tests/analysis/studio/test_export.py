"""What is saved of a dream plays by itself, and pictures for readers without a kernel show what there is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_runs import finished, short

from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.studio import compare, dream_tree, export, plots
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.training.load import LoadedRun, open_run

CATCH = {"game": "glamkit/Catch-v0"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    settings = "world_model.latents=probabilities trainer.env_steps=80"
    return open_run(finished(short(settings, **CATCH), tmp_path_factory.mktemp("export") / "catch").run.folder)


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


def test_exports_hold_the_way_taken(run: LoadedRun, tmp_path: Path) -> None:
    dream = walked(run)
    pictures = export.frames(dream)
    assert pictures.shape == (5, 256, 256, 3)
    np.testing.assert_array_equal(
        pictures[:, ::8, ::8], [dream.picture(node.number) for node in dream.path(dream.here)]
    )
    with Image.open(export.gif(dream, tmp_path / "a" / "dream.gif")) as film:
        assert film.n_frames == 5 and film.info["loop"] == 0 and film.info["duration"] in (60, 67, 70)
    film = cv2.VideoCapture(str(export.mp4(dream, tmp_path / "dream.mp4")))
    seen = [film.read() for _ in range(6)]
    assert [good for good, _ in seen] == [True] * 5 + [False]
    gap = np.abs(seen[2][1][:, :, ::-1].astype(int) - pictures[2])
    assert gap.mean() < 8  # compressed, but that picture
    (tmp_path / "file").write_text("")
    for write in (export.gif, export.mp4, export.html):
        with pytest.raises(GlamkitError, match="cannot be written"):
            write(dream, tmp_path / "file" / "dream.x")


def test_the_html_needs_nothing_else_and_runs_nothing_foreign(run: LoadedRun, tmp_path: Path) -> None:
    evil = "</script><img src=http://x onerror=alert(1)>"
    names = run._replace(actions=(evil, "STAY", "RIGHT"))
    text = export.html(walked(names), tmp_path / "dream.html").read_text()
    parser = Sources()
    parser.feed(text)
    data = read(text)
    assert not parser.found and all(one.startswith("data:image/png;base64,") for one in data["pictures"])
    assert text.count("<script") == text.count("</script>") == 2 and "<img src=http" not in text
    assert data["ways"][0][1] == [0, 1, 2, 3, 4] and len(data["ways"]) == 4
    assert evil in data["nodes"]["1"][0]["text"] and set(data["nodes"]) == {str(n) for w in data["ways"] for n in w[1]}


def read(text: str) -> Any:
    """What a saved page plays."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_a_saved_page_holds_the_whole_branch_and_what_stands_beside_it(run: LoadedRun) -> None:
    dream = walked(run)
    dream.rewind(3), dream.step(2), dream.rewind()
    assert dream.branches == [4, dream.nodes[-1].number] and dream.now.depth == 1
    beside = compare.comparisons(dream, ["real", "lmamba"])
    text = export.page(dream, (), beside)
    data = read(text)
    # From step 1 two branches go on; the first is that of the present node, and both are whole.
    assert [way for title, way in data["ways"] if "branch" in title] == [[0, 1, 2, 3, 4], [0, 1, dream.branches[1]]]
    assert [title.split(":")[0] for title, _ in data["ways"]] == ["branch A", "branch B"] + ["what if"] * 3
    other = dream.line(dream.branches[1])
    assert read(export.page(dream, other, beside))["ways"][0][1] == other  # the branch on screen comes first
    assert re.findall("<figure><b>(.*?)</b>", text) == ["the dream", "what really happened", "LMamba off"]
    assert len(set(data["pictures"])) == len(data["pictures"])
    for number in (0, 3, 4):
        shown = data["nodes"][str(number)]
        expected = [dream.picture(number), *(one.at(number).picture for one in beside)]
        assert [data["pictures"][one["picture"]] for one in shown] == [export.data_uri(one) for one in expected]
        assert [one["text"] for one in shown[1:]] == [one.at(number).caption for one in beside]


def test_films_show_what_stands_beside_the_dream(run: LoadedRun, tmp_path: Path) -> None:
    dream = walked(run)
    beside = compare.comparisons(dream, ["lmamba"])
    pictures = export.frames(dream, (), beside)
    assert pictures.shape == (5, 272, 520, 3)
    np.testing.assert_array_equal(pictures[3, 4:256:8, 4:256:8], dream.picture(3))
    np.testing.assert_array_equal(pictures[3, 4:256:8, 268::8], beside[0].at(3).picture)
    film = cv2.VideoCapture(str(export.mp4(dream, tmp_path / "dream.mp4", (), beside)))
    assert np.abs(film.read()[1][:, :, ::-1].astype(int) - pictures[0]).mean() < 8
    end = compare.comparisons(Dream(run, run.replay.count), ["real"])
    blank = export.frames(end[0].dream, (), end)[0, 4:256:8, 268::8]
    assert (blank == 200).all()  # no real step is stored there


def test_static_pictures_show_what_there_is(run: LoadedRun) -> None:
    loop, dream = measure_open_loop(run, 12, 6), walked(run)
    assert plots.spread(12)[0] == 0 and plots.spread(12)[-1] == 11 and len(plots.spread(12)) == 10
    drawn = plots.errors(loop)
    assert loop.finding in drawn.get_suptitle() and "no usable horizon" in loop.finding  # after 80 steps of training
    able = replace(loop, seen=1.0)
    assert f"Usable horizon: {able.usable} of 12 steps" in plots.errors(able).get_suptitle()
    (line, *_) = drawn.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), loop.pixels["imagined"].mean)
    for picture in (
        plots.clip(loop, 2),
        plots.worst(loop),
        plots.dream_so_far(dream),
        plots.dream_so_far(Dream(run, 40)),
        plots.futures(dream, dream.futures(draws=2, horizon=3)),
        plots.switches(run, 40, 5),
    ):
        assert len(picture.png(40)) > 3000
    assert "which is only read" in repr(plots.about(run))


def test_futures_are_grey_after_their_end(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # every step ends the game
    dream = Dream(run, 40)
    answers = dream.futures(horizon=3)
    _, dots, axes = plots.futures(dream, [answer._replace(gain=1.0, value=0.0) for answer in answers]).axes
    assert np.ptp(dots.get_xlim()) > 0.19, "equal actions do not look ranked"
    best = axes.get_yticklabels()[0].get_text().split("\n")[0]
    numbers = next(future.numbers for future in answers if run.actions[future.first] == best)
    ended, later = (dream.picture(number) for number in numbers[:2])
    image, size = np.asarray(axes.images[0].get_array()), len(ended)
    scale = 128 // size
    begin = size * scale + round(0.06 * size * scale)  # of the second picture
    np.testing.assert_array_equal(image[: size * scale : scale, : size * scale : scale], ended)
    grey = image[: size * scale : scale, begin : begin + size * scale : scale]
    np.testing.assert_array_equal(grey, plots.faded(later[None], np.array([True]))[0])
