"""The dream studio: stand inside a run's imagination, act there, go back, try something else, save it."""

from glamkit.analysis.studio.studio import Dream

__all__ = ["Dream"]
