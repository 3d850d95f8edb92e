"""How a report is read: what is ranked and what is not, lines and names in figures, words and numbers in tables."""

from __future__ import annotations

from test_report import report

from glamkit.report import plots, tables
from glamkit.report.markup import MarkupTable


def test_words_stand_on_the_left_in_every_table_and_numbers_on_the_right() -> None:
    long = "1: 12.10, 2: -20.70, 3: 11.00"
    rows = [["a", "1.2 [0.8, 1.6]", "Alien", "unknown", long], ["b", "-3", "-", "7", long]]
    grid = MarkupTable(["", "value", "without", "printed", "each"], rows)
    assert grid.markdown().splitlines()[1] == "| :-- | --: | :-- | --: | :-- |"
    assert '<td style="text-align: right; white-space: nowrap">1.2 [0.8, 1.6]</td>' in grid.html()
    assert grid.latex().splitlines()[1] == r"\begin{tabular}{lrlrl}"


def test_methods_without_single_runs_stand_apart_and_a_human_has_a_line() -> None:
    made = report()
    names = [entry.name for entry in tables.ordered(made)]
    single = [made.entries[name].method.single for name in names]
    assert single == sorted(single, reverse=True) and names.index("PPO (DreamerV3 paper)") < names.index("BBF")
    first, *others = plots.aggregate_figure(made).axes[:3]
    assert [text.get_text() for text in first.get_yticklabels()] == names
    between = sum(single) - 0.5
    assert [between, between] in [list(line.get_ydata()) for line in first.lines]
    assert all([1, 1] in [list(line.get_xdata()) for line in axes.lines] for axes in (first, *others))
