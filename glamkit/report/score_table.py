"""Tables of a few games beside random play, humans and the best known.

    glamkit report notebooks/results/laptop --scores

writes the first; it stands in notebooks/results/README.md, where a test compares it with the files. The other is of
runs that are no Atari 100k results: small presets, and shorter or longer training. They are nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glamkit.envs import atari100k
from glamkit.errors import GlamkitError
from glamkit.plotting import interval
from glamkit.report import score_files
from glamkit.report.markup import MarkupTable
from glamkit.report.report import Report
from glamkit.report.results import Result
from glamkit.report.results import group as by_experiment
from glamkit.report.tables import NONE, raw
from glamkit.runs.provenance import sessions

BESIDE = {"SimPLe": "SimPLe", "STORM": "STORM", "DreamerV3": "DreamerV3 (Nature, 2024 code)"}  # title: published name
HEADER = ("game", "mean return of each seed", "random", "human", "human-normalised", *BESIDE, "strongest", "hours")


def score_table(results: Sequence[Result]) -> MarkupTable:
    """Runs of Atari games: a row for each game, in alphabetical order.

    Raises:
        GlamkitError: the runs are of unequal settings, or none is of an Atari 100k game.
    """
    runs = [result for result in results if result.atari]
    games = sorted({result.game for result in runs})
    if not games:
        raise GlamkitError("none of these runs is of an Atari 100k game; the table compares those alone.")
    first, *rest = (members[0].run.folder for members in by_experiment(runs).values())
    if rest:
        raise GlamkitError(
            f"{rest[0]} has other settings than {first}, and one table cannot hold both: name the runs of one "
            "experiment."
        )
    rows, means = [], []
    for game in games:
        matches = sorted((result for result in runs if result.game == game), key=lambda result: result.seed)
        normal = float(atari100k.normalise({game: np.array([result.score for result in matches])})[game].mean())
        others = {name: published(name, game) for name in BESIDE.values()}
        best = strongest(game)
        means.append([normal, *others.values(), published(best, game)])
        unit = atari100k.games()[game]
        scores = ", ".join(f"{result.score:.1f} ± {error(result.returns):.1f}" for result in matches)
        shown = [f"{value:.2f}" for value in means[-1]]
        hours = ", ".join(map(training_hours, matches))
        row = [game, scores, f"{unit.random:,g}", f"{unit.human:,g}", *shown[:-1], f"{shown[-1]} {best}", hours]
        rows.append(row)
    total = [f"{value:.2f}" for value in np.mean(means, axis=0)]
    rows.append(["mean", "", "0", "1", *total, ""])
    caption = (
        "Mean return ± its standard error over the episodes of the evaluation. The five columns before the hours are "
        "human-normalised: 0 is random play, 1 a human. Strongest: the best of the published methods in that game."
    )
    return MarkupTable(HEADER, rows, caption)


def error(returns: Sequence[float]) -> float:
    """The standard error of a mean; 0 where there is one value alone."""
    return float(np.std(returns, ddof=1)) / len(returns) ** 0.5 if len(returns) > 1 else 0.0


def published(name: str, game: str) -> float:
    """The human-normalised score of a published method in a game."""
    return float(atari100k.normalise({game: atari100k.published()[name].scores[game]})[game].mean())


def strongest(game: str) -> str:
    """The published method with the highest score in a game."""
    return max(atari100k.published(), key=lambda name: published(name, game))


def small_table(report: Report) -> MarkupTable | None:
    """Scores of runs that are no Atari 100k results, with published ones of the same game; None without such runs."""
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


def cells(group: Sequence[Result]) -> list[str]:
    """A row's cells from the number of seeds on, of one game's runs of one experiment."""
    values = [result.score for result in group]
    ends = interval(values)
    row = [str(len(values)), f"{np.mean(values):.2f}", f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "one seed: none"]
    row += scale(group[0].game, values) if group[0].atari else [NONE] * (4 + len(BESIDE))
    seeds = ", ".join(f"{result.seed}: {result.score:.2f}" for result in group)
    hours = dict.fromkeys(map(training_hours, group))
    machines = dict.fromkeys(name for result in group if (name := machine(result)))
    return [*row, seeds, ", ".join(hours), "; ".join(machines) or "unknown"]


def scale(game: str, values: Sequence[float]) -> list[str]:
    """HNS, random play's and a human's score, the published ones, and the strongest of all with its name."""
    unit, every, best = atari100k.games()[game], atari100k.published(), strongest(game)
    normal = atari100k.normalise({game: np.array(values)})[game].mean()
    others = [raw(float(every[name].scores[game].mean())) for name in (*BESIDE.values(), best)]
    return [f"{normal:.2f}", raw(unit.random), raw(unit.human), *others[:-1], f"{others[-1]} ({best})"]


def training_hours(result: Result) -> str:
    """The hours that a run was trained; a dash for a shared run, whose log is not whole."""
    return NONE if result.run.shared else f"{result.training().seconds / 3600:.1f}"


def machine(result: Result) -> str:
    """What a run was trained on; empty where nothing says."""
    if result.run.folder.is_file():
        return str(score_files.read(result.run.folder)["machine"]["device_name"])
    table = next((entry.get("machine") for entry in reversed(sessions(result.run.provenance_file))), None)
    return str(table.get("device_name") or "") if isinstance(table, dict) else ""
