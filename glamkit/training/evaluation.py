"""Playing whole episodes with a fixed policy: the score, and the protocol it was measured by.

    glamkit evaluate runs/pong --episodes 100

Which episodes are played is settled before the first one begins: each has its own seed, and all of them are finished.
So short ones are not favoured, and any of them can be played again from its seed and its actions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glamkit.config import Config, EnvConfig, EvaluationConfig, coerce, override
from glamkit.envs.registry import VectorEnv, is_atari, make_vector
from glamkit.errors import GlamkitError
from glamkit.models.agent import Agent, RecentSteps
from glamkit.runs.files import replace_text
from glamkit.runtime import Machine, any_shapes, undisturbed
from glamkit.training import videos
from glamkit.training.load import kept, open_run
from glamkit.training.videos import Episode

STICKY = 0.25  # what "on" means (Machado et al. 2018)
ATARI_ONLY = ("frame_skip", "sticky", "life_loss", "no_ops")


def evaluate(
    agent: Agent, config: Config, machine: Machine, step: int, seed: int = 0, film: Path | None = None
) -> dict[str, Any]:
    """Plays `config.evaluation.episodes` episodes and returns the report that `save` writes.

    Training is not disturbed: random numbers are put back and BatchNorm only reads its statistics.

    Args:
        agent: the agent.
        config: the run's config.
        machine: where it computes.
        step: agent steps of training behind it, for the report.
        seed: of games and actions; not the training's.
        film: where videos of the best, median and worst episode go: ``runs/pong/videos/evaluation`` writes
            ``evaluation-best.gif`` and so on there; None for no videos.

    Returns:
        ``episodes``, each with its ``return`` (undiscounted, raw), ``length`` in agent steps, ``cut`` (stopped by
        `config.evaluation.episode_steps`) and ``seed``; ``mean_return``; ``step``; ``protocol``; ``videos``.
    """
    env = evaluated_env(config)
    with undisturbed(seed), evaluating(agent):
        episodes = play(agent, config, machine, seed)
    report: dict[str, Any] = {
        "episodes": [{"return": e.score, "length": e.length, "cut": e.cut, "seed": e.seed} for e in episodes],
        "mean_return": float(np.mean([episode.score for episode in episodes])),
        "step": step,
        "protocol": card(config, seed),
    }
    if film is not None:
        report["videos"] = videos.record(env, config.evaluation.no_ops, episodes, film)
    return report


def evaluated_env(config: Config) -> EnvConfig:
    """The game as the evaluation plays it: sticky actions may be others than in training."""
    sticky = {"on": STICKY, "off": 0.0}.get(config.evaluation.sticky, config.env.sticky)
    return replace(config.env, sticky=sticky)


def card(config: Config, seed: int) -> dict[str, Any]:
    """The protocol card: all that a reader must know to compare the score. None is what the game does not have."""
    settings = {key: value for key, value in asdict(config.evaluation).items() if key != "every"}
    table = {**settings, **asdict(evaluated_env(config)), **asdict(config.agent), "seed": seed}
    if not is_atari(config.env.game):
        table |= dict.fromkeys(ATARI_ONLY)
    return {
        **table,
        "actions": "the minimal set of the game",
        "score": "undiscounted sum of raw rewards",
        "start": "no past: the first action of an episode is random",
        "versions": {name: version(name) for name in ("glamkit", "ale-py", "gymnasium")},
    }


@contextmanager
def evaluating(agent: Agent) -> Iterator[None]:
    """The agent with every part in evaluation mode; afterwards each part is as it was."""
    before = {part: part.training for part in agent.modules()}
    agent.eval()
    try:
        with any_shapes():  # games end one by one
            yield
    finally:
        for part, training in before.items():
            part.training = training


def play(agent: Agent, config: Config, machine: Machine, seed: int) -> list[Episode]:
    """The episodes themselves, in rounds of at most `config.evaluation.games` side by side."""
    settings = config.evaluation
    # Spread, so that neighbouring seeds share no game; 31 bits, because ALE takes no more.
    seeds = np.random.SeedSequence(seed).generate_state(settings.episodes) >> 1
    rounds = [seeds[first : first + settings.games] for first in range(0, len(seeds), settings.games)]
    opened: dict[int, VectorEnv] = {}  # by size: the last round may be a smaller one
    episodes: list[Episode] = []
    try:
        for part in rounds:
            if len(part) not in opened:
                opened[len(part)] = make_vector(evaluated_env(config), len(part), seed, settings.no_ops)
            episodes += play_round(agent, config, machine, opened[len(part)], part)
    finally:
        for games in opened.values():
            games.close()
    return episodes


def play_round(agent: Agent, config: Config, machine: Machine, games: VectorEnv, seeds: np.ndarray) -> list[Episode]:
    """One episode of each seed, all stepped together until the last of them is over."""
    count, settings = len(seeds), config.evaluation
    past = RecentSteps(config.agent, count, config.env.image_size, machine.device)
    scores, alive = np.zeros(count), np.ones(count, dtype=bool)
    taken: list[list[int]] = [[] for _ in range(count)]
    frames = games.reset(seeds)
    for _ in range(settings.episode_steps):
        with torch.no_grad(), machine.autocast():
            actions = agent.act(frames, past, settings.sampled)
        chosen = actions.cpu().numpy()
        following, rewards, _, ended = games.step(chosen)
        past.add(frames, actions, ended)
        frames = following
        scores += np.where(alive, rewards, 0.0)
        for row in np.flatnonzero(alive):
            taken[row].append(int(chosen[row]))
        alive &= ~ended
        if not alive.any():
            break
        past.lengths[~alive] = 0  # games that are over: without a past they cost nothing
    return [
        Episode(float(score), int(own), np.array(actions, np.int16), bool(cut))
        for score, own, actions, cut in zip(scores, seeds, taken, alive, strict=True)
    ]


def summary(report: Mapping[str, Any]) -> dict[str, float]:
    """What the log says of a report: mean, lowest and highest return, and mean length."""
    returns = [episode["return"] for episode in report["episodes"]]
    lengths = [episode["length"] for episode in report["episodes"]]
    values = {"return": np.mean(returns), "lowest": min(returns), "highest": max(returns), "length": np.mean(lengths)}
    return {f"evaluation/{name}": float(value) for name, value in values.items()}


def save(report: dict[str, Any], path: Path) -> None:
    """Writes the report at once or not at all; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(report, indent=1))


def evaluate_run(
    run_dir: str | Path,
    checkpoint: int | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    film: bool = True,
) -> tuple[dict[str, Any], Path]:
    """Evaluates a checkpoint of a run; returns the report and the file it was written to.

    By its own protocol at its end it is the run's `evaluation.json`. Anything else is one more file in `evaluations/`.

    Args:
        run_dir: the run folder; a relative path counts from the checkout.
        checkpoint: the step it was saved at; None takes the newest.
        changes: of settings, such as ``{"evaluation.episodes": 100}``.
        seed: of games and actions.
        film: whether videos are made.

    Raises:
        GlamkitError: the folder holds no run or not that checkpoint, or a setting is wrong.
    """
    seed = coerce("seed", seed, int)
    if seed < 0:
        raise GlamkitError(f"seed = {seed} is outside its range: at least 0.")
    opened = open_run(run_dir, checkpoint)
    if opened.step not in kept(opened.run):
        raise GlamkitError(
            f"step {opened.step:,} of {opened.run.folder} is a keepsake, rounded, which is there to be looked at; "
            f"scores are those of checkpoints: {' and '.join(map(str, kept(opened.run)))}."
        )
    config = override(opened.config, dict(changes or {}))
    machine = Machine(config.runtime)
    run, complete = opened.run, opened.step == config.trainer.env_steps
    own = complete and seed == 0 and config.evaluation == opened.config.evaluation
    name = name_of(config.evaluation, opened.step, seed)
    path = run.evaluation_file if own else run.folder / "evaluations" / f"{name}.json"
    place = run.folder / "videos" / ("evaluation" if own else f"evaluation-{name}")
    report = evaluate(opened.agent.to(machine.device), config, machine, opened.step, seed, place if film else None)
    save(report, path)
    return report, path


def name_of(settings: EvaluationConfig, step: int, seed: int) -> str:
    """A file name that says how an evaluation was made."""
    parts = [f"{step:09d}", f"{settings.episodes}-episodes"]
    parts += [] if settings.sampled else ["greedy"]
    parts += [] if settings.sticky == "env" else [f"sticky-{settings.sticky}"]
    parts += [f"no-ops-{settings.no_ops}"] if settings.no_ops else []
    parts += [f"seed-{seed}"] if seed else []
    return "-".join(parts)


def in_words(report: Mapping[str, Any]) -> str:
    """A report in a sentence."""
    values, count = summary(report), len(report["episodes"])
    cut = sum(episode["cut"] for episode in report["episodes"])
    text = f"step {report['step']:,}: mean return {values['evaluation/return']:.2f} of {count} episodes"
    text += f" ({values['evaluation/lowest']:g} to {values['evaluation/highest']:g})"
    return text + (f"; {cut} of them cut short" if cut else "")
