"""A report as files: one HTML page that needs nothing else, Markdown, and a LaTeX document of its tables."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

from glamkit.plotting import Picture, count
from glamkit.report import plots, reruns, tables
from glamkit.report.markup import MarkupTable, markdown_text
from glamkit.report.notes import notes
from glamkit.report.report import Report
from glamkit.report.score_table import small_table
from glamkit.runs.files import make_folder, replace_text

TITLE = "Atari 100k report"
FIGURES: Mapping[str, Callable[[Report, bool], Picture | None]] = {
    "curves": plots.curve_figure,
    "aggregates": plots.aggregate_figure,
    "profile": plots.profile_figure,
    "improvement": plots.improvement_figure,
    "games": plots.game_figure,
    "small": plots.small_figure,
}
# On paper each figure has a page of its own; on a phone it is another drawing, as wide as the screen.
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem }
.notes { background: #fff4e0; border-left: 6px solid #D55E00; padding: .6rem 1rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto } figure { margin: 0 } img { max-width: 100%; height: auto } .narrow { display: none }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 }
.scroll + p { color: #555; font-size: 13px; margin-top: .3rem }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #eee; vertical-align: top }
th { border-bottom: 2px solid #999 } th.word, td.word { text-align: left }
td.word { min-width: 6rem; max-width: 22rem; overflow-wrap: anywhere }
td.word:nth-child(-n + 2) { overflow-wrap: break-word }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff }
@media screen and (max-width: 600px) {
  .wide { display: none } .narrow { display: inline }
  body { margin: .5rem auto; padding: 0 .6rem } ul { padding-left: 1.2rem } table { font-size: 12px }
  th, td { padding: .15rem .35rem } td.word { min-width: 5rem; max-width: 9rem }
}
@media print {
  @page { size: A4 landscape; margin: 10mm } body { max-width: none; margin: 0; padding: 0; font-size: 10px }
  section { break-before: page } section h2 { border: 0; margin-top: 0 } figure { break-inside: avoid }
  figure:not(:last-child) { break-after: page } img { max-height: 160mm; width: auto }
  .scroll { overflow: visible } table { font-size: 9px } th, td { padding: 1px 4px } tr { break-inside: avoid }
  td.word { min-width: 0; max-width: 40mm } th:first-child, td:first-child { position: static }
}
"""
# What a document around the tables needs; with it, report.tex is one that pdflatex makes into a PDF.
PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[margin=15mm]{geometry}
\usepackage{array,booktabs,graphicx}
\begin{document}
"""


class PageSection(NamedTuple):
    """A section of the page: figures and tables by their keys, and what they are there to say."""

    title: str
    text: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


PARTS = (
    PageSection(
        "Runs that do not count",
        "Each stands where you looked for runs, and none is in any number below.",
        tables=("left_out",),
    ),
    PageSection(
        "Reward curves and raw returns",
        "Is a result stable over seeds? One good seed proves little.",
        ("curves",),
        ("returns",),
    ),
    PageSection(
        "Over all games",
        "The mean follows a few games of huge scores, the median one or two in the middle. The interquartile mean "
        "(IQM), of the middle half of all runs, is the most robust of them. The optimality gap is how far runs "
        "stay below human. An interval that holds another method's value has not told the two apart.",
        ("aggregates",),
        ("aggregates",),
    ),
    PageSection(
        "How far printed numbers carry",
        "Other groups have run some of these methods again, with their own seeds and machines. A difference between "
        "two methods that is smaller than what a re-run changes is no difference yet.",
        tables=("reruns",),
    ),
    PageSection(
        "Does a single game decide?",
        "Every aggregate again with each game left out. A ranking that turns when one game is missing is no ranking.",
        tables=("sensitivity",),
    ),
    PageSection(
        "All scores, not one number",
        "Where one curve lies above another everywhere, its method is better at any bar.",
        ("profile",),
    ),
    PageSection(
        "Who beats whom?", "On one game drawn at random and one run of each.", ("improvement",), ("improvement",)
    ),
    PageSection("Game by game", "The scores behind everything above.", ("games",), ("games",)),
    PageSection(
        "Small presets, and shorter or longer training",
        "These runs are no Atari 100k results, whatever they score: their models are smaller, or their training was "
        "shorter or longer. They are in no table or figure above.",
        ("small",),
        ("small",),
    ),
    PageSection("Protocols", "Sticky actions, lives and the number of episodes change scores.", tables=("protocols",)),
)


def all_tables(report: Report) -> dict[str, MarkupTable]:
    """Every table that has something to say, by its key; parts of a wide one have a number after it."""
    result = {
        "left_out": tables.left_out_table(report),
        "returns": tables.return_table(report),
        "aggregates": tables.aggregate_table(report),
        "aggregates apart": tables.aggregate_table(report, single=False),
        "reruns": reruns.rerun_table(report),
        "sensitivity": tables.sensitivity_table(report),
        "improvement": tables.improvement_table(report),
        **{f"games {n}": grid for n, grid in enumerate(tables.game_tables(report), 1)},
        "small": small_table(report),
        "protocols": tables.protocol_table(report),
    }
    return {name: grid for name, grid in result.items() if grid is not None and grid.rows}


def of_part(part: PageSection, grids: Mapping[str, MarkupTable]) -> list[MarkupTable]:
    """A section's tables."""
    return [grid for key, grid in grids.items() if key.split()[0] in part.tables]


def headline(report: Report) -> str:
    """What the report is about, in a few sentences."""
    text = f"No runs: {len(report.published)} sets of published scores, recomputed game by game."
    if report.results:
        games, experiments = {result.game for result in report.results}, {**report.groups, **report.small}
        text = f"{count(len(report.results), 'run')} of {count(len(games), 'game')}, "
        text += f"in {count(len(experiments), 'experiment')}."
        text += "" if report.groups else " None of them is an Atari 100k result."
    if report.others:
        text += f" {count(len(report.others), 'method')} of your files."
    for entry in report.new:
        value = entry.values["iqm"]
        if value is not None:
            text += f" {entry.name}: IQM {value:.3f} on {len(entry.normal)} of the 26 games (1 is human)."
    return text


def html(report: Report) -> str:
    """The whole report as one page, pictures inside."""
    grids = all_tables(report)
    known = "".join(f"<li>{escape(note)}</li>" for note in notes(report))
    body = [f"<h1>{TITLE}</h1>", f"<p>{escape(headline(report))}</p>"]
    if known:
        body.append(f'<div class="notes"><b>Before you believe a number</b><ul>{known}</ul></div>')
    for part in PARTS:
        shown = [image(report, key) for key in part.figures]
        shown += [grid.html() for grid in of_part(part, grids)]
        if any(shown):
            body += ["<section>", f"<h2>{escape(part.title)}</h2>", f"<p>{escape(part.text)}</p>", *shown, "</section>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{TITLE}'
    head += f"</title><style>{STYLE}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def image(report: Report, key: str) -> str:
    """A figure as part of the page, with one drawing for a page and one for a phone; empty where there is none."""
    wide, narrow = (FIGURES[key](report, small_screen) for small_screen in (False, True))
    if wide is None or narrow is None:
        return ""
    drawings = "".join(
        f'<img class="{name}" alt="{escape(picture.alt)}" src="{data(picture, dpi)}">'
        for name, picture, dpi in (("wide", wide, 130), ("narrow", narrow, 160))
    )
    return f"<figure>{drawings}</figure>"


def data(picture: Picture, dpi: int) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture.png(dpi=dpi)).decode()}"


def markdown(report: Report) -> str:
    """The notes and tables."""
    grids = all_tables(report)
    lines = [f"# {TITLE}", "", markdown_text(headline(report)), ""]
    known = [f"- {markdown_text(note)}" for note in notes(report)]
    if known:
        lines += ["**Before you believe a number:**", "", *known, ""]
    for part in PARTS:
        shown = of_part(part, grids)
        if shown:
            lines += [f"## {part.title}", "", part.text, "", *(grid.markdown() for grid in shown)]
    return "\n".join(lines)


def latex(grids: Mapping[str, MarkupTable]) -> str:
    """A document of the tables, each in an environment of its own that can be copied into a paper.

    A paper needs the packages array, booktabs and graphicx.
    """
    body = [grid.latex(f"tab:{key.replace(' ', '-')}") for key, grid in grids.items()]
    return PREAMBLE + "\n".join(body) + "\\end{document}\n"


def write(report: Report, folder: Path) -> list[Path]:
    """Writes report.html, report.md and report.tex.

    Returns:
        Their paths.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    make_folder(folder)
    texts = {"report.html": html(report), "report.md": markdown(report), "report.tex": latex(all_tables(report))}
    for name, text in texts.items():
        replace_text(folder / name, text)
    return [folder / name for name in texts]
