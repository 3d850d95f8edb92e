"""A run opened to be looked into: its agent and its stored steps, read-only.

Nothing here takes part in training. No file of the run is written, moved or removed, so a run may be opened while it is
being trained; what is seen then is its newest checkpoint or snapshot.
"""

from __future__ import annotations

import contextlib
import logging
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
from glamkit.runtime import Machine, available, undisturbed
from glamkit.training import checkpoint as checkpoints
from glamkit.training.accelerate import accelerate, left_out
from glamkit.training.checkpoint import ReplayPart, parts, read_part, span
from glamkit.training.replay import Replay
from glamkit.training.shared_runs import locate
from glamkit.types import Batch

OUTCOMES = ("actions", "rewards", "terminations")
logger = logging.getLogger(__name__)


class Recording(Replay):
    """The stored steps of a run, to read only.

    Actions, rewards and terminations are read at once; frames, which are nearly all of it, only when a window needs
    them: so opening takes no longer for a long run than for a short one.

    Args:
        run: whose stored steps they are.
        count: steps stored when the checkpoint was written; what came later is not looked at.
        config: of the run.
        device: where windows are wanted.

    Raises:
        GlamkitError: a part is missing or damaged.
    """

    def __init__(self, run: Run, count: int, config: Config, device: torch.device) -> None:
        there = [span(path)[0] for path in run.replay.glob("*.npz")]  # a shared run has the newest steps alone
        if not there:
            raise GlamkitError(f"{run.replay} holds no replay, so there are no real steps to start from.")
        self.first = min(there) if run.shared else max(0, count - config.replay.capacity)
        rows = max(count - self.first, 64)  # no more memory than there are steps, whatever the run was allowed
        super().__init__(replace(config.replay, capacity=rows), config.env.image_size, device)
        self.count = count
        self.unread = parts(run.replay, self.oldest, count)
        for part in self.unread:
            self._read(part, OUTCOMES)

    def __len__(self) -> int:
        return min(super().__len__(), self.count - self.first)

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
        for part in [part for part in self.unread if part.first < last and first < part.last]:
            self._read(part, ("frames",))
            self.unread.remove(part)

    def _read(self, part: ReplayPart, names: tuple[str, ...]) -> None:
        self.load_part(part.first, read_part(part.path, part.last - part.first, self.size, names))


class LoadedRun(NamedTuple):
    """A run to look into."""

    run: Run
    config: Config
    step: int  # agent steps trained when the checkpoint was written
    agent: Agent  # in evaluation mode, without gradients
    machine: Machine
    replay: Replay
    actions: tuple[str, ...]  # their names


def open_run(what: str | Path, checkpoint: int | None = None, snapshots: bool = True) -> LoadedRun:
    """Opens a run without disturbing whoever may be training it.

    It opens wherever it can: a device that it was trained on and that is not here gives way to `auto`.

    Args:
        what: a run folder, a shared file, or the name of a shipped run such as ``catch``; a relative path counts from
            the checkout.
        checkpoint: the step it was saved at; None takes the newest. That of a snapshot will do too: then the agent
            is as it was at that step, and the stored steps are those of the newest checkpoint.
        snapshots: whether None may take a snapshot that is newer than the newest checkpoint, as in a run that is
            still training; who needs weights that are not rounded says no.

    Raises:
        GlamkitError: it holds no run, no checkpoint (or not that one, or a foreign one), or no stored steps.
    """
    run = locate(what)
    if not run.started:
        raise GlamkitError(f"{run.folder} holds no run: there is no config.json in it{nearby(run.folder)}.")
    config = run.config()
    wanted = None if checkpoint is None else coerce("checkpoint", checkpoint, int)
    early = wanted if wanted in checkpoints.steps(run.snapshots) and wanted not in checkpoint_steps(run) else None
    weights, step = _known(_state(run, wanted if early is None else None), run)
    machine = Machine(available(config.runtime))
    with undisturbed():
        agent = _agent(config, weights, machine, run)
    replay = Recording(run, step, config, machine.device)
    if not (0 <= int(replay.actions.min()) <= int(replay.actions.max()) < agent.world_model.actions):
        raise GlamkitError(f"the replay in {run.folder} holds actions that the agent does not have.")
    names = _action_names(config, agent.world_model.actions)
    loaded = LoadedRun(run, config, step, agent, machine, replay, names)
    if early is not None:
        return at_step(loaded, early)
    newer = [number for number in checkpoints.steps(run.snapshots) if number > step]
    if wanted is None and snapshots and newer:
        with contextlib.suppress(GlamkitError):  # damaged: the checkpoint will do
            return at_step(loaded, newer[-1])
    return loaded


def at_step(loaded: LoadedRun, step: int) -> LoadedRun:
    """The same run with the agent as it was after `step` steps: there is a snapshot or a checkpoint of that step.

    Raises:
        GlamkitError: there is neither, or it is damaged.
    """
    run = loaded.run
    folder = run.checkpoints if step in checkpoint_steps(run) else run.snapshots
    state = checkpoints.read(folder / f"{step:09d}.pt")
    with undisturbed():
        agent = _agent(loaded.config, state.get("agent"), loaded.machine, run)
    return loaded._replace(step=step, agent=agent)


def checkpoint_steps(run: Run) -> list[int]:
    """The steps of which the run holds checkpoints, oldest first."""
    return checkpoints.steps(run.checkpoints)


def viewable_steps(run: Run) -> list[int]:
    """The steps at which the agent can be seen: those of snapshots and of checkpoints, oldest first."""
    return sorted({*checkpoints.steps(run.snapshots), *checkpoint_steps(run)})


def _state(run: Run, wanted: int | None) -> dict[str, Any]:
    there = checkpoint_steps(run)
    if not there:
        raise GlamkitError(f"{run.folder} holds no checkpoint yet; training writes one now and then and when it ends.")
    if wanted is None:
        state = checkpoints.load(run.checkpoints)
        assert state is not None
        return state
    if wanted not in there:
        names = " and ".join(map(str, there))
        early = ", ".join(str(step) for step in checkpoints.steps(run.snapshots) if step not in there)
        more = f"; snapshots, to look at, of {early}" if early else ""
        raise GlamkitError(f"{run.folder} holds no checkpoint of step {wanted}, but those of {names}{more}.")
    return checkpoints.read(run.checkpoints / f"{wanted:09d}.pt")


def _known(state: dict[str, Any], run: Run) -> tuple[dict[str, Any], int]:
    """The agent's weights in a state, and its step, which is also how many steps a trainer has stored by then.

    Raises:
        GlamkitError: it is another program's state.
    """
    match state:
        case {"agent": dict(weights), "step": int(step), "replay": {"count": int(count)}} if 0 <= step == count:
            return weights, step
    raise GlamkitError(
        f"the checkpoint in {run.folder} is no trainer's: it does not hold an agent, its step and as many stored steps."
    )


def _agent(config: Config, state: Any, machine: Machine, run: Run) -> Agent:
    """The agent of a state; how many actions it has is read off the size of the stem."""
    latent = config.world_model.variables * config.world_model.classes
    try:
        actions = max(state["world_model.stem.0.weight"].shape[1] - latent, 1)
        shapes = torch.device("meta")
        with shapes:  # first without memory: a stranger's config may ask for any sizes
            agent = Agent.build(config, actions)
            agent.load_state_dict({name: value.to(shapes) for name, value in state.items()})
        for name, own in agent.state_dict().items():
            if own.is_floating_point() != state[name].is_floating_point():
                raise TypeError(f"{name} is of another type")
        agent = Agent.build(config, actions)
        agent.load_state_dict(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise GlamkitError(f"the checkpoint in {run.folder} does not fit its config.json ({reason}).") from None
    agent.to(machine.device).eval().requires_grad_(False)
    agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    # The studio picks rows of memories, which pairs of windows do not have.
    accelerate(agent, machine.device, left_out(config.runtime.accelerate) | {"paired_windows"})
    return agent


def _action_names(config: Config, count: int) -> tuple[str, ...]:
    """What the game calls its actions; numbers where it cannot be opened here."""
    try:
        env = make_env(config.env)
    except GlamkitError as error:
        logger.warning("%s Its actions are shown as numbers.", error)
        return tuple(f"action {number}" for number in range(count))
    names = tuple(env.action_names)
    env.close()
    return names
