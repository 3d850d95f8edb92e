"""A table for people, written as Markdown, LaTeX or HTML; what is in its cells cannot break out of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "≥": r"$\geq$",
}  # fmt: skip


class MarkupTable(NamedTuple):
    """A header, rows of cells, and a caption; the first `left` columns are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1

    def markdown(self) -> str:
        """With pipes; a line for each row."""
        marks = [":--" if number < self.left else "--:" for number in range(len(self.header))]
        lines = [self.header, marks, *self.rows]
        text = "\n".join("| " + " | ".join(map(markdown_text, line)) + " |" for line in lines)
        return f"{text}\n\n{markdown_text(self.caption)}\n" if self.caption else f"{text}\n"

    def latex(self, label: str = "") -> str:
        """A table environment; needs the package booktabs."""
        columns = "".join("l" if number < self.left else "r" for number in range(len(self.header)))
        lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (self.header, *self.rows)]
        body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        caption = [rf"\caption{{{latex_text(self.caption)}}}"] if self.caption else []
        caption += [rf"\label{{{label}}}"] if label else []
        parts = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]
        return "\n".join([*parts, *caption, r"\end{table}", ""])

    def html(self) -> str:
        """A table element."""
        head = "".join(f'<th class="{self._kind(n)}">{escape(cell)}</th>' for n, cell in enumerate(self.header))
        body = "".join(
            "<tr>" + "".join(f'<td class="{self._kind(n)}">{escape(cell)}</td>' for n, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _kind(self, column: int) -> str:
        return "word" if column < self.left else "number"

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        return self.html()


def markdown_text(text: str) -> str:
    """One line in which no character starts a cell, a tag or a heading of its own."""
    plain = " ".join(str(text).split())
    for sign in "\\|<`*_":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def latex_text(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(LATEX.get(sign, sign) for sign in " ".join(str(text).split()))
