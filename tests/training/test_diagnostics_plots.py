"""The figure of the signs of learning: what the log says, and words where it says nothing yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from figures import faults
from made_logs import made_up

from glamkit.config import preset
from glamkit.runs.folder import Run
from glamkit.training import diagnostics_plots
from glamkit.training.diagnostics import ratios

CONFIG = preset("debug", "trainer.env_steps=1000 trainer.warmup=100")


def test_the_panel_shows_the_log(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.begin(CONFIG, {})
    lines = made_up()
    for line in lines:
        line.update(ratios(line))
    run.log_file.write_text("\n".join(json.dumps(line) for line in lines))
    picture = diagnostics_plots.panel(run)
    curves = {line.get_label(): line.get_ydata()[-1] for axes in picture.axes for line in axes.lines}
    assert curves["precision"] == curves["recall"] == pytest.approx(0.8)
    prior = picture.axes[1]
    assert prior.lines[0].get_ydata()[-1] == 3.0
    assert (
        curves["not trained below this line (free bits)"]
        == CONFIG.world_model.free_nats
        == prior.lines[1].get_ydata()[-1]
    )
    assert curves["predicted"] == curves["came"] == 0.1
    assert picture.axes[0].lines[0].get_ydata()[-1] == pytest.approx(1 / 40)
    advantage, policy = picture.axes[5:7]
    assert advantage.lines[0].get_ydata()[-1] == 0.2
    (entropy,) = policy.lines
    assert entropy.get_ydata()[-1] == 0.6 and policy.get_ylim()[1] < 1.1  # nothing above 1
    assert faults(picture) == [] and len(picture.png()) > 10_000
    run.log_file.write_text("")
    empty = diagnostics_plots.panel(run)
    assert faults(empty) == [] and len(empty.png()) > 5_000
    assert [text.get_text() for axes in empty.axes for text in axes.texts] == ["not in the log yet"] * 7
