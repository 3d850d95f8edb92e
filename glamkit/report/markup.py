"""A table for people, written as Markdown, LaTeX or HTML; what is in its cells cannot break out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": "{*}", "±": r"$\pm$", "≥": r"$\geq$",
})  # fmt: skip
LONGEST = 24  # characters of a number with its interval; what is longer is words
NONE, UNKNOWN = "-", "unknown"
STYLES = {True: "text-align: left", False: "text-align: right; white-space: nowrap"}


class MarkupTable(NamedTuple):
    """A header, rows of cells, and a caption; words stand on the left of their columns, numbers on the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def wordy(self) -> list[bool]:
        """Which columns hold words: the first, and those with a cell that begins with a letter or is long."""
        others = list(zip(*self.rows, strict=True))[1:]
        return [True, *(any(_is_words(cell) for cell in column) for column in others)]

    def markdown(self) -> str:
        """With pipes; a line for each row."""
        marks = [":--" if words else "--:" for words in self.wordy()]
        rows = [map(markdown_text, self.header), marks, *(map(markdown_text, row) for row in self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([*lines, *(["", markdown_text(self.caption)] if self.caption else []), ""])

    def latex(self) -> str:
        """A table environment; needs the package booktabs."""
        columns = "".join("l" if words else "r" for words in self.wordy())
        header, *rows = (" & ".join(map(latex_text, row)) + r" \\" for row in (self.header, *self.rows))
        lines = [r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
        caption = rf"\caption{{{latex_text(self.caption)}}}"
        return "\n".join([r"\begin{table}", rf"\begin{{tabular}}{{{columns}}}", *lines, caption, r"\end{table}", ""])

    def html(self) -> str:
        """A table that scrolls where the page is narrower, and its caption below, which does not."""
        styles = [STYLES[words] for words in self.wordy()]
        lines = [_html_row("th", self.header, styles), *(_html_row("td", row, styles) for row in self.rows)]
        table = f'<div style="overflow-x: auto"><table>{"".join(lines)}</table></div>'
        return table + (f"<p>{escape(self.caption)}</p>" if self.caption else "")

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        return self.html()


def _is_words(cell: str) -> bool:
    return cell not in (NONE, UNKNOWN) and (cell[:1].isalpha() or len(cell) > LONGEST)


def _html_row(tag: str, cells: Iterable[str], styles: Iterable[str]) -> str:
    pairs = zip(cells, styles, strict=True)
    return "<tr>" + "".join(f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, style in pairs) + "</tr>"


def markdown_text(text: str) -> str:
    """One line in which no character starts a cell, a tag or a heading of its own."""
    plain = " ".join(text.split())
    for sign in "\\|<`*_":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def latex_text(text: str) -> str:
    """Plain text for LaTeX."""
    return " ".join(text.split()).translate(LATEX)
