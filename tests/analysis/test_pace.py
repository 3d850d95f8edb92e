"""Speed and time left: of the steps to come, and nothing where they are not known."""

from __future__ import annotations

import pytest
from conftest import Clock

from glamkit.analysis.monitor import Pace


def test_time_left_counts_trained_steps_only(clock: Clock) -> None:
    pace = Pace(0, {100: 101})
    clock.now += 1
    pace.note(100)
    assert pace.speed == 100.0 and pace.left(1000) is None
    for step in (102, 112, 122):
        clock.now += 2.0
        pace.note(step)
    assert pace.speed == 5.0 and pace.left(1000) == pytest.approx(878 / 5)
    clock.now += 600.0
    pace.note(123)
    assert pace.speed < 0.02  # the last minute counts, not the run
    for step in range(124, 4000):
        clock.now += 0.05
        pace.note(step)
    assert pace.speed == pytest.approx(20.0, rel=0.01)
    clock.now += 600.0  # an evaluation
    pace.pause(4000)  # it comes after this step, of which only the event is still to come
    pace.note(4000)
    assert pace.speed == 0.0
    clock.now += 0.05
    pace.note(4001)
    assert pace.speed == pytest.approx(20.0)


def test_time_left_is_at_least_that_until_dreams_begin(clock: Clock) -> None:
    pace, slows = Pace(0, {100: 101, 200: 201}), []
    for step, seconds in ((100, 1), (102, 2), (200, 98), (201, 2), (203, 4)):
        clock.now += seconds
        pace.note(step)
        slows.append(pace.slows)
    assert slows == [True, True, True, False, False]
    assert pace.left(1000) == pytest.approx(797 * 2)  # the steps before the first dream are forgotten


def test_the_first_update_of_a_process_tells_nothing_of_the_time_left(clock: Clock) -> None:
    """Steps after 2,000 act alone until the one at 2,008 compiles for 80 seconds; then eight steps take a second."""
    for begin in (0, 2000):  # a new run, and one that goes on
        pace, shown = Pace(begin, {2000: 2008}, every=8), []
        for step in range(2001, 2025):
            clock.now += 80.0 if step == 2008 else 0.6 if step % 8 == 0 else 0.4 / 7
            pace.note(step)
            shown.append(pace.left(3000))
        assert shown[:15] == [None] * 15
        assert shown[-1] == pytest.approx((3000 - 2024) / 8)
