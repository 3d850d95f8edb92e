"""A trainer's state: all from which its run can go on but the stored steps, which have their own files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from glamkit.errors import reason
from glamkit.runtime import random_state, set_random_state
from glamkit.training import checkpoint

if TYPE_CHECKING:
    from glamkit.training.trainer import Trainer

logger = logging.getLogger(__name__)


def gather(trainer: Trainer) -> dict[str, Any]:
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


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Inverse of `gather`, but for the game and the random numbers; stored steps are read from the run folder.

    Raises:
        GlamkitError: stored steps are missing or damaged.
        RuntimeError, ValueError, LookupError: the state is another experiment's.
    """
    trainer.agent.load_state_dict(state["agent"])
    for name, optimizer in trainer.optimizers.items():
        optimizer.load_state_dict(state[f"{name}_optimizer"])
    trainer.replay.load_state_dict(state["replay"])
    checkpoint.load_replay(trainer.run.replay, trainer.replay)
    trainer.past.load_state_dict(state["past"])
    trainer.means.load_state_dict(state["means"])
    trainer.log.cut(state["log_size"])
    trainer.step = trainer.saved = trainer.stored = state["step"]
    trainer.episode, trainer.frame = state["episode"], state["frame"].numpy()


def resume(trainer: Trainer) -> bool:
    """Goes on from the newest checkpoint that can be used; returns whether there is one.

    Raises:
        GlamkitError: there are some and none can be used, or the game cannot be played.
    """
    state = checkpoint.load(trainer.run.checkpoints, lambda state: restore(trainer, state))
    if state is None:
        return False
    try:  # last: a game that cannot be played is no fault of the checkpoint, and loses none
        trainer.env.restore(state["env"])
    except Exception as error:  # a game with randomness of its own, or whatever a stranger's game raises
        logger.warning("%s. A new episode is started.", reason(error))
        trainer.restart_game()
    set_random_state(state["random"])  # a game may have drawn
    return True
