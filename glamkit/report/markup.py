"""A table in Markdown, for terminals, notebooks and files; what is in its cells cannot break out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 24  # characters of a number with its interval; what is longer is words
NONE, UNKNOWN = "-", "unknown"


class MarkupTable(NamedTuple):
    """A header, rows of cells, and a caption; words stand on the left of their columns, numbers on the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def markdown(self) -> str:
        """With pipes; a line for each row."""
        others = list(zip(*self.rows, strict=True))[1:]
        marks = [":--", *(":--" if any(map(_is_words, column)) else "--:" for column in others)]
        rows = [map(markdown_text, self.header), marks, *(map(markdown_text, row) for row in self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([*lines, *(["", markdown_text(self.caption)] if self.caption else []), ""])

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_markdown_(self) -> str:
        return self.markdown()


def _is_words(cell: str) -> bool:
    return cell not in (NONE, UNKNOWN) and (cell[:1].isalpha() or len(cell) > LONGEST)


def markdown_text(text: str) -> str:
    """One line in which no character starts a cell, a tag, a formula or a heading of its own."""
    plain = " ".join(text.split())
    for sign in "\\|<`*_$":
        plain = plain.replace(sign, "\\" + sign)
    return plain
