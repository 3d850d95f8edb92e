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

LATIN = 0x180  # letters before it are in LaTeX's plain fonts
LINES = 52  # of a table on a page of LaTeX
WORDY = 32  # characters beyond which a column of words is set in lines


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
        """Table environments, as many as pages are needed; no wider than the text. Needs array, booktabs and graphicx.

        Args:
            label: for references; parts after the first have its number behind it.
        """
        parts = self._pages()
        return "\n".join(
            self._environment(rows, label if n == 1 else f"{label}-{n}" if label else "", n)
            for n, rows in enumerate(parts, 1)
        )

    def _environment(self, rows: Sequence[Sequence[str]], label: str, page: int) -> str:
        columns = "".join(self._column(number) for number in range(len(self.header)))
        cells = [[self._cell(row[number], number) for number in range(len(row))] for row in (self.header, *rows)]
        lines = [" & ".join(row) + r" \\" for row in cells]
        body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        text = latex_text(self.caption) if page == 1 else "The table before, continued."
        caption = [rf"\caption{{{text}}}"] if self.caption else []
        caption += [rf"\label{{{label}}}"] if label else []
        fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        start = [r"\begin{table}[p]", r"\centering", fit, rf"\begin{{tabular}}{{{columns}}}"]
        return "\n".join([*start, *body, r"\end{tabular}}", *caption, r"\end{table}", ""])

    def _column(self, number: int) -> str:
        """How LaTeX sets a column: words on the left, in lines where they are long, and numbers on the right."""
        if number >= self.left:
            return "r"
        return r">{\raggedright\arraybackslash}p{5cm}" if self._wordy(number) else "l"

    def _wordy(self, number: int) -> bool:
        return number < self.left and max((len(row[number]) for row in self.rows), default=0) > WORDY

    def _cell(self, text: str, number: int) -> str:
        text = latex_text(text)
        for sign in ("/", r"\_") if self._wordy(number) else ():  # addresses have no other place to break
            text = text.replace(sign, sign + r"\allowbreak{}")
        return text

    def _pages(self) -> list[list[Sequence[str]]]:
        """The rows in parts that fit on a page each."""
        parts: list[list[Sequence[str]]] = [[]]
        high = 0
        for row in self.rows:
            lines = max(1 + len(cell) // WORDY if n < self.left else 1 for n, cell in enumerate(row))
            if parts[-1] and high + lines > LINES:
                parts.append([])
                high = 0
            parts[-1].append(row)
            high += lines
        return parts

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
        """For notebooks: words on the left; the caption is a paragraph, since a page may be narrower than a table."""
        table = self._replace(caption="").html().replace('class="word"', 'style="text-align: left"')
        return table + (f"<p>{escape(self.caption)}</p>" if self.caption else "")


def markdown_text(text: str) -> str:
    """One line in which no character starts a cell, a tag or a heading of its own."""
    plain = " ".join(str(text).split())
    for sign in "\\|<`*_":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def latex_text(text: str) -> str:
    """Plain text for LaTeX; letters that its plain fonts lack stand as their numbers, such as U+4E2D."""
    signs = " ".join(str(text).split())
    return "".join(LATEX.get(sign, sign if ord(sign) < LATIN else f"U+{ord(sign):04X}") for sign in signs)
