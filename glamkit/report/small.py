"""Runs that are no Atari 100k results: small presets, and shorter or longer training, under a heading of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from glamkit.envs import atari100k
from glamkit.report.markup import MarkupTable
from glamkit.report.report import Report
from glamkit.report.results import Result
from glamkit.report.tables import NONE, raw
from glamkit.sweeps import summary

BESIDE = ("SimPLe", "STORM", "DreamerV3 (Nature, 2024 code)")  # published scores to see these beside


def small_table(report: Report) -> MarkupTable | None:
    """Scores of such runs, with published ones of the same game for scale; None where there are no such runs."""
    rows = []
    for name, group in report.small.items():
        for game in dict.fromkeys(result.game for result in group):
            rows.append([name, game, *cells([result for result in group if result.game == game])])
    header = ["runs", "game", "seeds", "mean return", "95 % interval", "HNS", "random", "human", *BESIDE]
    header += ["strongest", "each seed's", "hours a run", "machine"]
    caption = (
        "Raw mean returns of the final evaluations. HNS: (score - random) / (human - random). None of these runs is an "
        "Atari 100k result, and none is in any other table. Interval: Student's t over the seeds' means."
    )
    return MarkupTable(header, rows, caption, 2) if rows else None


def cells(group: list[Result]) -> list[str]:
    """A row's cells from the number of seeds on, of one game's runs of one experiment."""
    game, values = group[0].game, [result.score for result in group]
    ends = summary.interval(values)
    row = [str(len(values)), f"{np.mean(values):.2f}", f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "one seed: none"]
    row += scale(game, values) if group[0].atari else [NONE] * (4 + len(BESIDE))
    hours = [result.hours for result in group if result.hours is not None]
    machines = dict.fromkeys(result.machine for result in group if result.machine)
    seeds = ", ".join(f"{result.seed}: {result.score:.2f}" for result in group)
    return [*row, seeds, f"{np.mean(hours):.1f}" if hours else "unknown", "; ".join(machines) or "unknown"]


def scale(game: str, values: list[float]) -> list[str]:
    """HNS, random play's and a human's score, the published ones, and the strongest of all with its name."""
    unit, every = atari100k.games()[game], atari100k.published()
    normal = atari100k.normalise({game: np.array(values)})[game].mean()
    best = max(every, key=lambda name: every[name].scores[game].mean())
    published: list[Any] = [raw(float(every[name].scores[game].mean())) for name in BESIDE]
    top = f"{raw(float(every[best].scores[game].mean()))} ({best})"
    return [f"{normal:.2f}", raw(unit.random), raw(unit.human), *published, top]
