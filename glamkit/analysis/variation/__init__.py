"""The variation lens: what the global and the local branch make of real steps, and what they predict to change.

A `Lens` reads steps, `metrics` measures what was read, and the plots show it. Notebook 04 follows them.
"""

from glamkit.analysis.variation.lens import Lens

__all__ = ["Lens"]
