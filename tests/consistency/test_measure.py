"""The record against metrics computed one by one, and on the simulated cascade, where a better model must be found better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank import metrics
from prerank.batch import Stage
from prerank.config import ConfigError
from prerank.consistency import Columns, Scored, Settings, clean, read, report
from prerank.consistency.page import page

ALL = Columns(score="good", ranking="ranking", against="bad", item="item_id", stage="stage", bid="bid", truth="worth",
              user_events="user_events", item_events="item_events")  # fmt: skip
AT = Settings(at=(3, 10), resamples=200)


@pytest.fixture(scope="module")
def scored(simulated: Path) -> Scored:
    return read(simulated / "scored.parquet", ALL, logits="score")


@pytest.fixture(scope="module")
def record(scored: Scored):
    return report(scored, AT)


def test_each_metric_is_the_function_of_that_name(scored: Scored, record) -> None:
    g = scored.request
    expected = {
        "overlap@3": metrics.overlap(scored.s, scored.t, 3, groups=g),
        "regret@10": metrics.regret(scored.s, scored.t, 10, groups=g),
        "kendall": metrics.kendall(scored.s, scored.t, groups=g),
        "weighted_tau": metrics.weighted_tau(scored.s, scored.t, groups=g),
        "rbo": metrics.rbo(scored.s, scored.t, 0.9, groups=g),
        "ecpm_hit_ratio@3": metrics.hit_ratio_ecpm(scored.s_worth, scored.t, scored.bid, 3, groups=g),
        "ecpm_regret@3": metrics.regret(scored.s_worth * scored.bid, scored.t * scored.bid, 3, groups=g),
        "joint_recall@3@10": metrics.joint_recall(scored.s, scored.t, 3, 10, truth=scored.truth, groups=g),
        "stage_recall.impression@10": metrics.stage_recall(scored.s, scored.stage, 10, groups=g),
        "stage_recall.ranking@3": metrics.stage_recall(scored.s, scored.stage, 3, reached=Stage.RANKING, groups=g),
    }
    for name, found in expected.items():
        said = record["metrics"][name]
        assert said["value"] == pytest.approx(found.value), name
        assert (said["requests"], said["skipped"]) == (len(found.values) - found.skipped, found.skipped)
        ci = metrics.grouped_interval(found, resamples=400)
        assert (said["low"], said["high"]) == pytest.approx((ci.low, ci.high), abs=0.35 * (ci.high - ci.low)), name


def test_the_better_model_is_surely_better(record) -> None:
    for name, d in record["against"]["difference"].items():
        if name.startswith("joint_recall.ranking"):  # of fewer survivors more are shown: no measure of the pre-ranker
            continue
        sign = -1 if "regret" in name else 1
        assert sign * d["value"] > 0, name
        if "@3" not in name:
            assert min(sign * d["low"], sign * d["high"]) > 0, name


def test_a_model_against_itself_differs_by_nothing(scored: Scored) -> None:
    twin = Scored(request=scored.request, s=scored.s, against=scored.s, t=scored.t)
    for d in report(clean(twin), AT)["against"]["difference"].values():
        assert (d["value"], d["low"], d["high"]) == (0, 0, 0)


def test_logits_of_the_ranking_model_have_regret_when_they_are_said_to_be(scored: Scored) -> None:
    logit = np.log(scored.t / (1 - scored.t))
    silent = report(clean(Scored(request=scored.request, s=scored.s, t=logit)), AT)
    assert not any("regret" in name for name in silent["metrics"])
    assert any(line.startswith("regret and eCPM: left out, as ranking scores are negative") for line in silent["said"])
    told = report(clean(Scored(request=scored.request, s=scored.s, t=logit, t_worth=scored.t)), AT)
    plain = report(clean(Scored(request=scored.request, s=scored.s, t=scored.t)), AT)
    assert told["metrics"]["regret@3"] == pytest.approx(plain["metrics"]["regret@3"])


def test_k_larger_than_requests_is_said(scored: Scored) -> None:
    found = report(scored, Settings(at=(3, 28), resamples=10))
    sizes = np.unique(scored.request, return_counts=True)[1]
    short = int((sizes <= 28).sum())
    assert 0 < short < len(sizes)
    assert f"{short} of {len(sizes)} requests have no more than 28 candidates to compare: without a value @28" in found["said"]
    assert found["metrics"]["overlap@28"]["skipped"] == short
    never = report(scored, Settings(at=(3, 5000), resamples=10))
    assert never["metrics"]["overlap@5000"]["value"] is None


def test_one_request_has_values_but_no_intervals(scored: Scored) -> None:
    found = report(scored.only(scored.request == scored.request[0]), AT)
    assert found["metrics"]["overlap@3"]["value"] is not None
    assert found["metrics"]["overlap@3"]["low"] is None
    assert found["against"]["difference"] == {}
    assert "overlap@3" in page(found)


def test_curves_end_in_everything(record, scored: Scored) -> None:
    for who in ("s", "against"):
        curve = record["curves"][who]
        assert all(low <= value <= high for points in curve.values() for _, value, low, high in points)
        assert curve["overlap"][0][0] == 1
        assert curve["joint_recall"][0][0] == 3
    assert sum(record["curves"]["histogram"]["s"]) == record["metrics"]["overlap@10"]["requests"]


def test_slices(scored: Scored, record) -> None:
    slices, frame = record["slices"], pl.DataFrame({"request": scored.request, "cold": scored.user_events <= 3})
    assert list(slices) == ["cold users (<= 3 train events)", "other users", "cold items (<= 3 train events)", "other items",
                            "head items (top 20%)", "tail items", "impressions and ranking", "impressions and pre_ranking",
                            "impressions and recall"]  # fmt: skip
    cold = slices["cold users (<= 3 train events)"]
    assert cold["requests"] == frame.filter("cold")["request"].n_unique()
    keep = scored.user_events <= 3
    assert cold["metrics"]["overlap@3"]["value"] == pytest.approx(
        metrics.overlap(scored.s[keep], scored.t[keep], 3, groups=scored.request[keep]).value)  # fmt: skip


def test_slices_of_items_divide_the_overlap(scored: Scored, record) -> None:
    """Wanted shares of a slice and its complement add up to 1, and the overlaps weighted by what is wanted to the overlap."""
    g = scored.request
    whole = metrics.Agreement(scored.s, scored.t, groups=g)
    head, k = scored.head, 3
    best, chosen = whole.rank_t < k, whole.rank_s < k
    kept, there = (metrics.Agreement(scored.s, scored.t, groups=g).pool.sum(mask) for mask in (best & chosen & head, best & head))
    expected = np.mean([a / b for a, b in zip(kept, there, strict=True) if b])
    assert record["slices"]["head items (top 20%)"]["metrics"]["overlap@3"]["value"] == pytest.approx(expected)
    for name in ("wanted@3", "chosen@10"):
        both = [record["slices"][s]["metrics"][name]["value"] for s in ("head items (top 20%)", "tail items")]
        assert sum(both) == pytest.approx(1)


def test_negatives_of_a_stage(scored: Scored, record) -> None:
    rows = (scored.stage == Stage.IMPRESSION) | (scored.stage == Stage.RECALL)
    auc = metrics.gauc(scored.s[rows], scored.stage[rows] == Stage.IMPRESSION, scored.request[rows])
    assert record["slices"]["impressions and recall"]["metrics"]["auc"]["value"] == pytest.approx(np.nanmean(auc.values))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"at": (0,)}, "--at: must be numbers from 1 on; got [0]"),
        ({"keep": 5, "show": 6}, "--show, --keep: 1 <= show <= keep must hold; got 6 and 5"),
        ({"p": 1.0}, "--rbo-p: must lie between 0 and 1; got 1.0"),
        ({"level": 95.0}, "--level: must lie between 0 and 1; got 95.0"),
        ({"resamples": 1}, "--resamples: must be at least 2; got 1"),
    ],
)
def test_settings_that_cannot_be_are_named(given, message) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(**given)
    assert str(error.value) == message
