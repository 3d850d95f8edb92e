"""A report as files: one HTML page that needs nothing else, Markdown, and its tables in LaTeX."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

from glamkit.plotting import Picture, count
from glamkit.report import plots, tables
from glamkit.report.markup import MarkupTable, markdown_text
from glamkit.report.notes import notes
from glamkit.report.report import Report
from glamkit.report.score_table import score_table
from glamkit.runs.files import make_folder, replace_text

TITLE = "Atari 100k report"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem }
.notes { background: #fff4e0; border-left: 6px solid #D55E00; padding: .6rem 1rem; overflow-wrap: anywhere }
figure { margin: 0 } img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 } div + p { color: #555; font-size: 13px }
th, td { padding: .15rem .6rem; border-bottom: 1px solid #eee; vertical-align: top; max-width: 22rem }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff }
@media print { figure, tr { break-inside: avoid } table { font-size: 9px } }
"""


class Section(NamedTuple):
    """A section of the page: what its figure and table are there to say."""

    title: str
    text: str
    figure: Callable[[Report], Picture | None] | None
    table: Callable[[Report], MarkupTable | None] | None


SECTIONS = (
    Section(
        "Runs that do not count",
        "Each stands where you looked for runs, and none is in any number below.",
        None,
        tables.left_out_table,
    ),
    Section(
        "Reward curves and raw returns",
        "Is a result stable over seeds? One good seed proves little.",
        lambda report: plots.curve_figure(report.groups),
        lambda report: score_table(report.groups),
    ),
    Section(
        "Over all games",
        "The mean follows a few games of huge scores, the median one or two in the middle. The interquartile mean "
        "(IQM), of the middle half of all runs, is the most robust of them. The optimality gap is how far runs "
        "stay below human. An interval that holds another method's value has not told the two apart.",
        plots.aggregate_figure,
        tables.aggregate_table,
    ),
    Section(
        "How far printed numbers carry",
        "Other groups have run some of these methods again, with their own seeds and machines. A difference between "
        "two methods that is smaller than what a re-run changes is no difference yet.",
        None,
        tables.rerun_table,
    ),
    Section(
        "Does a single game decide?",
        "Every aggregate again with each game left out. A ranking that turns when one game is missing is no ranking.",
        None,
        tables.sensitivity_table,
    ),
    Section(
        "All scores, not one number",
        "Where one curve lies above another everywhere, its method is better at any bar.",
        plots.profile_figure,
        None,
    ),
    Section(
        "Who beats whom?",
        "On one game drawn at random and one run of each.",
        plots.improvement_figure,
        tables.improvement_table,
    ),
    Section("Game by game", "The scores behind everything above.", plots.game_figure, tables.game_table),
    Section(
        "Small presets, and shorter or longer training",
        "These runs are no Atari 100k results, whatever they score: their models are smaller, or their training was "
        "shorter or longer. They are in no table or figure above.",
        lambda report: plots.curve_figure(report.small),
        lambda report: score_table(report.small),
    ),
    Section(
        "Protocols", "Sticky actions, lives and the number of episodes change scores.", None, tables.protocol_table
    ),
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


def html(report: Report) -> str:
    """The whole report as one page, pictures inside."""
    known = "".join(f"<li>{escape(note)}</li>" for note in notes(report))
    body = [f"<h1>{TITLE}</h1>", f"<p>{escape(headline(report))}</p>"]
    if known:
        body.append(f'<div class="notes"><b>Before you believe a number</b><ul>{known}</ul></div>')
    for part in SECTIONS:
        picture = part.figure(report) if part.figure else None
        table = part.table(report) if part.table else None
        if picture or table:
            body += [f"<h2>{escape(part.title)}</h2>", f"<p>{escape(part.text)}</p>"]
            body += [image(picture)] if picture else []
            body += [table.html()] if table else []
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{TITLE}</title>'
    head += f"<style>{STYLE}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def image(picture: Picture) -> str:
    """A figure as part of the page."""
    data = base64.b64encode(picture.png(dpi=130)).decode()
    return f'<figure><img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}"></figure>'


def markdown(report: Report) -> str:
    """The notes and tables."""
    lines = [f"# {TITLE}", "", markdown_text(headline(report)), ""]
    known = [f"- {markdown_text(note)}" for note in notes(report)]
    if known:
        lines += ["**Before you believe a number:**", "", *known, ""]
    for part in SECTIONS:
        if part.table and (table := part.table(report)):
            lines += [f"## {part.title}", "", part.text, "", table.markdown()]
    return "\n".join(lines)


def latex(report: Report) -> str:
    """The tables, each in an environment of its own that can be copied into a paper; they need the package booktabs."""
    made = [part.table(report) for part in SECTIONS if part.table]
    return "\n".join(table.latex() for table in made if table)


def write(report: Report, folder: Path) -> list[Path]:
    """Writes report.html, report.md and report.tex.

    Returns:
        Their paths.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    make_folder(folder)
    texts = {"report.html": html(report), "report.md": markdown(report), "report.tex": latex(report)}
    for name, text in texts.items():
        replace_text(folder / name, text)
    return [folder / name for name in texts]
