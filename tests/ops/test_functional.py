"""The pure functions, against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glamkit.ops.functional import (
    free_nats,
    kl_categorical,
    lambda_return,
    one_hot_likeliest,
    one_hot_sample,
    percentiles,
    sample_categorical,
    symexp,
    symlog,
    two_hot,
    two_hot_loss,
    two_hot_mean,
    unimix,
)

BINS = torch.linspace(-2, 2, 5)  # -2 -1 0 1 2
E = math.e


def test_symlog_and_its_inverse() -> None:
    x = torch.tensor([0.0, 1.0, -1.0, E - 1, -(E**2 - 1)])
    assert symlog(x).tolist() == pytest.approx([0, math.log(2), -math.log(2), 1, -2], abs=1e-6)
    assert symexp(torch.tensor([0.0, 1.0, -2.0])).tolist() == pytest.approx([0, E - 1, -(E**2 - 1)], rel=1e-6)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6))
def test_symexp_undoes_symlog(x: float) -> None:
    assert symexp(symlog(torch.tensor(x, dtype=torch.float64))).item() == pytest.approx(x, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("symlog_of_x", "weights"),
    [
        (0.0, [0, 0, 1, 0, 0]),  # on a bin
        (0.25, [0, 0, 0.75, 0.25, 0]),  # between two: the nearer gets more
        (-1.5, [0.5, 0.5, 0, 0, 0]),
        (2.0, [0, 0, 0, 0, 1]),  # on the last bin
        (-2.0, [1, 0, 0, 0, 0]),  # on the first
        (9.0, [0, 0, 0, 0, 1]),  # beyond either end
        (-9.0, [1, 0, 0, 0, 0]),
    ],
)
def test_two_hot(symlog_of_x: float, weights: list[float]) -> None:
    x = symexp(torch.tensor([[symlog_of_x]]))
    assert two_hot(x, BINS).shape == (1, 1, 5)
    assert two_hot(x, BINS)[0, 0].tolist() == pytest.approx(weights, abs=1e-6)


def test_two_hot_loss_is_the_cross_entropy() -> None:
    x = symexp(torch.tensor([0.25]))
    assert two_hot_loss(torch.zeros(1, 5), x, BINS).item() == pytest.approx(math.log(5), rel=1e-6)
    p = torch.tensor([[0.1, 0.1, 0.6, 0.15, 0.05]])
    expected = -(0.75 * math.log(0.6) + 0.25 * math.log(0.15))
    assert two_hot_loss(p.log() + 3, x, BINS).item() == pytest.approx(expected, rel=1e-5)  # logits need no norm


@pytest.mark.parametrize("x", [-6.0, -0.5, 0.0, 0.3, 2.0])
def test_two_hot_mean_reads_back_what_two_hot_wrote(x: float) -> None:
    logits = (two_hot(torch.tensor(x), BINS) + 1e-12).log()
    assert two_hot_mean(logits, BINS).item() == pytest.approx(x, abs=1e-4)


def test_unimix() -> None:
    mixed = unimix(torch.tensor([0.0, math.log(3)]), 0.2)  # 1/4, 3/4 and a fifth of one half
    assert mixed.exp().tolist() == pytest.approx([0.3, 0.7], rel=1e-6)
    extreme = unimix(torch.tensor([-1e4, 1e4, 0.0, 0.0]), 0.01).exp()
    assert extreme.tolist() == pytest.approx([0.0025, 0.9925, 0.0025, 0.0025], rel=1e-5)


def test_without_unimix_the_unlikeliest_class_has_a_gradient_too() -> None:
    logits = torch.tensor([[120.0, 0.0]], requires_grad=True)
    p = unimix(logits, 0.0)
    assert p.tolist() == [[0, -120]]
    kl = kl_categorical(p, unimix(torch.tensor([[120.0, 0.0]]), 0.0))
    assert kl.item() == 0
    assert torch.autograd.grad(kl, logits)[0].isfinite().all()


def test_samples_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.1, 0.2, 0.7, 0.0])
    draws = sample_categorical(p.log().expand(20_000, 4))
    assert (torch.bincount(draws, minlength=4) / 20_000).tolist() == pytest.approx(p.tolist(), abs=0.015)
    assert (draws != 3).all()


@pytest.mark.parametrize("code", [one_hot_sample, one_hot_likeliest])
def test_one_hot_codes_have_the_gradient_of_the_probabilities(code: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.2, -0.1, 0.5]], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 4.0])
    sample = code(logits.log_softmax(-1))
    assert sorted(sample[0].tolist()) == pytest.approx([0, 0, 1], abs=1e-6)
    if code is one_hot_likeliest:
        assert sample[0].argmax() == 2
    got = torch.autograd.grad((sample * weight).sum(), logits)[0]
    assert torch.allclose(got, torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)[0], atol=1e-6)


def test_kl_sums_over_variables() -> None:
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    one = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_categorical(p, q).item() == pytest.approx(one, rel=1e-5)
    assert kl_categorical(torch.cat([p, p]), torch.cat([q, p])).item() == pytest.approx(one, rel=1e-5)
    other = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert kl_categorical(q, p).item() == pytest.approx(other, rel=1e-5)


def test_free_nats_take_the_mean_first() -> None:
    assert free_nats(torch.tensor([0.0, 4.0]), 1.0).item() == 2  # not the mean of (1, 4)
    kl = torch.tensor([0.0, 1.0], requires_grad=True)
    below = free_nats(kl, 1.5)
    below.backward()
    assert below.item() == 1.5
    assert kl.grad is not None
    assert kl.grad.tolist() == [0, 0]  # what is below is not trained


@pytest.mark.parametrize(
    ("bootstrap", "terminations", "expected"),
    [  # worked backwards: the last step mixes V and the value after it, 40
        ("current", [0, 0], [1 + 0.5 * (5 + 8.5), 2 + 0.5 * (10 + 20)]),
        ("next", [0, 0], [1 + 0.5 * (10 + 11), 2 + 0.5 * (20 + 20)]),
        ("current", [0, 1], [1 + 0.5 * (5 + 1), 2]),
        ("next", [0, 1], [1 + 0.5 * (10 + 1), 2]),
        ("current", [1, 0], [1, 17]),
        ("next", [1, 0], [1, 22]),
    ],
)
def test_lambda_return(bootstrap: str, terminations: list[int], expected: list[float]) -> None:
    got = lambda_return(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([terminations]).float(),
        torch.tensor([[10.0, 20.0, 40.0]]),
        discount=0.5,
        trace=0.5,
        bootstrap=bootstrap,
    )
    assert got.tolist() == [expected]


def test_lambda_return_at_its_ends() -> None:
    rewards, values, live = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[7.0, 8.0, 9.0, 10.0]]), torch.zeros(1, 3)
    whole = lambda_return(rewards, live, values, 0.5, 1.0)  # lambda 1: all rewards, then the last value
    assert whole.tolist() == [[1 + 1 + 0.75 + 1.25, 2 + 1.5 + 2.5, 3 + 5]]
    single = lambda_return(rewards, live, values, 0.5, 0.0, "next")  # lambda 0: one step and the next value
    assert single.tolist() == [[1 + 4, 2 + 4.5, 3 + 5]]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(100, 0.05, 5), (100, 0.95, 95), (10, 0.05, 1), (10, 0.95, 9), (30, 0.05, 1), (1, 0.95, 1), (50, 1.0, 50)],
)
def test_percentile_is_a_count_from_one(count: int, share: float, expected: int) -> None:
    x = torch.randperm(count).float() + 1  # 1 .. count, so a value is its own rank
    result = percentiles(x.view(-1, 1), share, 1.0)
    assert [part.item() for part in result] == [expected, x.max().item()]
