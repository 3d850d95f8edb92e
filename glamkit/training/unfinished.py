"""An evaluation that was stopped: finished episodes are kept, and a rerun plays only the rest.

An episode that was under way is not begun with other random draws: that would favour short episodes, which are finished
sooner. The game gets the same actions again, which takes no model, and goes on from there with the same draws. So
the report is equal to the bit to that of an evaluation that nobody stopped.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from glamkit.config import Config, EvaluationConfig
from glamkit.envs.videos import Episode
from glamkit.errors import GlamkitError, StoppedError
from glamkit.notebook import Tell, duration
from glamkit.runs.files import make_folder, remove
from glamkit.runs.folder import Run
from glamkit.runs.lock import Lock
from glamkit.runs.stops import Stops
from glamkit.runtime import random_state
from glamkit.training import checkpoint

logger = logging.getLogger(__name__)


class Unfinished:
    """What an evaluation has come to, written when it is stopped.

    Attributes:
        episodes: that are finished in rounds that are over, by their numbers.
        planned: numbers of those still to be played; those of the present round first.
        games: played side by side.
        crashes: rounds so far in which a game crashed.
        actions: (games,) of each step of the present round.
        rewards: (games,) sums over those steps.
        random: the state of random numbers after them.
        known: steps of the present round that are to be played again.

    Args:
        path: of the file, which ends in ``.pt``; None keeps nothing.
        key: protocol and weights; what was left under another is of no use.
        count: episodes of the whole evaluation.
        games: to be played side by side.
        stop: says after each step whether to stop.
        tell: is given a line about the progress after each step.
        most: steps of an episode, at most.
    """

    def __init__(
        self,
        path: Path | None,
        key: dict[str, Any],
        count: int,
        games: int,
        stop: Callable[[], bool] | None = None,
        tell: Tell | None = None,
        most: int = 0,
    ) -> None:
        self.path, self.key, self.count, self.games = path, key, count, games
        self.stop, self.tell, self.most, self.clock = stop, tell, most, 0.0
        self.episodes: dict[int, Episode] = {}
        self.planned, self.crashes = list(range(count)), 0
        self.actions: list[np.ndarray] = []
        self.rewards = np.zeros(0)
        self.random: dict[str, Any] = {}
        self.known = 0
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            state = checkpoint.read(path)
            if state["key"] != self.key:
                return
            episodes = {
                int(number): Episode(score, seed, np.array(actions, np.int16), cut)
                for number, (score, seed, actions, cut) in state["episodes"].items()
            }
            planned = [int(number) for number in state["planned"]]
            if sorted([*episodes, *planned]) != list(range(self.count)):
                raise ValueError("its episodes are not those planned")
            self.episodes, self.planned = episodes, planned
            self.games, self.crashes = int(state["games"]), int(state["crashes"])
            self.actions, self.rewards = list(state["actions"].numpy()), state["rewards"].numpy()
            self.random = state["random"]
        except (GlamkitError, LookupError, TypeError, ValueError, AttributeError) as error:
            logger.warning("What an evaluation left in %s is of no use (%s); it begins anew.", path, error)

    def begin_round(self) -> list[np.ndarray]:
        """The actions that the round begins with: those of one that was stopped, else none."""
        actions, self.actions = self.actions, []
        self.known, self.clock = len(actions), time.perf_counter()
        return actions

    def check(self, finished: int, taken: list[np.ndarray], rewards: np.ndarray) -> None:
        """To be called after each step: ends the evaluation if that is asked for.

        Args:
            finished: episodes of this round that are over.
            taken: (games,) actions of each step of this round.
            rewards: (games,) sums.

        Raises:
            EvaluationStoppedError: it was stopped; what there is has been written.
            GlamkitError: that cannot be written.
        """
        if len(taken) == self.known:
            self.clock = time.perf_counter()  # playing known steps again takes no model
        if self.tell is not None:
            self.tell(self.progress(finished, len(taken)))
        if self.stop is None or not self.stop():
            return
        done, kept = len(self.episodes) + finished, ""
        if self.path is not None:
            kept = ", which are kept: run it again and only the rest is played"
        if self.path is not None and len(taken) >= self.known:  # else the file knows more than has been played again
            state = {
                "key": self.key,
                "episodes": {n: (e.score, e.seed, e.actions.tolist(), e.cut) for n, e in self.episodes.items()},
                "planned": self.planned,
                "games": self.games,
                "crashes": self.crashes,
                "actions": torch.from_numpy(np.stack(taken)),
                "rewards": torch.from_numpy(rewards),
                "random": random_state(),
            }
            make_folder(self.path.parent)
            checkpoint.write(self.path, done, state)
        raise EvaluationStoppedError(f"the evaluation was stopped after {done} of {self.count} episodes{kept}.")

    def note_crash(self, config: Config, crashed: Mapping[int, str], played: bool) -> None:
        """Counts a round in which games crashed.

        Args:
            config: with the game, and how many crashes are allowed.
            crashed: (row of the game, what happened) of the round.
            played: whether any game made a step so far.

        Raises:
            GlamkitError: after too many, and at once where no game makes a step.
        """
        self.crashes += 1
        game, most, why = config.env.game, config.runtime.env_crashes, next(iter(crashed.values()))
        if not played and self.crashes > 1:
            raise GlamkitError(f"{game} crashed {self.crashes} times in an evaluation before its first step: {why}.")
        if self.crashes > most:
            raise GlamkitError(
                f"{game} crashed {self.crashes} times in an evaluation; what was saved is intact: mend the game and "
                f"evaluate again, or allow more crashes with runtime.env_crashes (the last time: {why})."
            )
        logger.warning("%s crashed in an evaluation (%s), %d of at most %d times.", game, why, self.crashes, most)

    def progress(self, finished: int, steps: int) -> str:
        """``evaluation 7/20 episodes  step 900/27000  85 steps/s  at most 5m07s left``: it fits into 80 columns.

        Args:
            finished: episodes of this round that are over.
            steps: of this round.
        """
        speed = (steps - self.known) / max(time.perf_counter() - self.clock, 1e-9)
        text = f"evaluation {len(self.episodes) + finished}/{self.count} episodes  step {steps}/{self.most}"
        if steps <= self.known:
            return f"{text}  played again from before"
        rounds = math.ceil(len(self.planned) / self.games)
        return f"{text}  {speed:.3g} steps/s  at most {duration((rounds * self.most - steps) / speed)} left"

    def over(self) -> None:
        """Removes the file: the report has it all."""
        if self.path is not None:
            remove(self.path)
            remove(self.path.with_suffix(".json"))


@contextmanager
def asked(run: Run) -> Iterator[Callable[[], bool]]:
    """Context that gives what says whether to stop: the stop button, Ctrl+C, SIGTERM, or the file STOP of the run.

    The file is removed once it has ended the evaluation, unless a trainer at work in the folder has yet to see it.
    """
    requests = Stops(run.stop_file, 0)
    try:
        with requests.listening():
            yield requests.requested
    except EvaluationStoppedError:
        with suppress(GlamkitError), Lock(run.lock_file, 0):
            requests.honour()
        raise


def fingerprint(agent: nn.Module) -> str:
    """Changes with any of the agent's weights."""
    digest = hashlib.sha256()
    for value in agent.state_dict().values():
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def is_unfinished(run: Run, config: Config, step: int) -> bool:
    """Whether an evaluation during training was stopped at this step before its end.

    After the last step the final evaluation leaves the same file; then the report of this one is there already.
    """
    every, name = config.evaluation.every, name_of(config.evaluation, step, 0)
    due = bool(every and step and step % every == 0) and not run.evaluation_at(step).exists()
    return due and (run.unfinished / f"{name}.pt").exists()


def name_of(settings: EvaluationConfig, step: int, seed: int) -> str:
    """A file name that says how an evaluation was made."""
    parts = [f"{step:09d}", f"{settings.episodes}-episodes"]
    parts += [] if settings.sampled else ["greedy"]
    parts += [] if settings.sticky == "env" else [f"sticky-{settings.sticky}"]
    parts += [f"no-ops-{settings.no_ops}"] if settings.no_ops else []
    parts += [f"seed-{seed}"] if seed else []
    return "-".join(parts)


class EvaluationStoppedError(StoppedError):
    """Somebody asked an evaluation to stop."""
