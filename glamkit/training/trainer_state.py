"""What a trainer tells, and its state: all from which its run can go on but the stored steps, which have own files."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch

from glamkit.runtime import random_state, set_random_state
from glamkit.training import checkpoint

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """Something to tell of.

    Its kind is ``step``, ``log``, ``episode``, ``evaluation``, ``crash``, ``saved``, ``stopped`` or ``done``.
    """

    kind: str
    step: int
    metrics: dict[str, float]


def gather(trainer: Any) -> dict[str, Any]:
    """The state in plain numbers, text and tensors."""
    return {
        "step": trainer.step,
        "agent": trainer.agent.state_dict(),
        **{f"{name}_optimizer": optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        "replay": trainer.replay.state_dict(),
        "past": trainer.past.state_dict(),
        "means": trainer.means.state_dict(),
        "log_size": trainer.log.size,
        "episode": dict(trainer.episode),
        "frame": torch.from_numpy(trainer.frame.copy()),
        "env": trainer.env.clone(),
        "random": random_state(),
    }


def restore(trainer: Any, state: dict[str, Any]) -> None:
    """Inverse of `gather`, but for the game; the stored steps are read from the run folder.

    Raises:
        ValueError: the state (something else of the kind if far off) is another experiment's.
        GlamkitError: stored steps are missing or damaged.
    """
    check(trainer, state)
    trainer.agent.load_state_dict(state["agent"])
    for name, optimizer in trainer.optimizers.items():
        checkpoint.load_optimizer(optimizer, state[f"{name}_optimizer"])
    trainer.replay.load_state_dict(state["replay"])
    checkpoint.load_replay(trainer.run.replay, trainer.replay)
    trainer.past.load_state_dict(state["past"])
    trainer.means.load_state_dict(state["means"])
    trainer.log.cut(state["log_size"])
    trainer.step = trainer.saved = trainer.stored = state["step"]
    trainer.episode, trainer.frame = state["episode"], state["frame"].numpy()
    set_random_state(state["random"])


def resume(trainer: Any) -> bool:
    """Goes on from the newest checkpoint that can be used; returns whether there is one.

    The game is put back last: one that cannot be played is no fault of the checkpoint, and loses none.

    Raises:
        GlamkitError: there are some and none can be used, or the game cannot be played.
    """
    state = checkpoint.load(trainer.run.checkpoints, lambda state: restore(trainer, state))
    if state is None:
        return False
    trainer.reopen_game(state["env"])
    set_random_state(state["random"])  # once more: a game may have drawn
    return True


def check(trainer: Any, state: dict[str, Any]) -> None:
    """Makes sure that a state is one of the trainer's experiment, and of whole steps.

    Raises:
        ValueError: it is not.
    """
    own: dict[str, Any] = {"step": 0, "log_size": 0, "episode": {"return": 0.0, "length": 0}}
    size = trainer.config.env.image_size
    own |= {"frame": torch.zeros(size, size, 3, dtype=torch.uint8), "agent": trainer.agent.state_dict()}
    own |= {"past": trainer.past.state_dict(), "replay": trainer.replay.state_dict()}
    for name, value in own.items():
        checkpoint.require_like(value, state[name], name)
    if not isinstance(state["env"], dict):
        raise ValueError(f"env is a {type(state['env']).__name__}, not a dict")
    if not 0 <= state["step"] == state["replay"]["count"]:
        raise ValueError(f"it has made {state['step']} steps and stored {state['replay']['count']}")
