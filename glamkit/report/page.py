"""A report as Markdown: on a terminal without figures, in a folder with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from glamkit.plotting import Picture, count
from glamkit.report import plots, tables
from glamkit.report.markup import MarkupTable, markdown_text
from glamkit.report.notes import notes
from glamkit.report.report import Report
from glamkit.report.score_table import score_table
from glamkit.runs.files import make_folder, replace, replace_text


class Section(NamedTuple):
    """A section of the page: its title, its table, and its figure with a file name, if it has one."""

    title: str
    table: Callable[[Report], MarkupTable | None]
    figure: Callable[[Report], Picture | None] | None = None
    file: str = ""


SECTIONS = (
    Section("Runs that do not count", tables.left_out_table),
    Section(
        "Reward curves and raw returns",
        lambda report: score_table(report.groups),
        lambda report: plots.curve_figure(report.groups),
        "curves.png",
    ),
    Section("Over all games", tables.aggregate_table, plots.aggregate_figure, "aggregates.png"),
    Section("Game by game", tables.game_table, plots.game_figure, "games.png"),
    Section(
        "Small presets, and shorter or longer training",
        lambda report: score_table(report.small),
        lambda report: plots.curve_figure(report.small),
        "small.png",
    ),
    Section("Protocols", tables.protocol_table),
)


def headline(report: Report) -> str:
    """What the report is about, in a few sentences."""
    games, published = {result.game for result in report.results}, len(report.entries) - len(report.new)
    runs = f"{count(len(report.results), 'run')} of {count(len(games), 'game')}" if report.results else "No runs"
    text = f"{runs}; {published} sets of published scores, recomputed game by game."
    if report.results and not report.groups:
        text += " None of the runs is an Atari 100k result."
    for entry in report.new:
        if entry.values["iqm"] is not None:
            text += f" {entry.name}: IQM {entry.values['iqm']:.3f} on {len(entry.normal)} of the 26 games (1 is human)."
    return text


def markdown(report: Report, pictures: Mapping[str, Picture] = {}) -> str:
    """The notes and tables, and links to those figures whose files lie beside the text."""
    lines = ["# Atari 100k report", "", markdown_text(headline(report)), ""]
    known = [f"- {markdown_text(note)}" for note in notes(report)]
    if known:
        lines += ["**Before you believe a number:**", "", *known, ""]
    for part in SECTIONS:
        if table := part.table(report):
            picture = pictures.get(part.file)
            link = [f"![{markdown_text(picture.words())}]({part.file})", ""] if picture else []
            lines += [f"## {part.title}", "", *link, table.markdown()]
    return "\n".join(lines)


def write(report: Report, folder: Path) -> list[Path]:
    """Writes report.md and its figures; returns their paths.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    make_folder(folder)
    pictures = {part.file: picture for part in SECTIONS if part.figure and (picture := part.figure(report))}
    for name, picture in pictures.items():
        replace(folder / name, partial(picture.savefig, format="png", dpi=130))
    replace_text(folder / "report.md", markdown(report, pictures))
    return [folder / name for name in ("report.md", *pictures)]
