"""Finished runs beside published methods: normalised scores with intervals, and what stands in the way.

`results` reads runs, `aggregates` computes, `page` writes; `compare` explains the difference between two runs.
"""

from glamkit.report.published import published_json
from glamkit.report.report import Report, read_paths

__all__ = ["Report", "published_json", "read_paths"]
