"""Playing whole episodes with a fixed policy: the score, and the protocol it was measured by."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.agent import Agent, Past
from glamkit.config import Config
from glamkit.envs import make_vector
from glamkit.run import replace_text
from glamkit.runtime import Machine, undisturbed


class Episode(NamedTuple):
    """One finished episode: undiscounted raw return, and length in agent steps."""

    score: float
    length: int
    cut: bool


def evaluate(agent: Agent, config: Config, machine: Machine, step: int, seed: int = 0) -> dict[str, Any]:
    """Plays `config.evaluation.episodes` episodes and returns the report that `save` writes.

    One game each, all stepped together: every environment plays exactly one episode, so short ones are not favoured.
    Training is not disturbed: random numbers are put back and BatchNorm only reads its statistics.

    Args:
        agent: the agent.
        config: the run's config.
        machine: where it computes.
        step: agent steps of training behind it, for the report.
        seed: of games and actions; not the training's.
    """
    with undisturbed(seed):
        episodes = play(agent, config, machine, seed)
    scores = [episode.score for episode in episodes]
    return {
        "episodes": [{"return": e.score, "length": e.length, "cut": e.cut} for e in episodes],
        "mean_return": float(np.mean(scores)),
        "step": step,
        "protocol": {**asdict(config.evaluation), **asdict(config.env), **asdict(config.agent), "seed": seed},
    }


def play(agent: Agent, config: Config, machine: Machine, seed: int) -> list[Episode]:
    """The episodes themselves."""
    count, limit = config.evaluation.episodes, config.evaluation.episode_steps
    games = make_vector(config.env, count, seed)
    past = Past(config.agent, count, config.env.image_size, machine.device)
    scores, lengths, alive = np.zeros(count), np.zeros(count, dtype=int), np.ones(count, dtype=bool)
    training = agent.training
    agent.eval()
    frames = games.reset()
    while alive.any() and lengths.max() < limit:
        with torch.no_grad(), machine.autocast():
            actions = agent.act(frames, past, config.evaluation.sampled)
        following, rewards, _, ended = games.step(actions.cpu().numpy())
        past.add(frames, actions, ended)
        frames = following
        scores += np.where(alive, rewards, 0.0)
        lengths += alive
        alive &= ~ended
    agent.train(training)
    return [Episode(float(s), int(n), bool(a)) for s, n, a in zip(scores, lengths, alive, strict=True)]


def save(report: dict[str, Any], path: Path) -> None:
    """Writes the report at once or not at all."""
    replace_text(path, json.dumps(report, indent=1))
