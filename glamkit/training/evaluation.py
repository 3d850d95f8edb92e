"""Playing whole episodes with a fixed policy: the score, and the protocol it was measured by.

Which episodes are played is settled before the first one begins: each has its own seed, and all of them are finished.
So short ones are not favoured, and any of them can be played again from its seed and its actions.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glamkit import __version__
from glamkit.config import Config, EnvConfig, EvaluationConfig, at_least, differences, parse_overrides
from glamkit.envs import videos
from glamkit.envs.registry import Games, is_atari
from glamkit.envs.videos import Episode
from glamkit.errors import GlamkitError, StoppedError
from glamkit.models.agent import Agent, RecentSteps
from glamkit.notebook import Tell
from glamkit.runs import tensorboard
from glamkit.runs.files import make_folder, read_json, replace_text
from glamkit.runs.folder import UNSCORED, Run
from glamkit.runs.session import Stops
from glamkit.runtime import Machine, any_shapes, available, undisturbed
from glamkit.training import checkpoint as checkpoints
from glamkit.training import guards
from glamkit.training.load import LoadedRun, open_run

STICKY = 0.25  # what "on" means (Machado et al. 2018)
ATARI_ONLY = ("frame_skip", "sticky", "life_loss", "no_ops")


def evaluate(
    agent: Agent,
    config: Config,
    machine: Machine,
    step: int,
    seed: int = 0,
    film: str | Path | None = None,
    stop: Callable[[], bool] | None = None,
    tell: Tell | None = None,
    file: str | Path | None = None,
) -> dict[str, Any]:
    """Plays `config.evaluation.episodes` episodes and returns the report.

    Training is not disturbed: random numbers are put back. The agent is left in evaluation mode. Of an opened run:
    ``evaluate(run.agent, run.config, run.machine, run.step)``.

    Args:
        agent: on the device of `machine`.
        config: the run's.
        machine: where the agent computes.
        step: agent steps of training behind it, for the report.
        seed: of games and actions, 0 to 2**32 - 1; not the training's.
        film: where videos of the best, median and worst episode go, such as ``runs/pong/videos/evaluation`` for
            ``evaluation-best.gif`` and so on; None for no videos.
        stop: asked before each step whether to stop.
        tell: given a line about the progress before each step, as by `notebook.Live`.
        file: written with the report as soon as there is a score, and once more with the videos.

    Returns:
        ``episodes``, each with its ``return`` (undiscounted, raw), ``length`` in agent steps, ``cut`` (stopped by
        `config.evaluation.episode_steps` where the game went on; ALE itself ends games after 108,000 frames) and
        ``seed``; ``mean_return``; ``step``; ``protocol``; ``videos``.

    Raises:
        StoppedError: it was stopped.
        GlamkitError: the seed is not one, the game crashed too often, or `file` cannot be written, which is tried
            before the first game.
    """
    if (seed := at_least("seed", seed, 0)) >= 2**32:
        raise GlamkitError(f"seed = {seed} is outside its range: at most {2**32 - 1}.")
    film, file = (None if path is None else Path(path) for path in (film, file))
    if file is not None:
        make_folder(file.parent)
    agent.eval()
    with undisturbed(seed), any_shapes():  # games end one by one
        episodes = play(agent, config, machine, seed, stop, tell)
    report: dict[str, Any] = {
        "episodes": [{"return": e.score, "length": e.length, "cut": e.cut, "seed": e.seed} for e in episodes],
        "mean_return": float(np.mean([episode.score for episode in episodes])),
        "step": step,
        "protocol": card(config, seed),
    }
    if file is not None:
        replace_text(file, json.dumps(report, indent=1))
    if film is not None:
        report["videos"] = videos.record(evaluated_env(config), config.evaluation.no_ops, episodes, film)
        if file is not None:
            replace_text(file, json.dumps(report, indent=1))
    return report


@contextmanager
def asked(run: Run) -> Iterator[Callable[[], bool]]:
    """Context that gives what says whether to stop: the stop button, Ctrl+C, SIGTERM, or the file STOP of the run."""
    stops = Stops(run.stop_file, 0)
    try:
        with stops.listening():
            yield stops.requested
    except StoppedError:
        stops.honour()
        raise


def final(trainer: Any, tell: Tell | None = None) -> dict[str, Any]:
    """The report of a trainer's last step, as its evaluation.json has it; without one it is made."""
    run, about, report = trainer.run, (trainer.agent, trainer.config, trainer.machine, trainer.step), None
    with suppress(GlamkitError):
        report = read_json(run.evaluation_file)
    if not isinstance(report, dict) or report.get("step") != trainer.step or "episodes" not in report:
        with asked(run) as stop:
            film = run.folder / "videos" / "evaluation"
            report = evaluate(*about, film=film, stop=stop, tell=tell, file=run.evaluation_file)
    if trainer.config.runtime.tensorboard:
        tensorboard.copy(run.folder)
    return report


def check_protocol(config: Config) -> None:
    """Refuses a game by an unknown name, and settings of the evaluation that mean nothing in it, by a GlamkitError."""
    atari = is_atari(config.env.game)
    for key, plain in {"no_ops": 0, "sticky": "env"}.items():
        value = getattr(config.evaluation, key)
        if value != plain and not atari:
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


def play(
    agent: Agent,
    config: Config,
    machine: Machine,
    seed: int,
    stop: Callable[[], bool] | None = None,
    tell: Tell | None = None,
) -> list[Episode]:
    """The episodes themselves, in rounds of at most `config.evaluation.games`; arguments as in `evaluate`.

    An episode whose game crashes is played again from its start, with the same seed.
    """
    settings = config.evaluation
    # Spread, so that neighbouring seeds share no game.
    seeds = np.random.SeedSequence(seed).generate_state(settings.episodes) >> 1
    crashes = guards.Crashes(config.env.game, config.runtime.env_crashes, " in an evaluation")
    done, planned = dict[int, Episode](), list(range(settings.episodes))
    began, steps = time.perf_counter(), itertools.count()

    def check(over: int, step: int) -> None:
        finished = f"{len(done) + over} of {settings.episodes} episodes"
        speed = next(steps) / max(time.perf_counter() - began, 1e-9)
        if tell is not None:
            tell(f"evaluation {finished}  step {step}/{settings.episode_steps}  {speed:.3g} steps/s")
        if stop is not None and stop():
            raise StoppedError(f"the evaluation was stopped after {finished}; run again, it plays all of them.")

    with closing(Games(evaluated_env(config), settings.no_ops)) as games:
        while planned:
            part, planned = planned[: settings.games], planned[settings.games :]
            episodes = play_round(agent, config, machine, games, seeds[part], check)
            done |= {number: episodes[row] for row, number in enumerate(part) if row not in games.crashed}
            planned += [part[row] for row in games.crashed]
            if games.crashed:
                crashes.note(next(iter(games.crashed.values())))
    return [done[number] for number in range(settings.episodes)]


def play_round(
    agent: Agent, config: Config, machine: Machine, games: Games, seeds: np.ndarray, check: Callable[[int, int], None]
) -> list[Episode]:
    """One episode of each seed (N,), all stepped together until the last of them is over.

    Episodes of games that crashed are there too, as far as they came: see `Games.crashed`. Before each step `check`
    is given how many are over, and the steps made.
    """
    count, settings = len(seeds), config.evaluation
    past = RecentSteps(config.agent, count, config.env.image_size, machine.device)
    scores = np.zeros(count)
    taken: list[list[int]] = [[] for _ in range(count)]
    frames = games.reset(seeds)
    alive = np.array([row not in games.crashed for row in range(count)])
    step = 0
    while alive.any() and step < settings.episode_steps:
        check(count - int(alive.sum()), step)
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
        past.lengths[~alive] = 0  # games that are over: without a past they cost nothing
        step += 1
    return [
        Episode(float(score), int(own), np.array(actions, np.int16), bool(cut))
        for score, own, actions, cut in zip(scores, seeds, taken, alive, strict=True)
    ]


def name_of(settings: EvaluationConfig, step: int, seed: int) -> str:
    """A file name that says how an evaluation was made: step, episodes, and settings other than the default ones."""
    told = {"every", "games", "episodes"}  # no part of the protocol, or told before
    plain = asdict(EvaluationConfig())
    changed = {key: value for key, value in asdict(settings).items() if key not in told and value != plain[key]}
    changed |= {"seed": seed} if seed else {}
    return "-".join([f"{step:09d}-{settings.episodes}-episodes", *(f"{key}-{value}" for key, value in changed.items())])


def summary(report: Mapping[str, Any]) -> dict[str, float]:
    """What the log says of a report: mean, lowest and highest return, mean length, and how many games were cut."""
    returns, lengths, cut = ([episode[key] for episode in report["episodes"]] for key in ("return", "length", "cut"))
    values = {"return": np.mean(returns), "lowest": min(returns), "highest": max(returns)}
    values |= {"length": np.mean(lengths), "cut": sum(cut)}
    return {f"evaluation/{name}": float(value) for name, value in values.items()}


def in_words(report: Mapping[str, Any]) -> str:
    """A report in a sentence."""
    values = {name.partition("/")[2]: value for name, value in summary(report).items()}
    text = f"step {report['step']:,}: mean return {values['return']:.2f} of {len(report['episodes'])} episodes"
    text += f" ({values['lowest']:g} to {values['highest']:g})"
    return text + (f"; {values['cut']:g} of them cut short" if values["cut"] else "")


def opened(
    run_dir: str | Path, checkpoint: int | None = None, changes: str | Mapping[str, Any] | None = None
) -> LoadedRun:
    """A checkpoint, opened as by `open_run`, with the config and the machine by which `evaluate_run` takes it.

    Settings may be changed, as by ``"evaluation.episodes=100"`` or a mapping.
    """
    changes = parse_overrides(changes)
    device = changes.get("runtime.device")
    loaded = open_run(run_dir, checkpoint, device)
    if loaded.step != loaded.replay.count:
        whole = " or ".join(map(str, checkpoints.steps(loaded.run.checkpoints)))
        raise GlamkitError(f"step {loaded.step:,} of {run_dir} is a snapshot, rounded; score a checkpoint: {whole}.")
    here = replace(loaded.config, runtime=available(loaded.config.runtime, device))
    config = here.override(changes)
    check_protocol(config)
    return loaded._replace(config=config, machine=Machine(config.runtime))


def evaluate_run(
    loaded: LoadedRun, seed: int = 0, film: bool = True, tell: Tell | None = None
) -> tuple[dict[str, Any], Path]:
    """Evaluates a checkpoint that was `opened`; returns the report and the file it was written to.

    By its own protocol at its end it is the run's `evaluation.json`. Anything else is one more file in `evaluations/`,
    as is the score of a shared run, whose own came with it. The stop button, Ctrl+C, SIGTERM and the file STOP end it.
    """
    run, config, machine = loaded.run, loaded.config, loaded.machine
    changed = {key for key in differences(config, run.config()) if key.startswith("evaluation.")} - UNSCORED
    own = loaded.step == config.trainer.env_steps and seed == 0 and not changed and not run.shared
    name = name_of(config.evaluation, loaded.step, seed)
    path = run.evaluation_file if own else run.folder / "evaluations" / f"{name}.json"
    place = run.folder / "videos" / ("evaluation" if own else f"evaluation-{name}") if film else None
    agent = loaded.agent.to(machine.device)
    with asked(run) as stop:
        return evaluate(agent, config, machine, loaded.step, seed, place, stop, tell, path), path
