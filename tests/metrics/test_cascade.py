"""The cascade played request by request, in loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank import metrics


@st.composite
def pools(draw):
    n, values = draw(st.integers(2, 60)), draw(st.sampled_from([3, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    show = draw(st.integers(1, 4))
    s, t, worth = rng.integers(0, values, (3, n)).astype(float)
    return s, t, worth, rng.integers(0, draw(st.integers(1, 5)), n), show, show + draw(st.integers(0, 6))


def play(s, t, worth, show, keep):
    """Joint recall, recall of each stage, regret and the pre-ranker's part of it, of one request."""
    pool = range(len(s))
    if len(s) <= keep:
        return [math.nan] * 5
    kept = sorted(pool, key=lambda i: (-s[i], worth[i]))[:keep]
    shown = sorted(kept, key=lambda i: (-t[i], worth[i]))[:show]
    best = sorted(worth, reverse=True)[:show]
    relevant = sum(w > 0 for w in best)

    def among(items):
        """Most relevant ones that can be matched: of those worth the same as the last of the best, as many as there are places."""
        last = best[-1]
        more = sum(worth[i] > last for i in items)
        places = sum(w == last for w in best)
        return more + (min(sum(worth[i] == last for i in items), places) if last > 0 else 0)

    survived, arrived, total = among(kept), among(shown), sum(best)
    possible = sum(sorted((worth[i] for i in kept), reverse=True)[:show])
    return [
        arrived / relevant if relevant else math.nan,
        survived / relevant if relevant else math.nan,
        arrived / survived if survived else math.nan,
        (total - sum(worth[i] for i in shown)) / total if total else math.nan,
        (total - possible) / total if total else math.nan,
    ]


def columns(found):
    return np.stack([g.values for g in (found.joint_recall, found.kept, found.shown, found.regret, found.regret_pre_ranking)], axis=1)


@given(pools())
def test_every_request_is_played(pool):
    s, t, worth, groups, show, keep = pool
    found = metrics.simulate(s, t, keep=keep, show=show, truth=worth, groups=groups)
    expected = [play(s[groups == g], t[groups == g], worth[groups == g], show, keep) for g in np.unique(groups)]
    np.testing.assert_allclose(columns(found), expected, atol=1e-12)


@given(pools())
def test_without_a_truth_the_ranking_model_is_it(pool):
    s, t, _, groups, show, keep = pool
    found = metrics.simulate(s, t, keep=keep, show=show, groups=groups)
    given_ = metrics.simulate(s, t + 1, keep=keep, show=show, truth=t + 1, groups=groups)
    np.testing.assert_allclose(found.joint_recall.values, given_.joint_recall.values, atol=1e-12)
    assert set(found.shown.values[~np.isnan(found.shown.values)]) <= {1.0}  # it shows whatever of its best ones it gets
    np.testing.assert_allclose(found.regret.values, found.regret_pre_ranking.values, atol=1e-12)


@given(pools())
def test_keeping_as_many_as_are_shown_is_overlap(pool):
    s, t, _, groups, show, _ = pool
    np.testing.assert_allclose(
        metrics.joint_recall(s, t, show, show, groups=groups).values, metrics.overlap(s, t, show, groups=groups).values, atol=1e-12
    )


@given(pools())
def test_labels_are_a_truth(pool):
    s, t, worth, groups, show, keep = pool
    clicks = (worth > np.quantile(worth, 0.8)).astype(float)
    found = metrics.simulate(s, t, keep=keep, show=show, truth=clicks, groups=groups)
    for g, value in zip(np.unique(groups), found.joint_recall.values, strict=True):
        y = clicks[groups == g]
        assert math.isnan(value) == (y.sum() == 0 or len(y) <= keep)


def test_a_perfect_cascade_loses_nothing():
    worth = np.random.default_rng(0).random((5, 40))
    found = metrics.simulate(worth, worth, keep=10, show=3, truth=worth)
    assert (found.joint_recall.value, found.kept.value, found.shown.value, found.regret.value) == (1, 1, 1, 0)


def test_negative_scores_have_no_regret():
    logits = np.random.default_rng(0).normal(size=(3, 20))
    found = metrics.simulate(logits, logits, keep=5, show=2)
    assert found.joint_recall.value == 1
    assert found.regret is found.regret_pre_ranking is None


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"cascade: 1 <= show <= keep must hold, got show 3 and keep 2"):
        metrics.joint_recall([[1.0]], [[1.0]], 3, 2)
    with pytest.raises(ValueError, match=r"cascade: truth must not be negative .*, 1 are, first at row 0: -1"):
        metrics.joint_recall([[1.0, 2.0]], [[1.0, 2.0]], 1, 1, truth=[[-1.0, 1.0]])
