import json
import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from prerank import metrics


def world(n=3000):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=n)
    labels = (rng.random(n) < metrics.sigmoid(logits)).astype(int)
    return logits, labels, rng.integers(0, 100, n)


def test_every_number_is_the_metric_of_that_name():
    logits, labels, users = world()
    p = 1 / (1 + np.exp(-logits))
    m = metrics.evaluate(logits, labels, groups=users)
    assert (m.rows, m.positives, m.groups) == (3000, labels.sum(), 100)
    assert m.auc == pytest.approx(roc_auc_score(labels, logits))
    assert m.logloss == pytest.approx(log_loss(labels, p))
    assert m.ece == pytest.approx(metrics.ece(p, labels))
    assert m.calibration == pytest.approx(p.sum() / labels.sum())
    assert m.gauc == metrics.gauc(logits, labels, users).value
    assert m.gauc_skipped == 0


def test_logits_and_probabilities_agree():
    logits, labels, users = world()
    one = metrics.evaluate(logits, labels, groups=users)
    other = metrics.evaluate(metrics.sigmoid(logits), labels, kind="probabilities", groups=users)
    for a, b in zip(one.to_dict().values(), other.to_dict().values(), strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_log_loss_of_extreme_logits_is_exact():
    m = metrics.evaluate([1000.0, -1000.0, 50.0], [0, 1, 1])
    assert m.logloss == pytest.approx((1000 + 1000 + math.log1p(math.exp(-50))) / 3)


def test_intervals_surround_and_survive_json():
    logits, labels, users = world()
    plain = json.loads(json.dumps(metrics.evaluate(logits, labels, groups=users, resamples=100).to_dict()))
    for name in ("auc", "logloss", "gauc"):
        low, high = plain[f"{name}_ci"]
        assert low < plain[name] < high


def test_without_groups_or_resamples_there_is_less():
    logits, labels, _ = world()
    m = metrics.evaluate(logits, labels)
    assert set(m.to_dict()) == {"rows", "positives", "auc", "logloss", "ece", "calibration"}
    assert str(m) == f"AUC {m.auc:.4f}  LogLoss {m.logloss:.4f}  ECE {m.ece:.4f}"


def test_no_group_with_both_classes_gives_nan_not_an_error():
    m = metrics.evaluate([1.0, 2.0], [0, 1], groups=["a", "b"], resamples=10)
    assert math.isnan(m.gauc)
    assert (m.gauc_skipped, m.gauc_ci) == (2, None)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"auc: needs both classes, got only 1s \(n=2\)"):
        metrics.evaluate([1.0, 2.0], [1, 1])
