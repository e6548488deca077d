import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prerank import metrics
from prerank.metrics import bootstrap


def planted(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(int)
    return rng.normal(size=n) + labels, labels


def test_counts_are_poisson():
    counts = bootstrap._poisson(np.random.default_rng(0), 400_000)
    for k in range(5):
        expected = math.exp(-1) / math.factorial(k)
        assert np.mean(counts == k) == pytest.approx(expected, abs=4 * math.sqrt(expected / 400_000) + 2e-5)


def test_auc_interval_is_the_textbook_bootstrap():
    scores, labels = planted()
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(scores), len(scores)) for _ in range(400)]
    reference = np.quantile([roc_auc_score(labels[d], scores[d]) for d in draws], [0.025, 0.975])
    ours = metrics.auc_interval(scores, labels, resamples=400)
    width = reference[1] - reference[0]
    assert ours.low == pytest.approx(reference[0], abs=0.2 * width)
    assert ours.high == pytest.approx(reference[1], abs=0.2 * width)


def test_interval_covers_the_truth_as_often_as_it_says():
    truth, covered, worlds = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2))), 0, 100  # AUC of N(1,1) against N(0,1)
    for seed in range(worlds):
        ci = metrics.auc_interval(*planted(400, seed), resamples=200, level=0.9, seed=seed)
        covered += ci.low <= truth <= ci.high
    assert 80 <= covered <= 98  # 90 % nominal, +- about 3 standard deviations of a binomial


def test_logloss_interval_is_the_normal_one():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    probabilities = rng.uniform(0.1, 0.9, 4000)
    losses = metrics.row_losses(probabilities, labels)
    ours = metrics.logloss_interval(probabilities, labels, resamples=500)
    half = 1.96 * losses.std() / math.sqrt(4000)
    assert (ours.low, ours.high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=0.2 * half)


def test_groups_drawn_whole_widen_the_interval():
    scores, labels = planted(300)
    copies = np.repeat(np.arange(300), 10)  # ten identical rows a user: 300 independent observations, not 3000
    by_row = metrics.auc_interval(scores[copies], labels[copies])
    by_user = metrics.auc_interval(scores[copies], labels[copies], groups=copies)
    ratio = (by_user.high - by_user.low) / (by_row.high - by_row.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.3)


def test_grouped_interval_skips_what_the_metric_skips():
    grouped = metrics.Grouped(np.array([1.0, 0.0, np.nan, 0.5]), np.array([1.0, 1.0, 5.0, 2.0]))
    ci = metrics.grouped_interval(grouped, resamples=500)
    assert 0 <= ci.low <= grouped.value <= ci.high <= 1
    assert grouped.mean(np.array([0, 2, 9, 1])) == pytest.approx((0 * 2 + 0.5 * 2) / (2 + 2))


def test_same_seed_same_interval():
    scores, labels = planted(200)
    assert metrics.auc_interval(scores, labels, seed=3) == metrics.auc_interval(scores, labels, seed=3)
    assert metrics.auc_interval(scores, labels, seed=3) != metrics.auc_interval(scores, labels, seed=4)


@pytest.mark.parametrize("metric", ["auc", "gauc", "logloss"])
def test_a_better_model_is_found(metric):
    rng = np.random.default_rng(0)
    logits, users = rng.normal(size=6000), rng.integers(0, 200, 6000)
    labels = (rng.random(6000) < metrics.sigmoid(logits)).astype(int)
    noisy = logits + 0.5 * rng.normal(size=6000)
    better = metrics.paired(metrics.sigmoid(logits), metrics.sigmoid(noisy), labels, metric=metric, groups=users, resamples=300)
    sign = -1 if metric == "logloss" else 1
    assert sign * better.value > 0
    assert min(sign * better.low, sign * better.high) > 0
    assert better.p < 0.01
    reverse = metrics.paired(metrics.sigmoid(noisy), metrics.sigmoid(logits), labels, metric=metric, groups=users, resamples=300)
    assert reverse.value == pytest.approx(-better.value)


def test_the_paired_difference_is_the_difference():
    scores, labels = planted(500)
    other = np.roll(scores, 1)
    assert metrics.paired(scores, other, labels, resamples=50).value == pytest.approx(
        roc_auc_score(labels, scores) - roc_auc_score(labels, other)
    )


def test_a_model_against_itself_differs_by_nothing():
    scores, labels = planted(200)
    same = metrics.paired(scores, scores, labels, resamples=50)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", ["auc", "gauc", "logloss"])
def test_several_models_at_once_are_each_pair_by_itself(metric):
    rng = np.random.default_rng(1)
    labels, users = rng.integers(0, 2, 600), rng.integers(0, 40, 600)
    models = {name: metrics.sigmoid(labels * s + rng.normal(size=600)) for name, s in (("a", 1.0), ("b", 0.8), ("c", 0.1))}
    found = metrics.resampled(models, labels, metric=metric, groups=users, resamples=80, seed=2)
    for a, b in (("a", "b"), ("b", "c"), ("c", "a")):
        alone = metrics.paired(models[a], models[b], labels, metric=metric, groups=users, resamples=80, level=0.99, seed=2)
        assert found.difference(a, b, 0.99) == alone
        assert found.difference(b, a, 0.99).value == -alone.value


def test_equal_models_are_seldom_told_apart():
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=300)
        labels = (rng.random(300) < metrics.sigmoid(truth)).astype(int)
        if 0 < labels.sum() < 300:
            a, b = truth + rng.normal(size=300), truth + rng.normal(size=300)
            found += metrics.paired(a, b, labels, resamples=200, seed=seed).p < 0.05
    assert found <= 9  # 5 % of 60 is 3


def test_bad_input_is_named():
    scores, labels = planted(50)
    with pytest.raises(ValueError, match="paired: gauc needs groups"):
        metrics.paired(scores, scores, labels, metric="gauc")
    with pytest.raises(ValueError, match="bootstrap: groups and scores must be equally long, got 3 and 50"):
        metrics.auc_interval(scores, labels, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="bootstrap: resamples must be at least 2, got 1"):
        metrics.auc_interval(scores, labels, resamples=1)
    with pytest.raises(ValueError, match="no value in any resample"):
        metrics.grouped_interval(metrics.Grouped(np.array([np.nan]), np.array([1.0])))


def test_means_on_the_same_resamples_are_the_bootstrap_of_each():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 400))
    values[0, :50] = np.nan
    grouped = {"a": metrics.Grouped(values[0], np.ones(400)), "b": metrics.Grouped(values[1], rng.random(400))}
    found = metrics.resampled_means(grouped, resamples=2000, seed=1)
    for name, g in grouped.items():
        alone, together = metrics.grouped_interval(g, resamples=2000), found.interval(name)
        assert found.values[name] == g.value
        width = alone.high - alone.low
        assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.15 * width)


def test_paired_means_cancel_what_is_shared():
    hard = np.random.default_rng(0).normal(size=300)
    grouped = {"a": metrics.Grouped(hard + 0.1, np.ones(300)), "b": metrics.Grouped(hard, np.ones(300))}
    better = metrics.resampled_means(grouped, resamples=200).difference("a", "b")
    assert (better.value, better.low, better.high) == pytest.approx((0.1, 0.1, 0.1))


def test_means_of_other_groups_are_refused():
    grouped = {"a": metrics.Grouped(np.zeros(2), np.ones(2)), "b": metrics.Grouped(np.zeros(3), np.ones(3))}
    with pytest.raises(ValueError, match=r"bootstrap: metrics must have the same groups, got \{'a': 2, 'b': 3\}"):
        metrics.resampled_means(grouped)
    with pytest.raises(ValueError, match="bootstrap: resamples must be at least 2, got 1"):
        metrics.resampled_means(grouped, resamples=1)
