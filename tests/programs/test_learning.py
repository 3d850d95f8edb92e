"""GLAM learns to act from imagination alone: Catch from its pixels, from scratch.

The full run of Catch, other seeds and the runs in which learning is cut: `learning.py`.
Here the run ends early, to spare CI.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learning import learn, skip_if_slow

from glamkit.config import preset
from glamkit.training.trainer import Trainer

EARLY = "trainer.env_steps=7500"  # 1,000 of the preset's 3,500 updates in dreams
LEARNED = 0.0  # random play returns -0.75
TINY = "trainer.warmup=64 imagination.begin=66 trainer.env_steps=72 evaluation.episodes=1 evaluation.episode_steps=20"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five minutes on two quiet cores
def test_catch_is_learned_from_its_pixels(tmp_path: Path) -> None:
    skip_if_slow(overrides=EARLY)
    result = learn(tmp_path, overrides=EARLY)
    assert result.evaluated > LEARNED, result.line
    assert min(result.right[:5]) > 0.8, result.line


@pytest.mark.parametrize(("cut", "part"), [("policy", "actor_critic.actor"), ("reward", "world_model.reward")])
def test_what_is_cut_is_not_trained(cut: str, part: str, tmp_path: Path) -> None:
    fresh = Trainer(preset("learn", TINY, game="glamkit/Catch-v0", seed=1), tmp_path / "fresh").agent.state_dict()
    for choice in ("", cut):
        learn(tmp_path / f"run{choice}", cut=choice, overrides=TINY)
        saved = sorted((tmp_path / f"run{choice}" / "checkpoint").glob("*.pt"))[-1]
        agent = torch.load(saved, weights_only=True)["agent"]
        same = [torch.equal(value, fresh[name]) for name, value in agent.items() if name.startswith(part)]
        assert same and all(same) == bool(choice)
