import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_calibration_error

from prerank import metrics


@st.composite
def tied_rows(draw):
    """Scores from few values, so that ties are everywhere; both classes occur."""
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(scores, float), np.array(labels)


@given(tied_rows())
def test_auc_is_sklearns(rows):
    scores, labels = rows
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(tied_rows())
def test_auc_is_the_probability_of_a_right_pair(rows):
    scores, labels = rows
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    assert metrics.auc(scores, labels) == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)), abs=1e-12)


@given(tied_rows(), st.integers(0, 2**31))
def test_weights_are_counts_of_rows(rows, seed):
    scores, labels = rows
    counts = np.random.default_rng(seed).integers(0, 4, len(scores))
    s, y = np.repeat(scores, counts), np.repeat(labels, counts)
    value = metrics.Auc(scores, labels)(counts)
    if 0 < y.sum() < len(y):
        assert value == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    else:
        assert math.isnan(value)


@given(tied_rows(), st.integers(0, 2**31), st.integers(1, 5))
def test_weights_of_groups_are_weights_of_their_rows(rows, seed, groups):
    scores, labels = rows
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, len(scores))
    auc, weighted = metrics.Auc(scores, labels), metrics.Auc(scores, labels).of_groups(group)
    for _ in range(3):
        counts = rng.integers(0, 3, groups)
        assert weighted(counts) == pytest.approx(auc(counts[group]), abs=1e-12, nan_ok=True)


@given(tied_rows())
def test_auc_knows_only_the_order(rows):
    scores, labels = rows
    assert metrics.auc(np.exp(scores), labels) == metrics.auc(scores, labels)
    assert metrics.auc(-scores, labels) == pytest.approx(1 - metrics.auc(scores, labels), abs=1e-12)


def test_auc_untied_large():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 10_000), rng.normal(size=10_000)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(label):
    with pytest.raises(ValueError, match=rf"^auc: needs both classes, got only {label}s \(n=3\)$"):
        metrics.auc([0.1, 0.2, 0.3], [label] * 3)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "auc: needs at least one row, got none"),
        ([0.1, 0.2], [0], "auc: scores and labels must be equally long, got 2 and 1"),
        ([0.1, math.nan, math.nan], [0, 1, 1], "auc: scores must be numbers, 2 are NaN, first at row 1"),
        ([0.1, 0.2, 0.3], [0, 1, 0.5], "auc: labels must be 0 or 1, 1 are not, first at row 2: 0.5"),
    ],
)
def test_bad_rows_are_named(scores, labels, message):
    with pytest.raises(ValueError) as error:
        metrics.auc(scores, labels)
    assert str(error.value) == message


def test_logloss_is_sklearns_and_its_formula():
    p, y = np.array([0.9, 0.2, 0.4]), np.array([1, 0, 1])
    assert metrics.logloss(p, y) == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3)
    assert metrics.logloss(p, y) == pytest.approx(log_loss(y, p))


def test_logloss_of_a_sure_mistake_is_clipped():
    assert metrics.logloss([0.0, 1.0], [1, 0]) == pytest.approx(-math.log(1e-7))
    assert metrics.logloss([0.0, 1.0], [0, 1]) == pytest.approx(-math.log1p(-1e-7))


def test_logloss_takes_soft_labels():
    assert metrics.logloss([0.25], [0.5]) == pytest.approx(-0.5 * math.log(0.25) - 0.5 * math.log(0.75))


def test_probabilities_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"logloss: probabilities must lie in \[0, 1\], 1 do not, first at row 1: 1.5"):
        metrics.logloss([0.5, 1.5], [0, 1])


def test_rela_impr():
    assert metrics.rela_impr(0.8, 0.7) == pytest.approx((0.8 - 0.5) / (0.7 - 0.5) - 1)
    with pytest.raises(ValueError, match="nothing to improve"):
        metrics.rela_impr(0.8, 0.5)


def test_brier_is_sklearns():
    rng = np.random.default_rng(1)
    p, y = rng.random(500), rng.integers(0, 2, 500)
    assert metrics.brier(p, y) == pytest.approx(brier_score_loss(y, p))


def test_calibration_ratio():
    assert metrics.calibration_ratio([0.2, 0.4, 0.6], [0, 0, 1]) == pytest.approx(1.2)
    assert metrics.calibration_ratio([0.2], [0]) == math.inf


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([5, 15, 30]))
def test_ece_of_equal_width_is_torchmetrics(seed, bins):
    rng = np.random.default_rng(seed)
    p, y = rng.random(300).astype(np.float32), rng.integers(0, 2, 300)
    reference = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(y), n_bins=bins, norm="l1")
    assert metrics.ece(p, y, bins=bins) == pytest.approx(float(reference), abs=2e-6)


def test_ece_of_equal_frequency_by_hand():
    p, y = [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 0]
    # bins {.1, .2} and {.3, .4}: |.15 - .5| / 2 + |.35 - 0| / 2
    assert metrics.ece(p, y, bins=2, by="frequency") == pytest.approx((0.35 + 0.35) / 2)


def test_equal_predictions_share_a_bin():
    r = metrics.reliability([0.3] * 9 + [0.9], [0, 1] * 5, bins=5, by="frequency")
    assert r.count.tolist() == [9, 1]
    assert r.predicted == pytest.approx([0.3, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.sampled_from(["width", "frequency"]), st.integers(1, 9))
def test_no_row_is_lost_in_binning(p, by, bins):
    r = metrics.reliability(p, [1] * len(p), bins=bins, by=by)
    assert r.count.sum() == len(p)
    assert (r.predicted * r.count).sum() == pytest.approx(sum(p))


@given(tied_rows())
def test_roc_corners_are_sklearns(rows):
    scores, labels = rows
    false, true = metrics.roc(scores, labels)
    reference = roc_curve(labels, scores, drop_intermediate=False)
    assert false == pytest.approx(reference[0])
    assert true == pytest.approx(reference[1])
    assert np.trapezoid(true, false) == pytest.approx(metrics.auc(scores, labels))


def test_sigmoid_does_not_overflow():
    assert metrics.sigmoid([-1000.0, 0.0, 1000.0]).tolist() == [0.0, 0.5, 1.0]
    assert metrics.sigmoid([2.0])[0] == pytest.approx(1 / (1 + math.exp(-2)))
