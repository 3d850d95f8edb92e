"""What a reader must know before believing a report's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from glamkit.envs import atari100k
from glamkit.report import aggregates
from glamkit.report.report import Report
from glamkit.report.results import BENCHMARK, STEPS, Result


def notes(report: Report) -> list[str]:
    """Every note, a sentence or two each."""
    return [*about_runs(report), *about_games(report), *about_seeds(report), *about_protocols(report)]


def about_runs(report: Report) -> Iterator[str]:
    """Experiments that differ, small presets and cut games."""
    every = {**report.groups, **report.small}
    if len(every) > 1:
        parts = [f"{name}: {len(group)}" for name, group in every.items()]
        yield f"Runs of unequal settings are never averaged. Runs of each experiment: {'; '.join(parts)}."
    for name, group in every.items():
        config, cut = group[0].config, sum(result.cut for result in group)
        if name in report.small:
            yield (
                f"{name} is no Atari 100k result: it has the preset {config.preset} and {config.trainer.env_steps:,} "
                f"agent steps, not {BENCHMARK} and {STEPS[0]:,}."
            )
        if cut:
            total = sum(len(result.returns) for result in group)
            limit = f"after {config.evaluation.episode_steps:,} steps"
            yield f"{name}: {cut} of {total} evaluation episodes were cut {limit}, so their returns are not whole."
        yield from differing_protocols(name, group)


def differing_protocols(name: str, group: Sequence[Result]) -> Iterator[str]:
    """Entries in which an experiment's protocol cards differ; a game may lack one, as Catch has no sticky actions."""
    for key in dict.fromkeys(key for result in group for key in result.protocol if key != "game"):
        known = (result.protocol[key] for result in group if result.protocol.get(key) is not None)
        values = list(dict.fromkeys(json.dumps(value, sort_keys=True) for value in known))
        if len(values) > 1:
            yield f"{name}: the runs' protocols differ in {key}: {', '.join(values)}."


def about_games(report: Report) -> Iterator[str]:
    """Games that are missing."""
    every, played = atari100k.games(), {game for entry in report.new for game in entry.method.scores}
    if len(report.games) < len(every):
        apart = [game for game in every if game in played and game not in report.games]
        yield (
            f"Games that are there: {len(report.games)} of {len(every)} ({', '.join(report.games)}). Every aggregate "
            "below, the published methods' too, is over these alone and is not the published one."
        )
        if apart:
            yield f"Games left out, as not every experiment has them: {', '.join(apart)}."
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
            yield f"{entry.name} has one mean per game: no IQM and no interval."
        elif high == 1:
            yield f"{entry.name} has one seed per game: nothing says how another would do; there is no interval."
        elif low < high:
            few = [game for game, values in entry.normal.items() if len(values) < high]
            yield f"{entry.name} has {low} to {high} seeds per game; fewer than {high}: {', '.join(few)}."
        if high > 1 and low < 10:
            seeds = f"{high} seeds" if low == high else f"{low} to {high} seeds"
            yield (
                f"{entry.name}: with {seeds} a bootstrap interval of 95 % holds the truth in at most "
                f"{aggregates.coverage([len(runs) for runs in entry.sample]):.0%} of cases; read it as too narrow."
            )


def about_protocols(report: Report) -> Iterator[str]:
    """Differences in how scores were measured."""
    others = [report.entries[name] for name in report.against]
    if report.new:
        every, sticky = [*report.new, *others], []
        for words, value in (("on in", True), ("off in", False), ("not known of", None)):
            names = [entry.name for entry in every if entry.method.protocol.get("sticky") is value]
            sticky += [f"{words} {', '.join(names)}"] if names else []
        yield f"Sticky actions: {'; '.join(sticky)}."
        episodes = [f"{e.episodes.split(' (')[0].split(',')[0]} in {e.name}" for e in every if e.episodes]
        yield f"Episodes behind each run's score: {'; '.join(episodes)}."
    for entry in others:
        if entry.method.suspect:
            yield f"{entry.name}: the published aggregates do not come out of its own scores. {entry.method.notes}"
        low, high = entry.counts
        if entry.method.single and low < high:
            yield f"{entry.name} has {low} to {high} runs per game; its IQM pools them, so games do not count alike."
