"""The training notebook in a real JupyterLab in a real browser: what a person sees, presses and saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab import RUN, Lab, open_notebook, wait_for_end

from glamkit.training import checkpoint

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FULL = "() => { const bar = document.querySelector('.glamkit-bar progress'); return bar && bar.value === bar.max; }"
DECODED = "() => [...document.querySelectorAll('.jp-OutputArea-output img')].every(i => i.naturalWidth)"


def progress(page: Any) -> tuple[float, float]:
    return tuple(page.locator(".glamkit-bar progress").evaluate("bar => [bar.value, bar.max]"))


def test_a_person_trains_and_sees(lab: Lab, page: Any, root: Path) -> None:
    book = lab.put(root / "notebooks" / "02_train.ipynb", "whole.ipynb", preset="debug")
    open_notebook(page, lab, "whole.ipynb")
    page.evaluate(RUN, "notebook:run-all-cells")
    wait_for_end(page)
    page.wait_for_function(FULL)
    assert progress(page) == (96, 96)
    assert page.locator(".glamkit-bar").inner_text().count("Done") == 1
    page.wait_for_function(DECODED)
    sizes = page.locator(".jp-OutputArea-output img").evaluate_all(
        "all => all.map(i => i.naturalWidth * i.naturalHeight)"
    )
    assert len(sizes) == 6 and min(sizes) > 10_000  # live curves, strip, score, losses (folded), diagnostics, dream
    page.evaluate(RUN, "docmanager:save")
    page.wait_for_function("() => window.outcome")
    outputs = [output for cell in nbformat.read(book, as_version=4).cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5  # pictures outlive the kernel
    assert not any("widget-view" in kind for output in outputs for kind in output.get("data", {}))


def test_the_stop_button_saves_and_the_cell_goes_on(lab: Lab, page: Any, root: Path) -> None:
    run = lab.folder / "stop"
    lab.put(root / "notebooks" / "02_train.ipynb", "stop.ipynb", preset="debug", env_steps=300)
    open_notebook(page, lab, "stop.ipynb")
    page.evaluate(RUN, "notebook:run-all-cells")
    page.wait_for_function("() => document.querySelector('.glamkit-bar progress')?.value > 60", polling=50)
    page.click("[data-jp-item-name='interrupt'] >> jp-button, [data-jp-item-name='interrupt'] button")
    page.wait_for_selector(".glamkit-bar:has-text('run this cell again to go on')")
    reached, total = progress(page)
    assert 60 < reached < total == 300
    page.wait_for_function("() => window.outcome")
    assert page.evaluate("window.outcome") == "failed"  # the cells below it were not run
    page.wait_for_selector(f".jp-OutputArea-output:has-text('stopped at step {reached:.0f} of 300 and saved')")
    assert not (run / "evaluation.json").exists()
    assert checkpoint.steps(run / "checkpoint")[-1] == reached
    page.click(".jp-CodeCell:has(.glamkit-bar) .jp-InputPrompt")
    page.evaluate(RUN, "notebook:run-cell")
    wait_for_end(page)
    page.wait_for_function(FULL)
    assert progress(page) == (300, 300)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps.count(256) == 1  # nothing lost, nothing twice
