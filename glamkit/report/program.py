"""The Atari 100k report: runs beside published methods, with intervals and everything that stands in the way.

python -m glamkit.report.program runs/pong-1 runs/boxing-1 --output runs/report
python -m glamkit.report.program --published --json published.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from glamkit.errors import GlamkitError, command
from glamkit.report import page
from glamkit.report.report import AGAINST, REPEATS, Report, published
from glamkit.runs.folder import replace_text


def write_published(path: Path, repeats: int | str) -> None:
    """Writes every shipped method's aggregates as JSON, see `report.published`.

    Raises:
        GlamkitError: the file cannot be written.
    """
    text = json.dumps(published(repeats), indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise GlamkitError(f"{str(path)!r} cannot be written: {error.strerror}.") from None


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m glamkit.report.program",
        description="Compares finished runs with published methods; prints Markdown, and writes HTML and LaTeX too.",
    )
    parser.add_argument("runs", nargs="*", help="run folders, or folders that hold some")
    parser.add_argument("--results", nargs="*", default=[], metavar="FILE", help="result files of others (JSON)")
    parser.add_argument("--against", default=", ".join(AGAINST), help="published methods shown game by game, or all")
    parser.add_argument("--repeats", default=REPEATS, help=f"of the bootstrap (default: {REPEATS})")
    parser.add_argument("--output", help="folder for report.html, report.md and report.tex")
    parser.add_argument("--published", action="store_true", help="the published methods alone, without runs")
    parser.add_argument("--json", metavar="FILE", help="with --published: write their recomputed aggregates here")
    given = parser.parse_args(arguments)
    if given.json and not given.published:
        raise GlamkitError("--json goes with --published; for runs use --output.")
    if given.published and (given.runs or given.results):
        raise GlamkitError("--published takes no runs; leave it out to compare runs with the published methods.")
    if not given.published and not given.runs and not given.results:
        raise GlamkitError("name run folders, or use --published.")
    if given.json:
        write_published(Path(given.json), given.repeats)
        sys.stdout.write(f"{given.json}\n")
        return
    report = Report(given.runs, given.results, given.against, given.repeats)
    sys.stdout.write(page.markdown(report))
    if given.output:
        written = page.write(report, Path(given.output))
        sys.stdout.write("\n" + "".join(f"{path}\n" for path in written))


if __name__ == "__main__":
    sys.exit(main())
