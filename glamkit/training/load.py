"""A run opened to be looked into: its agent and its stored steps, read-only.

No file of the run is written, moved or removed, so a run may be opened while it is being trained; what is seen then is
its newest checkpoint.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glamkit.config import Config, coerce
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError
from glamkit.models.agent import Agent
from glamkit.runs.folder import Run, nearby
from glamkit.runtime import ALONE, Machine, available, undisturbed
from glamkit.training import checkpoint as checkpoints
from glamkit.training.accelerate import accelerate, left_out
from glamkit.training.replay import Replay
from glamkit.training.shared_runs import locate
from glamkit.types import Batch

OUTCOMES = ("actions", "rewards", "terminations")
logger = logging.getLogger(__name__)


class Recording(Replay):
    """The first `count` stored steps of a run, to read only.

    Frames, which are nearly all of it, are read when a window needs them: so a long run opens like a short one.
    """

    def __init__(self, run: Run, count: int, config: Config, device: torch.device) -> None:
        there = checkpoints.stored_parts(run.replay)  # a shared run has the newest steps alone
        if not there:
            raise GlamkitError(f"{run.replay} holds no replay, so there are no real steps to start from.")
        self.first = there[0].first if run.shared else max(0, count - config.replay.capacity)
        rows = max(count - self.first, 64)  # no more memory than there are steps, whatever the run was allowed
        super().__init__(replace(config.replay, capacity=rows), config.env.image_size, device)
        self.count = count
        self.unread = checkpoints.parts(run.replay, self.oldest, count)
        for part in self.unread:
            self.load_part(part.first, part.read(self.size, OUTCOMES))

    def __len__(self) -> int:
        return self.count - self.first

    def window(self, starts: Tensor, length: int) -> Batch:
        """As in `Replay`; frames that these windows need are read first."""
        for start in starts.tolist():
            self._want(start, start + length)
        return super().window(starts, length)

    def part(self, first: int, last: int) -> dict[str, Tensor]:
        """As in `Replay`; frames of these steps are read first."""
        self._want(first, last)
        return super().part(first, last)

    def _want(self, first: int, last: int) -> None:
        with ALONE:
            for part in [part for part in self.unread if part.first < last and first < part.last]:
                self.load_part(part.first, part.read(self.size, ["frames"]))
                self.unread.remove(part)


class LoadedRun(NamedTuple):
    """A run to look into."""

    run: Run
    config: Config
    step: int  # agent steps trained when the checkpoint was written
    agent: Agent  # in evaluation mode, without gradients
    machine: Machine
    replay: Replay
    actions: tuple[str, ...]  # their names


def open_run(what: str | Path, checkpoint: int | None = None, device: str | None = None) -> LoadedRun:
    """Opens a run without disturbing whoever may be training it.

    It opens wherever it can: a device that it was trained on and that is not here gives way to `auto`.

    Args:
        what: a run folder, a shared file, ``hub:OWNER/NAME``, or the name of a shipped run such as ``catch``. A
            relative path counts from the checkout.
        checkpoint: the step it was saved at; None takes the newest. That of a snapshot will do too: then the agent
            is as it was at that step, and the stored steps are those of the newest checkpoint.
        device: where to, as `runtime.device`; None takes the run's own.

    Raises:
        GlamkitError: it holds no run, no checkpoint (or not that one, or a foreign one), or no stored steps; or there
            is no such device.
    """
    run = locate(what)
    if not run.started:
        raise GlamkitError(f"{run.folder} holds no run: there is no config.json in it{nearby(run.folder)}.")
    config = run.config()
    wanted = None if checkpoint is None else coerce("checkpoint", checkpoint, int)
    saved, early = checkpoints.steps(run.checkpoints), checkpoints.steps(run.snapshots)
    if not saved:
        raise GlamkitError(f"{run.folder} holds no checkpoint yet; training writes one now and then and when it ends.")
    if wanted not in (None, *saved, *early):
        more = f"; snapshots, to look at, of {', '.join(map(str, early))}" if early else ""
        held = " and ".join(map(str, saved))
        raise GlamkitError(f"{run.folder} holds no checkpoint of step {wanted}, but those of {held}{more}.")
    state = checkpoints.read(run.checkpoints, wanted) if wanted in saved else checkpoints.load(run.checkpoints) or {}
    machine = Machine(available(config.runtime, device))
    agent, step = _agent(config, state, machine, run), state.get("step")
    if not isinstance(step, int) or step < 0:
        raise GlamkitError(f"the checkpoint in {run.folder} is no trainer's: it does not say its step.")
    replay = Recording(run, step, config, machine.device)
    if not (0 <= int(replay.actions.min()) <= int(replay.actions.max()) < agent.world_model.actions):
        raise GlamkitError(f"the replay in {run.folder} holds actions that the agent does not have.")
    names = _action_names(config, agent.world_model.actions)
    loaded = LoadedRun(run, config, step, agent, machine, replay, names)
    return loaded if wanted in (None, step) else at_step(loaded, wanted)


def at_step(loaded: LoadedRun, step: int) -> LoadedRun:
    """The same run with the agent as it was after `step` steps, from a snapshot or a checkpoint of that step."""
    run = loaded.run
    folder = run.checkpoints if step in checkpoints.steps(run.checkpoints) else run.snapshots
    agent = _agent(loaded.config, checkpoints.read(folder, step), loaded.machine, run)
    return loaded._replace(step=step, agent=agent)


def _agent(config: Config, state: Any, machine: Machine, run: Run) -> Agent:
    """The agent of a checkpoint; how many actions it has is read off the size of the stem."""
    latent, meta = config.world_model.variables * config.world_model.classes, torch.device("meta")
    try:
        weights = state["agent"]
        actions = weights["world_model.stem.0.weight"].shape[1] - latent
        with undisturbed():
            with meta:  # first without memory: a stranger's config may ask for any sizes
                shapes = {name: value.to(meta) for name, value in weights.items()}
                Agent.build(config, actions).load_state_dict(shapes)
            agent = Agent.build(config, actions)
        agent.load_state_dict(weights)
    except Exception as error:  # a stranger's may hold anything
        why = checkpoints.misfit(error)
        raise GlamkitError(f"the checkpoint in {run.folder} does not fit its config.json ({why}).") from None
    agent.to(machine.device).eval().requires_grad_(False)
    agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    # The studio picks rows of memories, which pairs of windows do not have.
    accelerate(agent, machine.device, left_out(config.runtime.accelerate) | {"paired_windows"})
    return agent


def _action_names(config: Config, count: int) -> tuple[str, ...]:
    """What the game calls its actions; numbers where it cannot be opened here."""
    try:
        with closing(make_env(config.env)) as env:
            return tuple(env.action_names)
    except GlamkitError as error:
        logger.warning("%s Its actions are shown as numbers.", error)
        return tuple(f"action {number}" for number in range(count))
