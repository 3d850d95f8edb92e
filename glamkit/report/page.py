"""A report as files: one HTML page that needs nothing else, Markdown, and LaTeX tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

from glamkit.errors import GlamkitError
from glamkit.plotting import Picture
from glamkit.report.markup import MarkupTable, markdown_text
from glamkit.report.notes import notes
from glamkit.report.plots import FIGURES
from glamkit.report.report import Report, runs
from glamkit.report.tables import all_tables
from glamkit.runs.folder import replace_text

TITLE = "Atari 100k report"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem }
.notes { background: #fff4e0; border-left: 6px solid #D55E00; padding: .6rem 1rem }
.scroll { overflow-x: auto } img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 }
caption { caption-side: bottom; text-align: left; color: #555; padding-top: .3rem }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #eee; vertical-align: top }
th { border-bottom: 2px solid #999 } th.word, td.word { text-align: left }
"""


class PageSection(NamedTuple):
    """A section of the page: figures and tables by their keys, and what they are there to say."""

    title: str
    text: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]


PARTS = (
    PageSection(
        "Runs that do not count",
        "Each was found where you looked for runs, and none is in any number below.",
        (),
        ("left_out",),
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
        "(IQM), of the middle half of all runs, is the most robust of them, and the optimality gap says how far runs "
        "stay below human. An interval that holds another method's value has not told the two apart.",
        ("aggregates",),
        ("aggregates",),
    ),
    PageSection(
        "A printed number that cannot be recomputed",
        "What a single game does to a headline.",
        (),
        ("suspect",),
    ),
    PageSection(
        "Does a single game decide?",
        "Every aggregate again with each game left out. A ranking that turns when one game is missing is no ranking.",
        ("sensitivity",),
        ("sensitivity",),
    ),
    PageSection(
        "All scores, not one number",
        "Where one curve lies above another everywhere, its method is better at any bar.",
        ("profile",),
        (),
    ),
    PageSection(
        "Who beats whom?", "On one game drawn at random and one run of each.", ("improvement",), ("improvement",)
    ),
    PageSection("Game by game", "The scores behind everything above.", ("games",), ("games",)),
    PageSection("Protocols", "Sticky actions, lives and the number of episodes change scores.", (), ("protocols",)),
)


def headline(report: Report) -> str:
    """What the report is about, in two sentences."""
    if not report.results:
        return f"No runs: {len(report.entries)} published methods, recomputed from their per-game scores."
    count, games = len(report.results), len({result.game for result in report.results})
    text = f"{runs(count)} of {games} {'game' if games == 1 else 'games'}, "
    text += f"in {len(report.groups)} {'experiment' if len(report.groups) == 1 else 'experiments'}."
    for entry in report.new:
        value = entry.values["iqm"]
        if value is not None:
            text += f" {entry.name}: IQM {value:.3f} on {len(entry.normal)} of the 26 games (1 is human)."
    return text


def html(report: Report) -> str:
    """The whole report as one page, pictures inside."""
    tables = all_tables(report)
    pictures = {key: picture for key, draw in FIGURES.items() if (picture := draw(report)) is not None}
    known = "".join(f"<li>{escape(note)}</li>" for note in notes(report))
    body = [f"<h1>{TITLE}</h1>", f"<p>{escape(headline(report))}</p>"]
    if known:
        body.append(f'<div class="notes"><b>Before you believe a number</b><ul>{known}</ul></div>')
    for part in PARTS:
        shown = [image(pictures[key], part.title) for key in part.figures if key in pictures]
        shown += [f'<div class="scroll">{tables[key].html()}</div>' for key in part.tables if key in tables]
        if shown:
            body += [f"<h2>{escape(part.title)}</h2>", f"<p>{escape(part.text)}</p>", *shown]
    head = f'<meta charset="utf-8"><title>{TITLE}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def image(picture: Picture, title: str) -> str:
    """A picture as part of the page."""
    data = base64.b64encode(picture.png(dpi=130)).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def markdown(report: Report) -> str:
    """The notes and tables."""
    tables = all_tables(report)
    lines = [f"# {TITLE}", "", markdown_text(headline(report)), ""]
    known = [f"- {markdown_text(note)}" for note in notes(report)]
    if known:
        lines += ["**Before you believe a number:**", "", *known, ""]
    for part in PARTS:
        shown = [tables[key] for key in part.tables if key in tables]
        if shown:
            lines += [f"## {part.title}", "", part.text, "", *(grid.markdown() for grid in shown)]
    return "\n".join(lines)


def latex(tables: Mapping[str, MarkupTable]) -> str:
    """The tables, each an environment of its own; the document needs booktabs."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(grid.latex(f"tab:{key}") for key, grid in tables.items())


def write(report: Report, folder: Path) -> list[Path]:
    """Writes report.html, report.md and report.tex.

    Raises:
        GlamkitError: the folder cannot be written.
    """
    texts = {"report.html": html(report), "report.md": markdown(report), "report.tex": latex(all_tables(report))}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            replace_text(folder / name, text)
    except OSError as error:
        raise GlamkitError(f"the report cannot be written to {str(folder)!r}: {error.strerror}.") from None
    return [folder / name for name in texts]
