"""A table for people, written as Markdown, LaTeX or HTML; what is in its cells cannot break out of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": "{*}", "±": r"$\pm$", "≥": r"$\geq$",
}  # fmt: skip

LATIN = 0x180  # letters before it are in LaTeX's plain fonts
LINES = 52  # of a table on a page of LaTeX
NUMBER = 24  # characters: what is longer is words, as is what begins with a letter, but for these
NO_WORDS = ("-", "unknown", "yes", "NO")
WORDY = 32  # characters beyond which a column of words is set in lines


class MarkupTable(NamedTuple):
    """A header, rows of cells, and a caption; the first `left` columns are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1

    def markdown(self) -> str:
        """With pipes; a line for each row."""
        marks = [":--" if self._kind(number) == "word" else "--:" for number in range(len(self.header))]
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
        """A table that scrolls where the page is narrower, and its caption below, which does not."""
        kinds = [self._kind(n) for n in range(len(self.header))]
        head = "".join(f'<th class="{kind}">{escape(cell)}</th>' for kind, cell in zip(kinds, self.header, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f'<td class="{kinds[n]}">{broken(cell, kinds[n])}</td>' for n, cell in enumerate(row))
            + "</tr>"
            for row in self.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="scroll">{table}</div>' + (f"<p>{escape(self.caption)}</p>" if self.caption else "")

    def _kind(self, column: int) -> str:
        """``word`` for the first columns and for all that hold words, ``number`` for others."""
        cells = [row[column] for row in self.rows if row[column] not in NO_WORDS]
        return "word" if column < self.left or any(c[:1].isalpha() or len(c) > NUMBER for c in cells) else "number"

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        """For notebooks, which have no style of ours: words on the left."""
        styles = {"word": "text-align: left", "number": "text-align: right", "scroll": "overflow-x: auto"}
        text = self.html()
        for name, style in styles.items():
            text = text.replace(f'class="{name}"', f'style="{style}"')
        return text


def broken(text: str, kind: str) -> str:
    """A cell as HTML; a number is broken before its interval alone."""
    return escape(text if kind == "word" else re.sub(r" (?!\[)", "\u00a0", text))


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
