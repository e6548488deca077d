import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, weightedtau

from prerank import metrics
from prerank.metrics.tau import inversions


@st.composite
def scored(draw):
    """Rows of a few requests in any order; few distinct values, so that there are ties of all kinds."""
    n, values = draw(st.integers(2, 60)), draw(st.sampled_from([2, 5, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return rng.integers(0, values, n) / 7, rng.integers(0, values, n) / 3 - 1, rng.integers(0, draw(st.integers(1, 8)), n)


@settings(deadline=None)
@pytest.mark.parametrize(("ours", "oracle"), [(metrics.kendall, kendalltau), (metrics.weighted_tau, weightedtau)])
@given(rows=scored())
def test_each_request_is_scipys(ours, oracle, rows):
    s, t, groups = rows
    found = ours(s, t, groups=groups)
    expected = []
    for g in np.unique(groups):
        a, b = s[groups == g], t[groups == g]
        ordered = len(np.unique(a)) > 1 and len(np.unique(b)) > 1
        expected.append(oracle(a, b).statistic if ordered else math.nan)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_requests_longer_than_a_block():
    rng = np.random.default_rng(0)
    s, t = rng.random(150_000), rng.random(150_000)
    groups = np.repeat([0, 1, 2], [70_000, 70_000, 10_000])
    found = metrics.kendall(s, t, groups=groups)
    np.testing.assert_allclose(found.values, [kendalltau(s[groups == g], t[groups == g]).statistic for g in range(3)], atol=1e-12)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=5))
def test_inversions_are_counted_one_by_one(lists):
    values = np.concatenate([np.array(v) for v in lists])
    sizes = np.array([len(v) for v in lists])
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    expected = [
        sum(v[j] > v[i] for j in range(i)) + sum(v[j] < v[i] for j in range(i + 1, len(v))) for v in lists for i in range(len(v))
    ]
    np.testing.assert_array_equal(inversions(values, start), expected)


def test_a_mistake_at_the_top_costs_more():
    best = np.arange(20.0, 0, -1)
    top, bottom = best.copy(), best.copy()
    top[[0, 1]], bottom[[18, 19]] = best[[1, 0]], best[[19, 18]]
    assert metrics.kendall([top], [best]).value == metrics.kendall([bottom], [best]).value
    assert metrics.weighted_tau([top], [best]).value < metrics.weighted_tau([bottom], [best]).value < 1
