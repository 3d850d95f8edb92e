"""How a report is read: what is ranked and what is not, lines and names in figures, words and numbers in tables."""

from __future__ import annotations

from pathlib import Path

from figures import faults
from made_runs import made_run
from test_report import report

from glamkit.report import plots, tables
from glamkit.report.markup import MarkupTable


def test_words_stand_on_the_left_in_every_table_and_numbers_on_the_right() -> None:
    long = "1: 12.10, 2: -20.70, 3: 11.00"
    rows = [["a", "1.2 [0.8, 1.6]", "Alien", "unknown", long], ["b", "-3", "-", "7", long]]
    grid = MarkupTable(["", "value", "without", "printed", "each"], rows)
    assert grid.markdown().splitlines()[1] == "| :-- | --: | :-- | --: | :-- |"


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


def test_long_names_leave_room_for_the_panels(tmp_path: Path) -> None:
    changed = "agent.acting=posterior world_model.variation_scale=0.125 actor_critic.bootstrap=next"
    for seed in (1, 2):
        made_run(tmp_path / f"a{seed}", [10.0 * seed], changed, game="Pong", seed=seed)
        made_run(tmp_path / f"b{seed}", [5.0 * seed], "agent.acting=posterior", game="Pong", seed=seed)
    made = report(tmp_path)
    assert max(len(entry.name) for entry in made.new) > 80
    for draw in (plots.aggregate_figure, plots.game_figure, lambda made: plots.curve_figure(made.groups)):
        picture = draw(made)
        assert picture is not None and faults(picture) == [], draw.__name__
        assert min(axes.get_window_extent().width for axes in picture.axes) > 90
