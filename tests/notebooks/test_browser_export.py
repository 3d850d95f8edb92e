"""A dream saved as a web page plays in a browser by itself, and shows the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import BROWSER, find_browser
from tiny_runs import finished, short

from glamkit.analysis.studio import compare, export
from glamkit.analysis.studio.studio import Dream
from glamkit.training.load import open_run

PIXELS = """image => {
    const canvas = document.createElement('canvas'), side = canvas.width = canvas.height = image.naturalWidth;
    canvas.getContext('2d').drawImage(image, 0, 0);
    return [side, side, ...canvas.getContext('2d').getImageData(0, 0, side, side).data];
}"""
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def page() -> Iterator[Any]:
    """A page in chromium that asks for nothing but the file."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_browser(), args=BROWSER)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        yield page
        browser.close()
    assert [url.split(":")[0] for url in asked] == ["file"]


def test_an_exported_dream_plays_by_itself(page: Any, tmp_path: Path) -> None:
    run = open_run(finished(short("trainer.env_steps=96", game="glamkit/Catch-v0"), tmp_path / "run").run.folder)
    dream = Dream(run, 40)
    for action in (0, 1, 2):
        dream.step(action)
    dream.futures(["RIGHT"], horizon=4)
    beside = compare.comparisons(dream, ["real", "lmamba"])
    page.goto(export.save(dream, tmp_path / "dream.html", beside).as_uri())  # a file, as a person opens it
    for step in (3, 0, 3):  # it plays at once, from its beginning, and begins again after its end
        page.wait_for_function(  # asks at every frame of the screen: a step is seen for a fifteenth of a second
            "text => document.querySelector('figcaption').textContent.startsWith(text)", arg=f"step {step},"
        )
    assert "after 96 steps of training, saw 8 real steps and imagined" in page.inner_text("p >> nth=0")
    assert page.locator("figure b").all_inner_texts() == ["the dream", "what really happened", "LMamba off"]
    page.click("#play")
    page.wait_for_selector("#play:has-text('Play')")
    for _ in range(3):
        page.click("#back")
    assert page.inner_text("figcaption >> nth=0").startswith("step 0,")
    page.click("#step")
    assert page.inner_text("#of") == "step 1 of 3"
    assert f"reward {dream.nodes[1].reward:+.2f}" in page.inner_text("figcaption >> nth=0")
    for image, picture in zip(
        page.locator("img").all(), [dream.picture(1), *(one.at(1).picture for one in beside)], strict=True
    ):
        width, height, *values = image.evaluate(PIXELS)
        np.testing.assert_array_equal(np.array(values, np.uint8).reshape(height, width, 4)[..., :3], picture)
    assert page.locator("figcaption").all_inner_texts()[1:] == [one.at(1).caption for one in beside]
    assert page.locator("figure strong").all_inner_texts() == ["", *(one.at(1).note for one in beside)]
    labels = page.locator("img").evaluate_all("all => all.map(one => one.alt)")
    assert labels == ["the dream", "what really happened", "LMamba off"]
    covers = "all => all.map(one => getComputedStyle(one, '::after').content)"
    over = [dream.nodes[1].over, *(one.at(1).over for one in beside)]
    assert page.locator("figure div").evaluate_all(covers) == ['"END"' if one else '""' for one in over]
    page.click("#play")
    page.wait_for_selector("figcaption:has-text('step 3,')")
    page.select_option("#ways", index=1)
    page.wait_for_selector("figcaption:has-text('step 7,')")  # a choice plays at once, too
    assert "action" in page.inner_text("figcaption >> nth=0")
