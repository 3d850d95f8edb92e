"""Notebook 04 in a real JupyterLab: the slider's picture is the step it is at, and the saved notebook has pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from books import exported_pictures
from lab import RUN, Lab, open_notebook, wait_for_end
from tiny_runs import finished, short

from glamkit.analysis import fresh_play
from glamkit.analysis.variation import Lens, events
from glamkit.analysis.variation.frame_plots import moment, striking
from glamkit.training.load import open_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_dragging_the_slider_changes_the_picture(lab: Lab, page: Any, root: Path) -> None:
    config = short("trainer.update_every=8", env_steps=120, game="glamkit/Catch-v0")
    opened = fresh_play.play(open_run(finished(config, lab.folder / "variation").run.folder))
    book = lab.put(root / "notebooks" / "04_variation.ipynb", "variation.ipynb", length=40)
    open_notebook(page, lab, "variation.ipynb")
    page.evaluate(RUN, "notebook:run-all-cells")
    wait_for_end(page)

    lens = Lens(opened)
    begin, steps = events.choose(opened, lens, length=40)
    seen = events.look(opened, lens, begin, steps)
    readout = page.locator(".glamkit-steps .widget-readout")
    pictures: dict[int, str] = {}

    def shows(step: int) -> None:
        """The page comes to show exactly what the same step looks like here."""
        page.wait_for_function(
            "step => document.querySelector('.glamkit-steps .widget-readout').innerText === step", arg=str(step)
        )
        expected = base64.b64encode(moment(seen, step).small_png()).decode()
        for _ in range(600):
            shown = page.locator(".glamkit-moment img").get_attribute("src").removeprefix("data:image/png;base64,")
            if shown == expected:
                break
            page.wait_for_timeout(100)
        assert shown == expected
        pictures[step] = shown

    shows(striking(seen))
    page.locator(".glamkit-steps .noUi-handle").focus()
    page.keyboard.press("Home")
    shows(begin)
    page.keyboard.press("ArrowRight")
    shows(begin + 1)
    handle, track = (page.locator(f".glamkit-steps .{name}").bounding_box() for name in ("noUi-handle", "noUi-base"))
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    for share in (0.3, 0.5, 0.7):
        page.mouse.move(track["x"] + share * track["width"], track["y"] + 2, steps=4)
    page.mouse.up()
    dragged = int(readout.inner_text())
    assert begin + 20 < dragged < begin + 36
    shows(dragged)
    page.locator(".glamkit-steps .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    shows(dragged - 1)
    # The striking step, found by the model, may be one of the others.
    assert len(set(pictures.values())) == len(pictures) >= 4

    page.evaluate(RUN, "docmanager:save")
    page.wait_for_function("() => window.outcome")
    cells = nbformat.read(book, as_version=4).cells
    kept = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    # They outlive the kernel; that of the slider's first step is folded below it.
    assert sum("image/png" in data for data in kept) == 3
    assert sum("data:image/png" in data.get("text/html", "") for data in kept if "image/png" not in data) == 1
    assert len(exported_pictures(book)) == 4
