"""Episodes of which the lens can see nothing, or not the beginning."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import finished, short

from glamkit.analysis.starts import episodes
from glamkit.analysis.variation import events
from glamkit.analysis.variation.lens import Lens
from glamkit.errors import GlamkitError
from glamkit.training.load import open_run


def test_an_episode_that_is_only_read_is_refused_and_the_nearest_is_named(tmp_path: Path) -> None:
    opened = open_run(finished(short(game="glamkit/Catch-v0", env_steps=120), tmp_path / "run").run.folder)
    lens = Lens.over(opened)
    first, spans = opened.replay.oldest + lens.before, episodes(opened)
    covered = next(number for number, (_, end) in enumerate(spans, 1) if end >= first)
    begin, end = max(spans[covered - 1][0], first), spans[covered - 1][1]
    assert events.choose(opened, lens, episode=covered) == (begin, end - begin + 1)
    lens.before = end + 1 - opened.replay.oldest  # now that episode is only read
    with pytest.raises(
        GlamkitError, match=rf"lies in steps that are only read: the first {lens.before} at hand"
    ) as error:
        events.choose(opened, lens, episode=covered)
    assert str(error.value).endswith(f"; use episode = {covered + 1}.")
