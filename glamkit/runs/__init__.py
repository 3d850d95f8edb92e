"""The run folder: what is stored where, who works in it, its log, its state and its provenance.

`folder` has the paths, `log` the metrics, `session` one trainer's turn at a run.
"""

from glamkit.runs.folder import Run, resolve

__all__ = ["Run", "resolve"]
