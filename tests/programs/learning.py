"""The learning test: a built-in game or Assault from its pixels, and the same with learning cut.

    python tests/programs/learning.py --game glamkit/Catch-v0 --seeds 1-5
    python tests/programs/learning.py --game Assault --cut policy

Built-in games take the preset `learn`, Assault takes `ASSAULT`.
`--cut policy` lets no gradient into the policy, `--cut reward` leaves the reward head untrained: neither may learn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import truth

from glamkit.bench import timing
from glamkit.config import Config, parse_overrides, preset, read_seeds
from glamkit.errors import GlamkitError
from glamkit.training import evaluation
from glamkit.training.trainer import Trainer

CUTS = ("", "policy", "reward")
MOST = 10.0  # minutes of a learning test
# A habit pays there at once: UP fires. With three times the usual frame skip a shot hits within a step or two.
ASSAULT = {
    "env.frame_skip": 12,
    "replay.sequence_length": 24,
    "trainer.env_steps": 4000,
    "trainer.warmup": 1000,
    "trainer.update_every": 2,
    "trainer.log_every": 60,
    "world_model.channels": (16, 32, 64, 64),
    "world_model.foreground_scale": 0.0,
    "world_model.reward_scale": 4.0,
    "world_model_optimizer.final_rate": 0.2,
    "imagination.begin": 1500,
    "imagination.horizon_growth_limit": 0,
    "actor_critic.bootstrap": "next",
    "actor_critic.entropy": 0.03,
    "actor_critic.final_entropy": 0.1,
    "actor_critic_optimizer.learning_rate": 1e-3,
    "agent.acting": "posterior",
    "evaluation.episodes": 20,
    "evaluation.episode_steps": 100,  # whole games hardly tell firing from random play
}


class Learned(NamedTuple):
    """What a run came to."""

    trained: float  # mean return of the last 100 training episodes
    evaluated: float  # of the evaluation's episodes
    right: list[float]  # share of right pictures 1 .. 10 steps ahead; empty where the rules cannot be listed
    seconds: float  # of training and evaluation

    @property
    def line(self) -> str:
        dreams = " ".join(f"{share:.2f}" for share in self.right)
        return (
            f"last 100 episodes {self.trained:+.2f}, evaluation {self.evaluated:+.2f}, {self.seconds:.0f} s, {dreams}"
        )


def made(game: str, seed: int, overrides: str) -> Config:
    """The settings of a run in which the game is learned."""
    name, changes = ("quick", ASSAULT) if game == "Assault" else ("learn", {})
    return preset(name, changes | parse_overrides(overrides), game=game, seed=seed)


def skip_if_slow(game: str = "glamkit/Catch-v0", overrides: str = "") -> None:
    """Leaves a learning test out where a few steps, timed now, say that it takes too long for CI and its 40 minutes."""
    minutes = 60 * timing.hours(made(game, 1, f"{overrides} runtime.compile=off"))
    if minutes > MOST and not os.environ.get("GLAMKIT_LEARN"):
        pytest.skip(f"takes some {minutes:.0f} minutes on this machine; GLAMKIT_LEARN=1 runs it all the same")


def learn(folder: Path, game: str = "glamkit/Catch-v0", seed: int = 1, cut: str = "", overrides: str = "") -> Learned:
    """Trains and evaluates a run."""
    started = time.perf_counter()
    config = made(game, seed, overrides)
    trainer = Trainer(config, folder)
    world_model, actor_critic = trainer.agent.world_model, trainer.agent.actor_critic
    if cut == "policy":
        policy = actor_critic.policy
        actor_critic.policy = lambda states: policy(states).detach()  # type: ignore[method-assign]
    if cut == "reward":
        world_model.reward.requires_grad_(False)
    returns = [event.metrics["episode/return"] for event in trainer if event.kind == "episode"]
    about = trainer.agent, config, trainer.machine, trainer.step
    report = evaluation.evaluate(*about, file=folder / "evaluation.json")
    seconds = time.perf_counter() - started
    try:
        right = truth.compare(world_model, config, trainer.machine).share.tolist()
    except GlamkitError:
        right = []
    return Learned(float(np.mean(returns[-100:])), report["mean_return"], right, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="glamkit/Catch-v0")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--cut", choices=CUTS, default="")
    parser.add_argument("--overrides", default="")
    parser.add_argument("--folder", type=Path, help="keeps the run folders; the default is thrown away")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in read_seeds(options.seeds):
            folder = (options.folder or Path(scratch)) / f"seed{seed}"
            learned = learn(folder, options.game, seed, options.cut, options.overrides)
            result[str(seed)] = learned._asdict()
            sys.stdout.write(f"{options.game}, seed {seed}, cut: {options.cut or 'nothing'}: {learned.line}\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
