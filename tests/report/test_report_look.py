"""How a report is read: what is ranked and what is not, lines and names in figures, words and numbers in tables."""

from __future__ import annotations

import re

import pytest
from test_report import report

from glamkit.report import page, plots, tables
from glamkit.report.markup import MarkupTable


def test_words_stand_on_the_left_in_every_table_and_numbers_on_the_right() -> None:
    long = "1: 12.10, 2: -20.70, 3: 11.00"
    rows = [["a", "1.2 [0.8, 1.6]", "Alien", "unknown", long], ["b", "-3", "-", "7", long]]
    grid = MarkupTable(["", "value", "without", "printed", "each"], rows)
    assert [grid._kind(n) for n in range(5)] == ["word", "number", "word", "number", "word"]
    assert '<td class="number">1.2 [0.8,\u00a01.6]</td>' in grid.html()  # broken before the interval, if at all
    assert grid.markdown().splitlines()[1] == "| :-- | --: | :-- | --: | :-- |"
    for table in page.all_tables(report()).values():
        for number in range(len(table.header)):
            texts = [row[number] for row in table.rows if row[number] not in ("-", "unknown", "yes", "NO")]
            if any(re.match("[A-Za-z]", text) for text in texts):
                assert table._kind(number) == "word", table.header[number]


@pytest.mark.parametrize("narrow", [False, True])
def test_methods_without_single_runs_stand_apart_and_a_human_has_a_line(narrow: bool) -> None:
    made = report()
    names = [entry.name for entry in tables.ordered(made)]
    single = [made.entries[name].method.single for name in names]
    assert single == sorted(single, reverse=True) and names.index("PPO (DreamerV3 paper)") < names.index("BBF")
    first, *others = plots.aggregate_figure(made, narrow).axes[:3]
    shown = dict(zip(first.get_yticks(), (text.get_text() for text in first.get_yticklabels()), strict=True))
    assert shown[sum(single)] == "one value per game: not ranked"
    assert [shown[place] for place in sorted(shown) if place != sum(single)] == names
    assert all([1, 1] in [list(line.get_xdata()) for line in axes.lines] for axes in (first, *others))
