"""Finished runs beside published methods: normalised scores with intervals, and what stands in the way.

`results` reads runs and score files, `aggregates` computes, `page` writes; `compare` explains how two runs differ.
"""

from glamkit.report.report import Report
from glamkit.report.score_files import save
from glamkit.report.score_table import score_table

__all__ = ["Report", "save", "score_table"]
