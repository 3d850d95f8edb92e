"""Videos of episodes: what is shown, and what is left of one that cannot be written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from square import square

from glamkit.envs import videos
from glamkit.envs.videos import Episode


def test_one_episode_has_one_video_and_long_ones_are_shown_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "LONGEST", 10)
    env = square(length=30)
    episode = Episode(60.0, 3, np.ones(30, np.int16), False)
    made = videos.record(env, 0, [episode], tmp_path / "film")
    assert {entry["file"] for entry in made.values()} == {"film-best.gif"} and len(made) == 3
    with Image.open(tmp_path / "film-best.gif") as picture:
        assert picture.n_frames == 9 and picture.info["duration"] == 100  # every fourth of 31, and the last


def test_a_full_disk_leaves_a_warning_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    env = square(length=4)
    # The rewards are the actions, which begin at 1.
    episodes = [Episode(4.0 * level, level, np.full(4, level - 1, np.int16), False) for level in (1, 2, 3)]
    (tmp_path / "film-best.gif").write_bytes(b"of an earlier evaluation")
    usual = Image.Image.save

    def full(picture: Image.Image, file: Any, *given: Any, **named: Any) -> None:
        if "-median" in file.name:
            usual(picture, file, *given, **named)
        else:
            file.write(b"GIF89a")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with caplog.at_level(logging.WARNING):
        made = videos.record(env, 0, episodes, tmp_path / "film")
    assert made == {"median": {"file": "film-median.gif", "episode": 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["film-median.gif"]
    assert caplog.text.count("There is no video of an episode") == 2
    assert caplog.text.count("cannot be written: No space left on device") == 2


def test_an_episode_that_cannot_be_shown_is_tried_once(tmp_path: Path, caplog: Any) -> None:
    episode = Episode(5.0, 1, np.zeros(4, np.int16), False)  # played again it has 4
    with caplog.at_level(logging.WARNING):
        assert videos.record(square(length=4), 0, [episode], tmp_path / "film") == {}
    assert caplog.text.count("its return was 5, and played again it had 4") == 1


def test_pictures_last_as_long_as_the_game_says() -> None:
    assert videos.delays(15, 1000 / 15) == 5 * [70, 60, 70] and videos.delays(3, 100.0) == [100] * 3
