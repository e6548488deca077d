import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, roc_auc_score
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from prerank import metrics


@st.composite
def grouped_rows(draw, grades=1):
    n = draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    scores = rng.permutation(n).astype(np.float64)  # no ties
    return scores, rng.integers(0, grades + 1, n), rng.integers(0, draw(st.integers(1, 12)), n)


@given(grouped_rows(), st.booleans())
def test_gauc_is_the_loop_over_groups(rows, tied):
    scores, labels, groups = rows
    scores = scores // 3 if tied else scores
    total, rows_used, skipped = 0.0, 0, 0
    for g in np.unique(groups):
        s, y = scores[groups == g], labels[groups == g]
        if 0 < y.sum() < len(y):
            total += roc_auc_score(y, s) * len(y)
            rows_used += len(y)
        else:
            skipped += 1
    result = metrics.gauc(scores, labels, groups)
    assert result.skipped == skipped
    assert result.value == pytest.approx(total / rows_used if rows_used else math.nan, nan_ok=True)


def test_gauc_weighs_by_impressions():
    # group a: 4 rows, AUC 1; group b: 2 rows, AUC 0; group c: one class
    result = metrics.gauc([1, 2, 3, 4, 9, 8, 5], [0, 0, 1, 1, 0, 1, 1], list("aaaabbc"))
    assert result.value == pytest.approx((4 * 1 + 2 * 0) / (4 + 2))
    assert (result.skipped, len(result.values)) == (1, 3)
    assert repr(result) == "<Grouped 0.6667 over 2 groups, 1 skipped>"


def test_gauc_refuses_graded_labels():
    with pytest.raises(ValueError, match="gauc: labels must be 0 or 1, first other at row 1: 2"):
        metrics.gauc([1, 2], [0, 2], [0, 0])


ORACLES = {
    "recall": (metrics.recall, RetrievalRecall),
    "hit_rate": (metrics.hit_rate, RetrievalHitRate),
    "mrr": (metrics.mrr, RetrievalMRR),
    "mean_average_precision": (metrics.mean_average_precision, RetrievalMAP),
}


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("name", ORACLES)
@given(rows=grouped_rows(), k=st.integers(1, 6))
def test_against_torchmetrics(name, rows, k):
    scores, labels, groups = rows
    ours, theirs = ORACLES[name]
    if labels.sum() == 0:
        assert math.isnan(ours(scores, labels, k, groups=groups).value)
        return
    # torchmetrics wants scores in (0, 1] for nothing: it only sorts them
    oracle = theirs(empty_target_action="skip", top_k=k)
    reference = oracle(torch.from_numpy((scores + 1) / 100), torch.from_numpy(labels), indexes=torch.from_numpy(groups))
    result = ours(scores, labels, k, groups=groups)
    if name == "mean_average_precision":  # torchmetrics divides by the positives found, we by min(positives, K)
        found = [labels[groups == g][np.argsort(-scores[groups == g])][:k].sum() for g in np.unique(groups)]
        possible = [min(labels[groups == g].sum(), k) for g in np.unique(groups)]
        values = [v * p / f if f else 0.0 for v, p, f in zip(result.values, possible, found, strict=True) if p]
        assert np.mean(values) == pytest.approx(float(reference), abs=1e-5)
    else:
        assert result.value == pytest.approx(float(reference), abs=1e-5)


@settings(deadline=None)
@given(grouped_rows(grades=4), st.integers(1, 6), st.booleans())
def test_ndcg_of_graded_labels_is_sklearns(rows, k, exponential):
    scores, labels, groups = rows
    gains = 2.0**labels - 1 if exponential else labels
    values = []
    for g in np.unique(groups):
        s, y = scores[groups == g], gains[groups == g]
        if y.sum() > 0:
            values.append(1.0 if len(y) == 1 else ndcg_score([y], [s], k=k))
    result = metrics.ndcg(scores, labels, k, groups=groups, exponential=exponential)
    assert result.value == pytest.approx(np.mean(values) if values else math.nan, nan_ok=True)


def test_ndcg_of_binary_labels_is_torchmetrics():
    rng = np.random.default_rng(3)
    scores, labels, groups = rng.random(500), rng.integers(0, 2, 500), rng.integers(0, 40, 500)
    oracle = RetrievalNormalizedDCG(empty_target_action="skip", top_k=5)
    reference = oracle(torch.from_numpy(scores), torch.from_numpy(labels), indexes=torch.from_numpy(groups))
    assert metrics.ndcg(scores, labels, 5, groups=groups).value == pytest.approx(float(reference), abs=1e-6)


def test_full_map_is_sklearns():
    rng = np.random.default_rng(5)
    scores, labels = rng.random((30, 12)), rng.integers(0, 2, (30, 12))
    labels[:, 0] = 1
    assert metrics.mean_average_precision(scores, labels).value == pytest.approx(label_ranking_average_precision_score(labels, scores))


METRICS = [metrics.recall, metrics.hit_rate, metrics.mrr, metrics.mean_average_precision, metrics.ndcg]


@pytest.mark.parametrize("metric", METRICS)
def test_lists_with_where_are_groups(metric):
    rng = np.random.default_rng(7)
    scores, labels, where = rng.integers(0, 5, (20, 9)).astype(float), rng.integers(0, 2, (20, 9)), rng.random((20, 9)) < 0.7
    where[:, 0] = True
    flat = metric(scores[where], labels[where], 3, groups=np.nonzero(where)[0])
    padded = metric(scores, labels, 3, where=where)
    np.testing.assert_array_equal(flat.values, padded.values)
    garbage = np.where(where, scores, 1e9)  # what lies under padding is never read
    np.testing.assert_array_equal(metric(garbage, np.where(where, labels, 1), 3, where=where).values, padded.values)


@pytest.mark.parametrize("metric", METRICS)
def test_order_of_rows_does_not_matter_even_with_ties(metric):
    rng = np.random.default_rng(8)
    scores, labels, groups = rng.integers(0, 3, 200), rng.integers(0, 2, 200), rng.integers(0, 9, 200)
    shuffled = rng.permutation(200)
    one, other = metric(scores, labels, 4, groups=groups), metric(scores[shuffled], labels[shuffled], 4, groups=groups[shuffled])
    np.testing.assert_allclose(one.values, other.values, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_score_earns_no_more_than_the_worst_order(metric):
    labels = np.array([[1, 0, 0, 1, 0, 0]])
    worst = metric(np.array([[1, 6, 5, 2, 4, 3]]), labels, 3).value
    assert metric(np.zeros((1, 6)), labels, 3).value == worst == 0.0


def test_perfect_order_is_one():
    labels = np.array([[3, 0, 1, 0], [0, 2, 0, 0]])
    for metric in METRICS:
        assert metric(labels, labels, 4).value == pytest.approx(1.0)


def test_values_written_out():
    scores, labels = [[4.0, 3.0, 2.0, 1.0]], [[0, 1, 0, 1]]
    assert metrics.recall(scores, labels, 2).value == 1 / 2
    assert metrics.hit_rate(scores, labels, 1).value == 0
    assert metrics.mrr(scores, labels).value == 1 / 2
    assert metrics.mrr(scores, labels, 1).value == 0
    assert metrics.mean_average_precision(scores, labels).value == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert metrics.mean_average_precision(scores, labels, 3).value == pytest.approx((1 / 2) / 2)
    ideal = 1 + 1 / math.log2(3)
    assert metrics.ndcg(scores, labels).value == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": [1.0], "labels": [1], "k": 1}, "recall: needs lists [B, C] or flat rows with groups, got scores (1,) and labels (1,)"),
        ({"scores": [[1.0]], "labels": [[1]], "k": 0}, "recall: k must be at least 1, got 0"),
        ({"scores": [[1.0]], "labels": [[1]], "k": 1, "where": [True]}, "recall: where must have the scores' shape (1, 1), got (1,)"),
        ({"scores": [1.0, 2.0], "labels": [1, 0], "k": 1, "groups": [0]}, "recall: groups and scores must be equally long, got 1 and 2"),
        (
            {"scores": [[1.0]], "labels": [[1]], "k": 1, "groups": [0]},
            "recall: groups belong to flat rows, got scores of shape (1, 1)",
        ),
    ],
)
def test_bad_shapes_are_named(arguments, message):
    with pytest.raises(ValueError) as error:
        metrics.recall(**arguments)
    assert str(error.value) == message


def test_ndcg_refuses_negative_labels():
    with pytest.raises(ValueError, match="ndcg: labels must not be negative, got -1"):
        metrics.ndcg([[1.0, 2.0]], [[-1, 1]])
