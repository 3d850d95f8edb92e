"""Subcommands about the machine and the code: benchmark, parity, doctor, tensorboard."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from glamkit.cli.group import FAILED, examples, glamkit, settings

JSON = click.Path(dir_okay=False, path_type=Path)


@glamkit.command(epilog=examples("glamkit benchmark --preset quick --json speed.json"))
@click.option("--preset", "name", default="atari100k", show_default=True, help="Whose sizes are used.")
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--repeats", default=3, type=click.IntRange(1), show_default=True, help="Rounds that are timed.")
@click.option("--json", "file", type=JSON, metavar="FILE", help="Where the result is written.")
@settings
def benchmark(name: str, device: str | None, repeats: int, file: Path | None, sets: Sequence[str]) -> None:
    """Time training beside the plain way.

    Both compute the same; close other programs first.
    """
    from glamkit.bench import benchmark as bench
    from glamkit.config import add_once, parse_overrides, preset
    from glamkit.notebook import Live

    given = parse_overrides(" ".join(sets))
    if device:
        add_once(given, "runtime.device", device)
    with closing(Live(stream=sys.stderr)) as tell:
        result = bench.measure(preset(name, given), repeats, tell, file)
    click.echo(f"{bench.facts(result)}\n\n{bench.table(result)}")


@glamkit.command(epilog=examples("glamkit parity tests/data/official_agent.npz"))
@click.argument("files", nargs=-1, required=True)
def parity(files: Sequence[str]) -> None:
    """Recompute the released model's outputs.

    FILES are references (.npz), compared array by array.
    """
    from glamkit.bench import parity as bench

    agreed = True
    for file in files:
        text, agrees = bench.in_words(file)
        click.echo(text)
        agreed &= agrees
    sys.exit(0 if agreed else FAILED)


@glamkit.command(epilog=examples("glamkit doctor"))
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine can do.

    And how to mend what it cannot.
    """
    from glamkit.bench import doctor as bench

    findings = bench.examine()
    healthy = all(finding.state != "problem" for finding in findings.values())
    table = {"healthy": healthy, "findings": [{"name": name, **f._asdict()} for name, f in findings.items()]}
    click.echo(json.dumps(table, indent=1) + "\n" if as_json else bench.report(findings), nl=False)
    sys.exit(0 if healthy else FAILED)


@glamkit.command(epilog=examples("glamkit tensorboard runs/pong"))
@click.argument("runs", nargs=-1, required=True)
def tensorboard(runs: Sequence[str]) -> None:
    """Copy logs for TensorBoard.

    RUNS are run folders.
    """
    from glamkit.runs.tensorboard import copy

    for name in runs:
        click.echo(f"tensorboard --logdir {shlex.quote(str(copy(name)))}")
