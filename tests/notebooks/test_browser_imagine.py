"""The dream studio in a real JupyterLab: what a person presses is what the Python `Dream` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from lab import RUN, Lab, open_notebook, wait_for_end
from tiny_runs import finished, short

from glamkit.analysis.starts import find_starts
from glamkit.analysis.studio import export
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream
from glamkit.training.load import open_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HORIZON = 6
PIXELS = """canvas => [canvas.width, canvas.height,
    ...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"""
CLOSE = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"


class Mirror:
    """The same dream in this process, and whether the page shows it."""

    def __init__(self, page: Any, run: Path) -> None:
        opened = open_run(run)
        dream = Dream(opened, find_starts(opened, "random", 6, 0, None, HORIZON)[0].step)
        for _ in range(3):
            dream.step()
        self.page, self.player = page, Player(opened, dream)
        self.seen: set[bytes] = set()

    def agrees(self) -> None:
        view = self.player.view()
        self.page.wait_for_function(
            "said => document.querySelector('.glamkit-lines')?.textContent === said", arg="\n".join(view.lines)
        )
        width, height, *values = self.page.locator(".glamkit-dream canvas").evaluate(PIXELS)
        shown = np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
        np.testing.assert_array_equal(shown, view.picture)
        # Not inner texts: those depend on whether JupyterLab has the cell laid out just then.
        shares = self.page.locator(".glamkit-policy > div > :last-child").all_text_contents()
        assert shares == [f"{round(100 * share)} %" for _, share, _ in view.bars]
        self.seen.add(shown.tobytes())

    def press(self, name: str) -> None:
        self.page.click(f"button.glamkit-{name}")


def test_a_person_stands_inside_a_dream(lab: Lab, page: Any, root: Path) -> None:
    run = finished(short("trainer.env_steps=96", game="glamkit/Catch-v0"), lab.folder / "imagine").run.folder
    book = lab.put(root / "notebooks" / "03_imagine.ipynb", "imagine.ipynb", horizon=HORIZON)
    open_notebook(page, lab, "imagine.ipynb")
    page.evaluate(RUN, "notebook:run-all-cells")
    wait_for_end(page)
    page.wait_for_selector(".glamkit-dream[data-n]")
    mirror = Mirror(page, run)
    mirror.agrees()

    for _ in range(10):
        mirror.press("action-2")
        mirror.player.act(2)
        mirror.agrees()
    page.click(".glamkit-dream canvas")
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
        mirror.player.act(0)
        mirror.agrees()
    page.keyboard.press("b")  # to JupyterLab itself this would mean: add a cell
    page.wait_for_selector(".glamkit-note:has-text('63 futures')")
    page.wait_for_function("() => document.querySelector('img.glamkit-futures')?.naturalWidth > 500")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    mirror.player.ask()
    mirror.agrees()
    assert len(mirror.seen) > 10  # the picture changed

    for _ in range(3):
        mirror.press("back")
        mirror.player.back()
        mirror.agrees()
    assert mirror.player.dream.now.depth == 20
    before = mirror.player.dream.branch(1, 1)
    page.click(".glamkit-lmamba input")
    mirror.player.switch(modules="gmamba")
    mirror.agrees()
    mirror.press("action-1")
    mirror.player.act(1)
    mirror.agrees()
    assert mirror.player.dream.now.reward != mirror.player.dream.nodes[before.numbers[0]].reward

    mirror.press("play")
    page.wait_for_function(
        "() => parseFloat(document.querySelector('.glamkit-lines').textContent.split('speed').pop()) > 5"
    )
    mirror.press("play")
    page.wait_for_selector(".glamkit-lines:has-text('paused')")
    mirror.press("clip-1")
    page.wait_for_selector(".glamkit-lines:has-text(': 0 into the dream')")

    page.evaluate(RUN, "docmanager:save")
    page.wait_for_function("() => window.outcome")
    outputs = [output for cell in nbformat.read(book, as_version=4).cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7  # these outlive the kernel
    page.evaluate(CLOSE)
    page.wait_for_selector(".glamkit-warning:has-text('No answer from the kernel')")


def test_an_exported_dream_plays_by_itself(page: Any, tmp_path: Path) -> None:
    opened = open_run(finished(short("trainer.env_steps=96", game="glamkit/Catch-v0"), tmp_path / "run").run.folder)
    dream = Dream(opened, 40)
    for action in (0, 1, 2):
        dream.step(action)
    dream.branch("RIGHT", 4)
    page.set_content(export.page(dream))
    assert "step 0 " in page.inner_text("#text")
    page.click("#step")
    assert f"reward {dream.nodes[1].reward:+.2f}" in page.inner_text("#text")
    assert page.get_attribute("#picture", "src") == export.data_uri(dream.picture(1))
    page.click("#play")
    page.wait_for_selector("#text:has-text('step 3 ')")
    page.wait_for_selector("#play:has-text('Play')")
    page.select_option("#ways", index=1)
    for _ in range(9):
        page.click("#step")
    assert "step 7 " in page.inner_text("#text") and "action" in page.inner_text("#text")
