"""Rates over users against simulation and scipy."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import stats as scipy_stats

import prerank.metrics.experiment as module
from prerank.metrics.experiment import chi_square_tail, difference, quantile, ratio, sample_ratio


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("freedom", range(1, 9))
def test_the_tail_of_chi_square(freedom: int) -> None:
    for x in (0.0, 0.1, 1.0, 3.3, 10.0, 60.0):
        assert chi_square_tail(x, freedom) == pytest.approx(scipy_stats.chi2.sf(x, freedom), rel=1e-9, abs=1e-15)


def test_sample_ratio_is_scipys() -> None:
    users, shares = [1000, 880, 470], [2, 2, 1]
    expected = np.array(shares) / 5 * sum(users)
    assert sample_ratio(users, shares) == pytest.approx(scipy_stats.chisquare(users, expected).pvalue)
    with pytest.raises(ValueError, match="a positive share for each of 2 arms"):
        sample_ratio([1, 2], [1, 0])


def test_variance_of_a_ratio_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    found, told = [], []
    for _ in range(2000):
        n = rng.geometric(0.2, 300)
        r = ratio(rng.binomial(n, rng.beta(2, 5, 300)), n)
        found.append(r.value)
        told.append(r.variance)
    assert np.mean(told) == pytest.approx(np.var(found), rel=0.1)


def test_quantile_intervals_cover() -> None:
    rng = np.random.default_rng(1)
    true = -np.log(0.01)
    inside = [low <= true <= high for _, low, high in (quantile(rng.exponential(1, 3000), 0.99) for _ in range(400))]
    assert 0.92 <= np.mean(inside) <= 0.99


def test_nothing_is_no_number() -> None:
    empty = ratio([], [])
    assert np.isnan(empty.value)
    one = ratio([1], [2])
    assert one.value == 0.5
    assert np.isnan(one.variance)
    absolute, relative = difference(ratio([1, 1], [2, 2]), ratio([0, 0], [2, 2]))
    assert absolute.value == 0.5
    assert np.isnan(relative.value)
