"""Batches of runs: games x seeds x variants, each an executed notebook in a run folder of its own.

`plan` says what belongs to a batch, `pool` and `ray` run it, `summary` says what came of it.
"""

from glamkit.sweeps.ablation import Ablation
from glamkit.sweeps.sweep import Sweep

__all__ = ["Ablation", "Sweep"]
