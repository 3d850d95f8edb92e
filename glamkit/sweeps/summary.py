"""Results of a variant's seeds: scores with an interval as a table, learning curves and scores as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.config import Config
from glamkit.plotting import GREY, Entries, Picture
from glamkit.runs import log
from glamkit.sweeps.job import Job

PLACES = 60  # at which a learning curve is drawn


class VariantSummary(NamedTuple):
    """The results of one run, so far."""

    score: float | None  # mean return of the final evaluation; None before it
    steps: np.ndarray  # (episodes,) agent steps at which training episodes ended
    returns: np.ndarray  # (episodes,) their returns
    random: np.ndarray  # returns of the episodes that ended while actions were random
    seconds: float  # of training, from the speeds in the log
    env_steps: int  # agent steps of the whole run
    cut: int = 0  # agent steps after which games of the final evaluation were cut; 0 if all are whole


def read(job: Job) -> VariantSummary:
    """The results in a run folder, however far the run is."""
    score, cut = job.final()
    entries = log.added(job.run.log_file)[0]  # damaged lines are passed over
    return of_log(entries, job.config)._replace(score=score, cut=cut)


def of_log(entries: Entries, config: Config) -> VariantSummary:
    """The results in the lines of a run's log, which do not have the score."""
    steps, returns = (np.asarray(part, float) for part in plotting.series(entries, "episode/return"))
    seconds, before = 0.0, 0
    for step, speed in zip(*plotting.series(entries, "time/steps_per_second"), strict=True):
        seconds, before = seconds + (step - before) / max(speed, 1e-9), step
    chance = steps <= config.random_steps
    return VariantSummary(None, steps, returns, returns[chance], seconds, config.trainer.env_steps)


def curve(outcome: VariantSummary, grid: np.ndarray) -> np.ndarray:
    """Mean return of the episodes that ended in the tenth of training up to each grid step, both (places,).

    If none ended there, the value before is repeated. Before the first episode and after the last it is nan.
    """
    span, result, value = grid[-1] / 10, np.full(len(grid), np.nan), np.nan
    last = outcome.steps[-1] if len(outcome.steps) else -np.inf
    for place, step in enumerate(grid):
        recent = outcome.returns[(outcome.steps > step - span) & (outcome.steps <= step)]
        value = float(recent.mean()) if len(recent) else value
        result[place] = value if step - span <= last else np.nan
    return result


def cut_games(outcomes: Iterable[VariantSummary]) -> str:
    """What a mean return is of if games were cut, ``of games cut after 500 steps``; else empty."""
    limit = max((outcome.cut for outcome in outcomes), default=0)
    return f"of games cut after {limit:,} steps" if limit else ""


def rows(groups: Mapping[str, Sequence[VariantSummary]]) -> list[tuple[str, ...]]:
    """A header, and for each variant: finished runs, mean return of evaluations, 95 % interval, minutes."""
    lines: list[tuple[str, ...]] = [("variant", "runs", "mean return", "95 % interval", "minutes a run")]
    for name, outcomes in groups.items():
        scores = [outcome.score for outcome in outcomes if outcome.score is not None]
        seconds = [outcome.seconds for outcome in outcomes if outcome.score is not None]
        spread = plotting.interval(scores)
        runs = f"{len(scores)} of {len(outcomes)}"
        mean = f"{np.mean(scores):.2f} {cut_games(outcomes)}".rstrip() if scores else "-"
        interval = f"{spread[0]:.2f} to {spread[1]:.2f}" if spread else "-"
        lines.append((name, runs, mean, interval, f"{np.mean(seconds) / 60:.1f}" if seconds else "-"))
    return lines


@plotting.style
def figure(groups: Mapping[str, Mapping[str, Sequence[VariantSummary]]], title: str) -> Picture:
    """A row for each of `groups`: learning curves of its variants on the left, final scores on the right."""
    picture, grid = plotting.figure(plotting.WIDE, 1 + 3 * len(groups), len(groups), 2, width_ratios=(3, 2))
    for (left, right), (name, variants) in zip(grid, groups.items(), strict=True):
        draw_curves(left, variants)
        draw_scores(right, variants)
        left.set_title(plotting.lines(name, 3.6))
        right.set_title("Final evaluation")
        row = [outcome for outcomes in variants.values() for outcome in outcomes]
        random = np.concatenate([outcome.random for outcome in row])
        if len(random):
            for line in (left.axhline,) if cut_games(row) else (left.axhline, right.axvline):
                line(random.mean(), color=GREY, ls=":", lw=1, label="random actions")  # of whole games
        plotting.legend_below(left, 2)
    text = "Left: mean over seeds, band from the lowest to the highest seed. Right: seeds, mean and 95 % interval"
    if max(len(outcomes) for variants in groups.values() for outcomes in variants.values()) < 2:
        text = "One seed each: no band and no interval, and nothing says how another seed would do"
    plotting.heading(picture, f"{title}\n{text}")
    return picture


def draw_curves(axes: Axes, groups: Mapping[str, Sequence[VariantSummary]]) -> None:
    """Draws the mean and the range over seeds of each variant's training returns, up to the end of its own runs."""
    ends = [max((outcome.env_steps for outcome in outcomes), default=0) for outcomes in groups.values()]
    for place, (name, outcomes) in enumerate(groups.items()):
        colour, dashes, _ = plotting.look(place)
        grid = np.linspace(0, ends[place], PLACES + 1)[1:]
        result = np.array([curve(outcome, grid) for outcome in outcomes if len(outcome.returns)])  # (seeds, places)
        if not len(result):
            continue
        known = ~np.isnan(result).all(0)
        steps, band = grid[known], result[:, known]
        axes.fill_between(steps, np.nanmin(band, 0), np.nanmax(band, 0), color=colour, alpha=0.15, lw=0)
        axes.plot(steps, np.nanmean(band, 0), color=colour, ls=dashes, label=name)
    if not axes.lines:
        axes.text(0.02, 0.5, "no game has ended yet", color=GREY, va="center", transform=axes.transAxes)
    axes.set_xlim(0, 1.03 * max(ends))  # the last point is whole
    plotting.label(axes, "return in training")


def draw_scores(axes: Axes, groups: Mapping[str, Sequence[VariantSummary]]) -> None:
    """Draws the final scores of each variant's seeds, their mean and its interval."""
    for place, outcomes in enumerate(groups.values()):
        colour, _, marker = plotting.look(place)
        scores = [outcome.score for outcome in outcomes if outcome.score is not None]
        axes.plot(scores, [place] * len(scores), marker, ms=4, color=colour)
        if not scores:
            words = axes.get_yaxis_transform()
            axes.text(0.02, place, "no run is finished yet", color=GREY, va="center", transform=words)
            continue
        axes.plot(np.mean(scores), place, "|", ms=18, mew=2, color=colour)
        if spread := plotting.interval(scores):
            axes.plot(spread, [place, place], color=colour, lw=7, alpha=0.3, solid_capstyle="butt")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(f"mean return\n{cut_games(outcome for part in groups.values() for outcome in part)}".rstrip())
