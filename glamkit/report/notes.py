"""What a reader must know before believing a report's numbers."""

from __future__ import annotations

from collections.abc import Iterator

from glamkit.envs import atari100k
from glamkit.plotting import count
from glamkit.report import aggregates, results
from glamkit.report.report import Report
from glamkit.report.results import BENCHMARK, STEPS


def notes(report: Report) -> list[str]:
    """Every note, a sentence or two each."""
    return [*about_runs(report), *about_games(report), *about_seeds(report), *about_protocols(report)]


def about_runs(report: Report) -> Iterator[str]:
    """Runs that do not count, and experiments that differ."""
    if report.left_out:
        yield f"{count(len(report.left_out), 'run')} left out; the reasons are in the table of runs that do not count."
    every = {**report.groups, **report.small}
    if len(every) > 1:
        parts = [f"{name} ({count(len(group), 'run')})" for name, group in every.items()]
        settings = f"{len(every)} experiments with unequal settings"
        yield f"The runs are of {settings}, which are never averaged: {'; '.join(parts)}."
    for name, group in every.items():
        config, cut = group[0].config, sum(result.cut for result in group)
        steps = config.trainer.env_steps
        if not STEPS[0] <= steps <= STEPS[1]:
            yield f"{name} trained {steps:,} agent steps, not {STEPS[0]:,}: no Atari 100k result."
        elif name in report.small:
            yield f"{name} is not of the preset {BENCHMARK}: no Atari 100k result, and under a heading of its own."
        if cut:
            total = sum(len(result.returns) for result in group)
            limit = f"after {config.evaluation.episode_steps:,} steps"
            yield f"{name}: {cut} of {total} evaluation episodes were cut {limit}, so their returns are not whole."
        for kind in (True, False):  # other games have no sticky actions that could differ
            for key, values in results.protocols([r for r in group if r.console is kind]):
                yield f"{name}: the runs' protocols differ in {key}: {', '.join(values)}."


def about_games(report: Report) -> Iterator[str]:
    """Games that are missing."""
    every = atari100k.games()
    if len(report.games) < len(every):
        missing = [game for game in every if game not in report.games]
        there = "is" if len(report.games) == 1 else "are"
        yield (
            f"Only {len(report.games)} of the {len(every)} games {there} there ({', '.join(report.games)}). Every "
            f"aggregate below, the published methods' too, is over these alone and is not the published one. "
            f"Missing: {', '.join(missing)}."
        )
    for entry in report.new:
        if set(entry.normal) != set(report.games):
            yield (
                f"{entry.name} has {len(entry.normal)} of the {len(report.games)} games that are compared "
                f"({', '.join(entry.normal)}): its aggregates cannot be compared with the others'."
            )
    raw = sorted({result.game for result in report.results if not result.atari})
    if raw:
        yield f"No human score is known for {', '.join(raw)}: raw returns only, outside of all aggregates."


def about_seeds(report: Report) -> Iterator[str]:
    """Runs per game: how many, and what that does to the intervals."""
    for entry in report.new:
        low, high = entry.counts
        if not entry.method.single:
            yield f"{entry.name} has one mean per game: no IQM, no interval, no probability of improvement."
        elif high == 1:
            yield f"{entry.name} has one seed per game: nothing says how another would do; there is no interval."
        elif low < high:
            few = [game for game, values in entry.normal.items() if len(values) < high]
            yield f"{entry.name} has {low} to {high} seeds per game; fewer than {high}: {', '.join(few)}."
        if 1 < high < 10:
            yield (
                f"{entry.name}: with {high} seeds a bootstrap interval of 95 % holds the truth in at most "
                f"{aggregates.coverage(high):.0%} of cases; read it as too narrow."
            )


def about_protocols(report: Report) -> Iterator[str]:
    """Differences in how scores were measured."""
    others = [report.entries[name] for name in report.against]
    for entry in report.new:
        if entry.sticky is None:
            yield f"Whether sticky actions were on is not known of {entry.name}."
        else:
            here, there = ("on", "off") if entry.sticky else ("off", "on")
            differing = [e.name for e in others if e.sticky is (not entry.sticky)]
            unknown = [e.name for e in others if e.sticky is None]
            if differing:
                yield f"Sticky actions: {here} in {entry.name}, {there} in {', '.join(differing)}."
            if unknown:
                yield f"Whether sticky actions were on is not known of {', '.join(unknown)}."
        behind = [f"{e.episodes.split(' (')[0].split(',')[0]} in {e.name}" for e in others if e.episodes]
        if entry.episodes and behind:
            yield f"Episodes behind each run's score: {entry.episodes} in {entry.name}; {'; '.join(behind)}."
    for name in report.against:
        entry = report.entries[name]
        if entry.method.suspect:
            yield f"{name}: the published aggregates do not come out of its own scores. {entry.method.notes}"
        low, high = entry.counts
        if entry.method.single and low < high:
            yield f"{name} has {low} to {high} runs per game; its IQM pools them, so games do not count alike."
