"""Playing whole episodes with a fixed policy: the score, and the protocol it was measured by.

    glamkit evaluate runs/pong --episodes 100

Which episodes are played is settled before the first one begins: each has its own seed, and all of them are finished.
So short ones are not favoured, and any of them can be played again from its seed and its actions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glamkit import __version__
from glamkit.config import Config, EnvConfig, EvaluationConfig, coerce
from glamkit.envs import videos
from glamkit.envs.registry import Games, is_atari
from glamkit.envs.videos import Episode
from glamkit.errors import GlamkitError
from glamkit.models.agent import Agent, RecentSteps
from glamkit.notebook import Tell
from glamkit.runs import tensorboard
from glamkit.runs.files import make_folder, read_json, replace_text
from glamkit.runs.folder import Run
from glamkit.runtime import Machine, any_shapes, available, undisturbed
from glamkit.training import guards
from glamkit.training.load import LoadedRun, checkpoint_steps, open_run
from glamkit.training.progress import Progress, asked

STICKY = 0.25  # what "on" means (Machado et al. 2018)
ATARI_ONLY = ("frame_skip", "sticky", "life_loss", "no_ops")


def evaluate(
    agent: Agent,
    config: Config,
    machine: Machine,
    step: int,
    seed: int = 0,
    film: Path | None = None,
    run: Run | None = None,
    stop: Callable[[], bool] | None = None,
    tell: Tell | None = None,
    file: Path | None = None,
) -> dict[str, Any]:
    """Plays `config.evaluation.episodes` episodes and returns the report.

    Training is not disturbed: random numbers are put back. The agent is left in evaluation mode.

    Args:
        agent: the agent.
        config: the run's config.
        machine: where it computes.
        step: agent steps of training behind it, for the report.
        seed: of games and actions; not the training's.
        film: where videos of the best, median and worst episode go: ``runs/pong/videos/evaluation`` writes
            ``evaluation-best.gif`` and so on there; None for no videos.
        run: whose file STOP stops the evaluation, as do the stop button, Ctrl+C and SIGTERM then.
        stop: asked after each step instead.
        tell: given a line about the progress after each step, as by `notebook.Live`.
        file: written with the report as soon as there is a score, and once more with the videos; None for no file.

    Returns:
        ``episodes``, each with its ``return`` (undiscounted, raw), ``length`` in agent steps, ``cut`` (stopped by
        `config.evaluation.episode_steps` where the game went on; ALE itself ends games after 108,000 frames) and
        ``seed``; ``mean_return``; ``step``; ``protocol``; ``videos``.

    Raises:
        StoppedError: it was stopped.
        GlamkitError: the protocol asks for what the game does not have, it crashed too often, or `file` cannot be
            written, which is tried before the first game.
    """
    check_protocol(config)
    if file is not None:
        make_folder(file.parent)
    asking = nullcontext(stop) if run is None or stop is not None else asked(run)
    agent.eval()
    with asking as stopping, undisturbed(seed), any_shapes():  # games end one by one
        episodes = play(agent, config, machine, seed, Progress(config.evaluation, stopping, tell))
    report: dict[str, Any] = {
        "episodes": [{"return": e.score, "length": e.length, "cut": e.cut, "seed": e.seed} for e in episodes],
        "mean_return": float(np.mean([episode.score for episode in episodes])),
        "step": step,
        "protocol": card(config, seed),
    }
    if file is not None:
        save(report, file)
    if film is not None:
        report["videos"] = videos.record(evaluated_env(config), config.evaluation.no_ops, episodes, film)
        if file is not None:
            save(report, file)
    return report


def final(
    agent: Agent, config: Config, machine: Machine, step: int, run: Run, tell: Tell | None = None
) -> dict[str, Any]:
    """The report of a trained run, as its evaluation.json has it; without one, or with one of another step, it is made.

    Arguments and errors are those of `evaluate`.
    """
    report = None
    with suppress(GlamkitError):
        report = read_json(run.evaluation_file)
    if not isinstance(report, dict) or report.get("step") != step or "episodes" not in report:
        film = run.folder / "videos" / "evaluation"
        report = evaluate(agent, config, machine, step, film=film, run=run, tell=tell, file=run.evaluation_file)
    if config.runtime.tensorboard:
        tensorboard.copy(run.folder)
    return report


def check_protocol(config: Config) -> None:
    """Refuses settings of the evaluation that mean nothing in the game; errors of its name as in `make_env`.

    Raises:
        GlamkitError: there is one, with the value that leaves it out.
    """
    for key, plain in {"no_ops": 0, "sticky": "env"}.items():
        value = getattr(config.evaluation, key)
        if value != plain and not is_atari(config.env.game):
            raise GlamkitError(
                f"evaluation.{key} = {value!r} means nothing in {config.env.game}: idle starts and sticky actions are "
                f"those of Atari games; leave it at {plain!r}."
            )


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
        "versions": {"glamkit": __version__} | {name: version(name) for name in ("ale-py", "gymnasium")},
    }


def play(agent: Agent, config: Config, machine: Machine, seed: int, progress: Progress) -> list[Episode]:
    """The episodes themselves, in rounds of at most `config.evaluation.games` side by side.

    An episode whose game crashes is played again from its start, with the same seed.

    Raises:
        GlamkitError: the game cannot be opened, or it crashed in more than `config.runtime.env_crashes` rounds.
    """
    settings = config.evaluation
    # Spread, so that neighbouring seeds share no game.
    seeds = np.random.SeedSequence(seed).generate_state(settings.episodes) >> 1
    crashes = guards.Crashes(config.env.game, config.runtime.env_crashes, " in an evaluation")
    done, planned = dict[int, Episode](), list(range(settings.episodes))
    with closing(Games(evaluated_env(config), settings.no_ops)) as games:
        while planned:
            part = planned[: settings.games]
            progress.begin_round(len(done), settings.games)
            episodes = play_round(agent, config, machine, games, seeds[part], progress)
            done |= {number: episodes[row] for row, number in enumerate(part) if row not in games.crashed}
            planned = planned[len(part) :] + [part[row] for row in games.crashed]
            if games.crashed:
                crashes.note(next(iter(games.crashed.values())))
                crashes.check()
    return [done[number] for number in range(settings.episodes)]


def play_round(
    agent: Agent, config: Config, machine: Machine, games: Games, seeds: np.ndarray, progress: Progress
) -> list[Episode]:
    """One episode of each seed (N,), all stepped together until the last of them is over.

    Episodes of games that crashed are there too, as far as they came: see `Games.crashed`.
    """
    count, settings = len(seeds), config.evaluation
    past = RecentSteps(config.agent, count, config.env.image_size, machine.device)
    scores = np.zeros(count)
    taken: list[list[int]] = [[] for _ in range(count)]
    frames = games.reset(seeds)
    alive = np.array([row not in games.crashed for row in range(count)])
    for number in range(settings.episode_steps if alive.any() else 0):
        with torch.no_grad(), machine.autocast():
            actions = agent.act(frames, past, settings.sampled)
        chosen = actions.cpu().numpy()
        following, rewards, ended = games.step(chosen)
        past.add(frames, actions, ended)
        frames = following
        scores += np.where(alive, rewards, 0.0)
        for row in np.flatnonzero(alive):
            taken[row].append(int(chosen[row]))
        alive &= ~ended
        if not alive.any():
            break
        past.lengths[~alive] = 0  # games that are over: without a past they cost nothing
        progress.check(count - int(alive.sum()), number + 1)
    return [
        Episode(float(score), int(own), np.array(actions, np.int16), bool(cut))
        for score, own, actions, cut in zip(scores, seeds, taken, alive, strict=True)
    ]


def name_of(settings: EvaluationConfig, step: int, seed: int) -> str:
    """A file name that says how an evaluation was made."""
    parts = [f"{step:09d}", f"{settings.episodes}-episodes"]
    parts += [] if settings.sampled else ["greedy"]
    parts += [] if settings.sticky == "env" else [f"sticky-{settings.sticky}"]
    parts += [f"no-ops-{settings.no_ops}"] if settings.no_ops else []
    parts += [f"seed-{seed}"] if seed else []
    return "-".join(parts)


def summary(report: Mapping[str, Any]) -> dict[str, float]:
    """What the log says of a report: mean, lowest and highest return, mean length, and how many games were cut."""
    returns = [episode["return"] for episode in report["episodes"]]
    lengths = [episode["length"] for episode in report["episodes"]]
    values = {"return": np.mean(returns), "lowest": min(returns), "highest": max(returns), "length": np.mean(lengths)}
    values["cut"] = sum(episode["cut"] for episode in report["episodes"])
    return {f"evaluation/{name}": float(value) for name, value in values.items()}


def save(report: dict[str, Any], path: Path) -> None:
    """Writes the report at once or not at all; its folder is made if need be; errors as in `files.replace`."""
    make_folder(path.parent)
    replace_text(path, json.dumps(report, indent=1))


def opened(
    run_dir: str | Path, checkpoint: int | None = None, changes: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[LoadedRun, Config, Machine, int]:
    """What `evaluate_run` takes: a checkpoint of a run, the config to evaluate it by, where, and the seed; all checked.

    Args:
        run_dir: the run folder; a relative path counts from the checkout.
        checkpoint: the step it was saved at; None takes the newest.
        changes: of settings, such as ``{"evaluation.episodes": 100}``.
        seed: of games and actions.

    Raises:
        GlamkitError: the folder holds no run or not that checkpoint, or a setting is wrong.
    """
    seed = coerce("seed", seed, int)
    if not 0 <= seed < 2**32:
        raise GlamkitError(f"seed = {seed} is outside its range: 0 to {2**32 - 1}.")
    loaded = open_run(run_dir, checkpoint, snapshots=False)
    if loaded.step not in checkpoint_steps(loaded.run):
        raise GlamkitError(
            f"step {loaded.step:,} of {loaded.run.folder} is a snapshot, rounded, which is there to be looked at; "
            f"scores are those of checkpoints: {' and '.join(map(str, checkpoint_steps(loaded.run)))}."
        )
    here = replace(loaded.config, runtime=available(loaded.config.runtime))
    config = here.override(changes or {})
    check_protocol(config)
    return loaded, config, Machine(config.runtime), seed


def evaluate_run(
    loaded: LoadedRun, config: Config, machine: Machine, seed: int, film: bool = True, tell: Tell | None = None
) -> tuple[dict[str, Any], Path]:
    """Evaluates a checkpoint that was `opened`; returns the report and the file it was written to.

    By its own protocol at its end it is the run's `evaluation.json`. Anything else is one more file in `evaluations/`,
    as is the score of a shared run, whose own came with it.

    With `film` there are videos; `tell` is given a line about the progress after each step.

    Raises:
        GlamkitError: as in `evaluate`, or the report cannot be written.
    """
    run, complete = loaded.run, loaded.step == config.trainer.env_steps
    own = complete and seed == 0 and config.evaluation == loaded.config.evaluation and not run.shared
    name = name_of(config.evaluation, loaded.step, seed)
    if config.evaluation.episode_steps != loaded.config.evaluation.episode_steps:
        name += f"-cut-{config.evaluation.episode_steps}"
    path = run.evaluation_file if own else run.folder / "evaluations" / f"{name}.json"
    place = run.folder / "videos" / ("evaluation" if own else f"evaluation-{name}")
    agent, shown, kept = loaded.agent.to(machine.device), place if film else None, None if run.shared else run
    return evaluate(agent, config, machine, loaded.step, seed, shown, kept, tell=tell, file=path), path


def in_words(report: Mapping[str, Any]) -> str:
    """A report in a sentence."""
    values, count = summary(report), len(report["episodes"])
    cut = sum(episode["cut"] for episode in report["episodes"])
    text = f"step {report['step']:,}: mean return {values['evaluation/return']:.2f} of {count} episodes"
    text += f" ({values['evaluation/lowest']:g} to {values['evaluation/highest']:g})"
    return text + (f"; {cut} of them cut short" if cut else "")
