"""Agreement of two scores against loops over requests, candidates and depths, and by property."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prerank import metrics

MEASURES = {
    "overlap": lambda s, t, **a: metrics.overlap(s, t, 3, **a),
    "regret": lambda s, t, **a: metrics.regret(s, t, 3, **a),
    "kendall": metrics.kendall,
    "weighted_tau": metrics.weighted_tau,
    "rbo": metrics.rbo,
}
PERFECT = {name: 0.0 if name == "regret" else 1.0 for name in MEASURES}


@st.composite
def scored(draw, tied=True):
    n = draw(st.integers(2, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    groups = rng.integers(0, draw(st.integers(1, 6)), n)
    if tied and draw(st.booleans()):
        return rng.integers(0, 4, n).astype(float), rng.integers(0, 4, n).astype(float), groups
    return rng.permutation(n).astype(float), rng.permutation(n).astype(float), groups


def requests(s, t, groups):
    return [(s[groups == g], t[groups == g]) for g in np.unique(groups)]


def chosen(s, t, k):
    """The pre-ranker's best K, in a tie the lowest t first."""
    return sorted(range(len(s)), key=lambda i: (-s[i], t[i]))[:k]


def wanted(s, t, k):
    """The ranking model's best K, in a tie as the pre-ranker has them."""
    return sorted(range(len(s)), key=lambda i: (-t[i], -s[i]))[:k]


@given(scored(), st.integers(1, 8))
def test_overlap_and_regret_are_the_loop(rows, k):
    s, t, groups = rows
    shared, lost = [], []
    for a, b in requests(s, t, groups):
        mine, best = chosen(a, b, k), wanted(a, b, k)
        more = len(a) > k
        shared.append(len(set(mine) & set(best)) / k if more else math.nan)
        lost.append((b[best].sum() - b[mine].sum()) / b[best].sum() if more and b[best].sum() else math.nan)
    np.testing.assert_allclose(metrics.overlap(s, t, k, groups=groups).values, shared, atol=1e-12)
    np.testing.assert_allclose(metrics.regret(s, t, k, groups=groups).values, lost, atol=1e-12)


@given(scored(), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_rbo_is_equation_30_depth_by_depth(rows, p):
    """RBO_ext(S, T, p, k) = X_k / k p^k + (1 - p) / p sum_{d=1}^{k} X_d / d p^d, X_d = |S_{:d} & T_{:d}|, k = n."""
    s, t, groups = rows
    expected = []
    for a, b in requests(s, t, groups):
        n = len(a)
        left, right = chosen(a, b, n), wanted(a, b, n)
        shared = [len(set(left[:d]) & set(right[:d])) for d in range(1, n + 1)]
        value = shared[-1] / n * p**n + (1 - p) / p * sum(x / d * p**d for d, x in enumerate(shared, 1))
        expected.append(value if n > 1 else math.nan)
    np.testing.assert_allclose(metrics.rbo(s, t, p, groups=groups).values, expected, atol=1e-12)


def test_rbo_of_disjoint_beginnings_written_out():
    # S = a b c d, T = c d a b: X = 0, 0, 2, 4
    p = 0.5
    expected = p**4 + (1 - p) / p * (2 / 3 * p**3 + p**4)
    assert metrics.rbo([[4, 3, 2, 1]], [[2, 1, 4, 3]], p).value == pytest.approx(expected)


@pytest.mark.parametrize("name", MEASURES)
@given(rows=scored())
def test_equal_scores_are_perfect(name, rows):
    _, t, groups = rows
    values = MEASURES[name](t, t, groups=groups).values
    np.testing.assert_allclose(values[~np.isnan(values)], PERFECT[name], atol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
@given(rows=scored(), seed=st.integers(0, 2**31))
def test_the_order_of_rows_does_not_matter(name, rows, seed):
    s, t, groups = rows
    shuffled = np.random.default_rng(seed).permutation(len(s))
    one = MEASURES[name](s, t, groups=groups)
    other = MEASURES[name](s[shuffled], t[shuffled], groups=groups[shuffled])
    np.testing.assert_allclose(one.values, other.values, atol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
@given(rows=scored())
def test_a_growing_change_of_the_pre_rankers_scale_changes_nothing(name, rows):
    s, t, groups = rows
    values = MEASURES[name](s, t, groups=groups).values
    for changed in (3 * s - 100, np.exp(s / 50), s**3):
        np.testing.assert_allclose(MEASURES[name](changed, t, groups=groups).values, values, atol=1e-12)
    if name != "regret":  # a share of a sum: it does read the size of t
        np.testing.assert_allclose(MEASURES[name](s, np.exp(t / 50), groups=groups).values, values, atol=1e-12)


@given(scored(tied=False))
def test_the_reverse_is_the_worst(rows):
    _, t, groups = rows
    assert (metrics.kendall(-t, t, groups=groups).values[np.bincount(groups)[np.unique(groups)] > 1] == -1).all()
    for a, b in requests(-t, t, groups):
        n, k = len(a), 3
        if n > k:
            found = metrics.Agreement([a], [b])
            assert found.overlap(k).value == pytest.approx(max(0, 2 * k - n) / k)
            best, worst = np.sort(b)[::-1][:k].sum(), np.sort(b)[:k].sum()
            assert found.regret(k).value == pytest.approx((best - worst) / best)
            others = [metrics.rbo([p], [b]).value for p in (np.roll(b, 1), b, a)]
            assert found.rbo().value == pytest.approx(min(others))


@given(scored())
def test_bounds(rows):
    s, t, groups = rows
    for name, low, high in (("overlap", 0, 1), ("regret", 0, 1), ("kendall", -1, 1), ("weighted_tau", -1, 1), ("rbo", 0, 1)):
        values = MEASURES[name](s, t, groups=groups).values
        assert ((values >= low) & (values <= high) | np.isnan(values)).all()


@given(scored())
def test_a_constant_score_is_no_better_than_the_worst_order(rows):
    _, t, groups = rows
    assume(len(t) > 3)
    for name, sign in (("overlap", 1), ("rbo", 1), ("regret", -1)):
        constant, worst = (MEASURES[name](s, t, groups=groups).values for s in (np.zeros_like(t), -t))
        np.testing.assert_allclose(sign * constant, sign * worst, atol=1e-12)


@settings(deadline=None)
@given(scored(), st.integers(1, 4))
def test_ecpm_is_the_overlap_of_the_products(rows, k):
    s, t, groups = rows
    bid = 0.5 + np.random.default_rng(0).random(len(s))
    np.testing.assert_array_equal(
        metrics.hit_ratio_ecpm(s, t, bid, k, groups=groups).values, metrics.overlap(s * bid, t * bid, k, groups=groups).values
    )


@pytest.mark.parametrize("name", MEASURES)
def test_lists_with_where_are_groups(name):
    rng = np.random.default_rng(7)
    s, t, where = rng.integers(0, 5, (20, 9)).astype(float), rng.integers(0, 5, (20, 9)).astype(float), rng.random((20, 9)) < 0.7
    where[:, 0] = True
    flat = MEASURES[name](s[where], t[where], groups=np.nonzero(where)[0])
    padded = MEASURES[name](np.where(where, s, np.nan), np.where(where, t, np.nan), where=where)  # what lies under padding is never read
    np.testing.assert_array_equal(flat.values, padded.values)


def test_values_written_out():
    s, t = [[5.0, 4.0, 3.0, 2.0, 1.0]], [[0.5, 0.1, 0.4, 0.3, 0.2]]
    assert metrics.overlap(s, t, 2).value == 1 / 2
    assert metrics.regret(s, t, 2).value == pytest.approx((0.9 - 0.6) / 0.9)
    assert metrics.kendall(s, t).value == pytest.approx((7 - 3) / 10)
    assert metrics.hit_ratio_ecpm(s, t, [[1, 1, 9, 9, 1]], 2).value == 1.0  # both want items 2 and 3, by 27, 18 and 3.6, 2.7


def test_stage_recall():
    s, stage = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]], [[0, 3, 1, 0, 1, 4]]
    assert metrics.stage_recall(s, stage, 2).value == 1 / 2
    assert metrics.stage_recall(s, stage, 3, reached=1).value == 2 / 4
    assert math.isnan(metrics.stage_recall(s, stage, 6).value)  # all are chosen
    assert math.isnan(metrics.stage_recall(s, [[0] * 6], 2).value)  # all came so far
    assert math.isnan(metrics.stage_recall(s, [[3] * 6], 2).value)  # none did
    assert metrics.stage_recall([[1.0] * 6], stage, 4).value == 0  # ties count against


def test_requests_that_say_nothing_are_counted():
    groups = [0, 0, 0, 1, 2, 2, 2]
    s, t = [3, 2, 1, 1, 1, 2, 3], [3, 2, 1, 1, 5, 5, 5]
    assert metrics.overlap(s, t, 2, groups=groups).skipped == 1
    assert metrics.overlap(s, t, 3, groups=groups).skipped == 3
    assert metrics.kendall(s, t, groups=groups).skipped == 2  # one candidate; all t equal
    assert metrics.regret([1, 2], [0, 0], 1, groups=[0, 0]).skipped == 1  # nothing to lose


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.overlap([1.0], [1.0], 1), "overlap: needs lists [B, C] or flat rows with groups, got scores (1,)"),
        (lambda: metrics.overlap([[1.0]], [[1.0]], 0), "overlap: k must be at least 1, got 0"),
        (lambda: metrics.overlap([[1.0]], [[1.0, 2.0]], 1), "overlap: t must have the scores' shape (1, 1), got (1, 2)"),
        (lambda: metrics.overlap([1.0], [1.0], 1, groups=[1, 2]), "overlap: groups and scores must be equally long, got 2 and 1"),
        (lambda: metrics.kendall([[1.0]], [[1.0]], where=[True]), "kendall: where must have the scores' shape (1, 1), got (1,)"),
        (lambda: metrics.kendall([[1.0, np.nan]], [[1.0, 2.0]]), "kendall: s must be finite numbers, 1 are not, first at row 1"),
        (lambda: metrics.kendall([[1.0]], [[np.inf]]), "kendall: t must be finite numbers, 1 are not, first at row 0"),
        (lambda: metrics.kendall([], [], groups=[]), "kendall: needs at least one row, got none"),
        (lambda: metrics.rbo([[1.0]], [[1.0]], 1.0), "rbo: p must lie between 0 and 1, got 1.0"),
        (lambda: metrics.stage_recall([[1.0]], [[1]], 0), "stage_recall: k must be at least 1, got 0"),
        (
            lambda: metrics.regret([[1.0, 2.0]], [[1.0, -2.0]], 1),
            "regret: t must not be negative (a probability, not a logit), 1 are, first at row 1: -2",
        ),
        (
            lambda: metrics.hit_ratio_ecpm([[1.0, 2.0]], [[1.0, 2.0]], [[1.0, -1.0]], 1),
            "ecpm: bid must not be negative (a probability, not a logit), 1 are, first at row 1: -1",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
