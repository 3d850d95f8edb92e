"""Batches of runs: games x seeds x variants, each in a run folder of its own; those of a sweep execute a notebook.

`plan` lists the runs of a batch, `pool` makes them by `local` or `ray`, and `summary` shows their results.
"""

from glamkit.sweeps.ablation import Ablation
from glamkit.sweeps.sweep import Sweep

__all__ = ["Ablation", "Sweep"]
