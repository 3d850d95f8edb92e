"""Aggregates against values worked by hand, against rliable where it is installed, and intervals against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from glamkit.report import aggregates

# Four runs of two games. Means 2.5 and 1.0; the median of those two is their mean.
HAND = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.5, 0.5, 3.0])]


def test_a_four_by_two_matrix_worked_by_hand() -> None:
    assert aggregates.game_means(HAND).tolist() == [2.5, 1.0]
    assert aggregates.mean(HAND) == 1.75
    assert aggregates.median(HAND) == 1.75
    # Sorted: 0, .5, .5, 1, 2, 3, 3, 4; without two at each end: .5, 1, 2, 3.
    assert aggregates.iqm(HAND) == 6.5 / 4
    # What lacks to 1, where more than 1 does not help: 0, 0, 0, 0 and 1, .5, .5, 0.
    assert aggregates.optimality_gap(HAND) == 2 / 8
    assert aggregates.superhuman(HAND) == 2


def test_games_with_unequal_numbers_of_runs() -> None:
    uneven = [np.array([1.0]), np.array([0.0, 0.0, 0.0])]
    assert aggregates.mean(uneven) == aggregates.median(uneven) == 0.5  # games count alike
    assert aggregates.optimality_gap(uneven) == 0.5
    assert aggregates.iqm(uneven) == 0.0  # here runs do: of 0, 0, 0, 1 the middle two


def test_resampling_stays_within_a_game() -> None:
    sample = [np.full(3, float(game)) for game in range(4)]
    assert aggregates.intervals(sample, 300) == {
        "mean": (1.5, 1.5), "median": (1.5, 1.5), "iqm": (1.5, 1.5), "optimality_gap": (0.25, 0.25),
    }  # fmt: skip


def test_intervals_are_repeatable_and_follow_the_seed() -> None:
    assert aggregates.intervals(HAND, 300, seed=1) == aggregates.intervals(HAND, 300, seed=1)
    assert aggregates.intervals(HAND, 300, seed=1) != aggregates.intervals(HAND, 300, seed=2)


@pytest.mark.parametrize("runs", [3, 5, 20])
def test_coverage_of_the_bootstrap_on_simulated_runs(runs: int) -> None:
    """How often the interval of the mean holds the truth, over 400 made-up studies of 26 games."""
    random, truth, held, studies = np.random.default_rng(0), np.linspace(0.1, 2, 26), 0, 400
    for _ in range(studies):
        sample = [random.normal(level, 0.1 + level / 2, runs) for level in truth]
        low, high = aggregates.bootstrap(sample, aggregates.mean, 250, seed=int(random.integers(1000)))
        held += bool(low <= truth.mean() <= high)
    assert held / studies == pytest.approx(aggregates.coverage([runs] * 26), abs=0.04)


def test_how_narrow_intervals_of_few_runs_are() -> None:
    shares = {runs: round(aggregates.coverage([runs] * 26), 2) for runs in (1, 2, 3, 5, 100)}
    assert shares == {1: 0.0, 2: 0.83, 3: 0.89, 5: 0.92, 100: 0.95}
    # Of a game with a single run the bootstrap sees no spread at all.
    assert round(aggregates.coverage([1] * 23 + [2] * 3), 2) == 0.27


def test_the_interval_of_the_iqm_holds_the_truth() -> None:
    random, held, studies = np.random.default_rng(1), 0, 300
    levels = np.linspace(0, 1, 6)
    truth = aggregates.iqm([random.normal(level, 0.2, 200_000) for level in levels])
    for _ in range(studies):
        sample = [random.normal(level, 0.2, 20) for level in levels]
        low, high = aggregates.bootstrap(sample, aggregates.iqm, 250, seed=int(random.integers(1000)))
        held += bool(low <= truth <= high)
    assert 0.88 <= held / studies <= 0.99


def test_trimming_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed; the hand-worked matrix is tested anyway")
    random = np.random.default_rng(0)
    for runs in (1, 2, 3, 5, 7):
        sample = [random.normal(size=runs) for _ in range(26)]
        assert aggregates.iqm(sample) == pytest.approx(stats.trim_mean(np.concatenate(sample), 0.25), abs=1e-12)


def test_rliable_says_the_same() -> None:
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed; it is not a dependency")
    matrix = np.random.default_rng(0).gamma(1.0, size=(5, 26))
    sample = list(matrix.T)
    assert aggregates.mean(sample) == pytest.approx(metrics.aggregate_mean(matrix), abs=1e-12)
    assert aggregates.median(sample) == pytest.approx(metrics.aggregate_median(matrix), abs=1e-12)
    assert aggregates.iqm(sample) == pytest.approx(metrics.aggregate_iqm(matrix), abs=1e-12)
    assert aggregates.optimality_gap(sample) == pytest.approx(metrics.aggregate_optimality_gap(matrix), abs=1e-12)
