"""GLAM learns to act in an Atari game, Assault, from imagination alone; in a file of its own, which runs beside others.

Other seeds and the runs in which learning is cut: `learning.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from learning import learn, skip_if_slow

LEARNED = 140  # in 100 steps; random play brings 83 (40 games, standard error 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five minutes of one quiet core
def test_an_atari_game_is_learned_from_its_pixels(tmp_path: Path) -> None:
    skip_if_slow("Assault")
    result = learn(tmp_path, "Assault", seed=2)  # 175 here; with the policy cut 91, with the reward cut 63
    assert result.evaluated > LEARNED, result.line
