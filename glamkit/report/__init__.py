"""Finished runs beside published methods: normalised scores with intervals, and what stands in the way.

`results` reads runs, `aggregates` computes, `page` writes; `compare` explains the difference between two runs.
"""

from glamkit.report.report import Report, read_paths

__all__ = ["Report", "read_paths"]
