"""How a report is read: what is ranked and what is not, lines and names in figures, words and numbers in tables."""

from __future__ import annotations

import re

import pytest
from test_report import report

from glamkit.report import human_split, page, plots, reruns, tables
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
    for picture in (plots.aggregate_figure(made, narrow), human_split.split_figure(made, narrow)):
        first = picture.axes[0]
        shown = dict(zip(first.get_yticks(), (text.get_text() for text in first.get_yticklabels()), strict=True))
        assert shown[sum(single)] == "one value per game: not ranked"
        assert [shown[place] for place in sorted(shown) if place != sum(single)] == names
    panels = [*plots.aggregate_figure(made, narrow).axes[:3]]
    for picture in (plots.sensitivity_figure(made, narrow), reruns.rerun_figure(made, narrow)):
        assert picture is not None
        panels += picture.axes
    assert all([1, 1] in [list(line.get_xdata()) for line in axes.lines] for axes in panels)


@pytest.mark.parametrize("narrow", [False, True])
def test_names_of_games_stay_in_their_panels(narrow: bool) -> None:
    picture = plots.sensitivity_figure(report(against="all"), narrow)
    assert picture is not None
    picture.png()
    for axes in picture.axes:
        box = axes.get_window_extent()
        for text in axes.texts:
            inside = text.get_window_extent()
            assert box.x0 - 1 <= inside.x0 and inside.x1 <= box.x1 + 1, text.get_text()


def test_it_says_of_how_many_games_and_of_which_method_some_are_above_humans() -> None:
    first, second = human_split.split_figure(report()).axes
    count = len(human_split.above())
    assert first.get_title("left") == f"In {count} of 26 games the median\nmethod reaches a human"
    assert second.get_title("left") == f"In the other {26 - count}\nit does not"


def test_storm_is_shown_with_and_without_freeway() -> None:
    grid = tables.suspect_table()
    assert grid is not None
    rows = {row[1]: list(row[2:]) for row in grid.rows}
    assert rows["as printed"] == ["1.267", "0.584", "-"]
    assert rows["all 26, Freeway = 0 as in its file"] == ["1.222", "0.425", "0.561"]
    assert rows["25, without Freeway"] == ["1.271", "0.493", "0.602"]
    # What was asked of the file, which score would give the printed mean, its printed table answers.
    mixed = rows["all 26, Freeway = 33.5 as in STORM (printed table)"]
    assert mixed[:2] == ["1.266", "0.580"]
