"""The training loop and what it needs: updates, replay, checkpoints, guards, diagnostics, evaluation.

`trainer` is Algorithm 1 of the paper. Optimisers, autocast and compilers appear in this package only.
"""

from glamkit.training.evaluation import evaluate
from glamkit.training.load import open_run
from glamkit.training.replay import Replay
from glamkit.training.trainer import Event, Trainer

__all__ = ["Event", "Replay", "Trainer", "evaluate", "open_run"]
