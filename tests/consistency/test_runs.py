"""Runs scored on the simulated cascade: the same candidates for every model, and what the log says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank.batch import Stage
from prerank.config import ConfigError
from prerank.consistency import Settings, report
from prerank.consistency.runs import score_runs
from prerank.ensembles import ensemble
from prerank.metrics import sigmoid
from prerank.run import open_run
from tests.consistency.world import trained


@pytest.fixture(scope="module")
def scored(runs: Path):
    return score_runs(runs / "mf", runs / "ranker", runs / "dssm")


def test_every_logged_candidate_of_the_split_is_there(runs: Path, scored) -> None:
    data = open_run(runs / "mf").dataset
    assert len(scored.s) == len(data.rows("test", None)) > len(data.rows("test"))
    assert np.bincount(scored.stage).tolist() == np.bincount(data.stage[data.rows("test", None)]).tolist()


def test_impressions_have_the_logits_of_the_runs(runs: Path, scored) -> None:
    shown = scored.stage == Stage.IMPRESSION
    for name, column in (("mf", scored.s), ("ranker", scored.t), ("dssm", scored.against)):
        logits, _ = open_run(runs / name).logits("test")
        np.testing.assert_allclose(np.sort(column[shown]), np.sort(logits[:, 0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scored.t_worth, sigmoid(scored.t))
    assert scored.names == ("mf", "ranker", "dssm")


def test_the_logs_teacher_is_the_default(runs: Path) -> None:
    scored = score_runs(runs / "mf", truth="click")
    log = pl.read_parquet(runs / "log.parquet")
    assert np.isin(scored.t.astype(np.float32), log["teacher"].to_numpy()).all()
    assert scored.names[1] == "the log's teacher"
    data = open_run(runs / "mf").dataset
    assert scored.truth.sum() == data.labels[data.rows("test")].sum()
    assert scored.said[0].startswith(f"test rows in lists by request: {scored.requests} of up to ")


def test_events_are_counted_in_train(runs: Path, scored) -> None:
    data = open_run(runs / "mf").dataset
    train = data.rows("train")
    assert scored.user_events.max() == np.bincount(data.user_row[train]).max()
    assert scored.item_events.sum() == np.bincount(data.item_row[train], minlength=len(data.item_ids))[
        data.item_row[data.rows("test", None)]].sum()  # fmt: skip


def test_a_report_of_runs(scored) -> None:
    record = report(scored, Settings(at=(3, 10), resamples=50))
    assert record["requests"] == scored.requests
    assert {"overlap@3", "regret@10", "joint_recall@3@10", "stage_recall.impression@10"} <= set(record["metrics"])
    assert "impressions and recall" in record["slices"]
    assert record["against"]["difference"]["overlap@10"]["value"] == pytest.approx(
        record["metrics"]["overlap@10"]["value"] - record["against"]["metrics"]["overlap@10"]["value"])  # fmt: skip


def test_an_ensemble_ranks(runs: Path) -> None:
    made = runs / "ensemble"
    ensemble([open_run(runs / "ranker"), open_run(runs / "dssm")], made, resamples=0, overwrite=True)
    scored = score_runs(runs / "mf", made)
    members = json.loads((made / "ensemble.json").read_text())["members"]
    weights = [member["weights"]["click"] for member in members]
    parts = [score_runs(runs / "mf", runs / name).t for name in ("ranker", "dssm")]
    np.testing.assert_allclose(scored.t, weights[0] * parts[0] + weights[1] * parts[1], rtol=1e-4, atol=1e-5)


def test_the_evaluation_pool_is_what_is_scored(runs: Path) -> None:
    pool = {"by": "request", "stages": {"impression": "all", "random": 30}, "at": [5]}
    trained(runs, "pooled", evaluation=pool)
    scored = score_runs(runs / "pooled", runs / "ranker")
    per_request = np.bincount(np.unique(scored.request, return_inverse=True)[1], scored.stage == Stage.RANDOM)
    assert set(per_request) == {30}
    again = score_runs(runs / "pooled", runs / "ranker")
    np.testing.assert_array_equal(scored.s, again.s)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tset"}, "--split: unknown split 'tset'; did you mean 'test'?"),
        ({"label": "clik"}, "has no label 'clik'; did you mean 'click'?"),
        ({"truth": "buy"}, "has no label 'buy'; valid: click"),
    ],
)
def test_mistakes_are_named(runs: Path, arguments, message) -> None:
    with pytest.raises(ConfigError) as error:
        score_runs(runs / "mf", **arguments)
    assert message in str(error.value)


def test_a_model_that_reads_what_varies_inside_the_log_is_refused(runs: Path) -> None:
    ids = [{"name": "user_id", "side": "user"}, {"name": "item_id", "side": "item"}]
    features = [*ids, {"name": "bid", "side": "item", "kind": "numeric"}]
    trained(runs, "other", **{"data.features": features})
    with pytest.raises(ConfigError, match=r"reads feature 'bid', which the data of .*mf' does not have"):
        score_runs(runs / "mf", runs / "other")


def test_a_model_whose_vocabularies_differ_is_asked_about_the_same_pairs(runs: Path) -> None:
    """One that has seen impressions alone has other vocabularies: its scores of every pair are those that it has of its own rows."""
    log = pl.read_parquet(runs / "log.parquet").filter(pl.col("stage") == "impression")
    log.sort("item_id", descending=True).sort("time_ms", maintain_order=True).write_parquet(runs / "shown.parquet")
    trained(runs, "shown", **{"data.log": str(runs / "shown.parquet")})
    own, theirs = open_run(runs / "mf").dataset, open_run(runs / "shown")
    assert len(own.item_ids) > len(theirs.dataset.item_ids)
    scored = score_runs(runs / "mf", runs / "shown")
    d, splits = theirs.dataset, ("train", "validation", "test")
    of = np.concatenate([d.rows(split) for split in splits])
    table = pl.DataFrame({"user_id": d.user_ids.gather(d.user_row[of]), "item_id": d.item_ids.gather(d.item_row[of]),
                          "z": np.concatenate([theirs.logits(split)[0][:, 0] for split in splits])})  # fmt: skip
    table = table.unique(["user_id", "item_id"])  # the model reads ids alone: a pair has one logit
    rows = own.rows("test")
    pairs = pl.DataFrame({"user_id": own.user_ids.gather(own.user_row[rows]), "item_id": own.item_ids.gather(own.item_row[rows])})
    expected = np.sort(pairs.join(table, on=["user_id", "item_id"], how="inner")["z"].to_numpy())
    assert len(expected) == len(rows)
    np.testing.assert_allclose(np.sort(scored.t[scored.stage == 0]), expected, atol=1e-5)
    assert len(scored.t) > len(rows)


def test_a_log_without_a_teacher_needs_a_ranking_model(runs: Path) -> None:
    trained(runs, "plain", **{"data.teacher": None})
    with pytest.raises(ConfigError, match=r"its data has no teacher; name the column in data.teacher, or give --ranking"):
        score_runs(runs / "plain")


def test_some_requests_by_lot(runs: Path, scored) -> None:
    some = [score_runs(runs / "mf", requests=7, seed=seed) for seed in (0, 0, 1)]
    whole = score_runs(runs / "mf")
    assert [one.requests for one in some] == [7, 7, 7]
    assert np.array_equal(some[0].s, some[1].s)
    assert not np.array_equal(some[0].request, some[2].request)
    assert f"7 of {whole.requests} requests, by lot" in some[0].said
    assert set(some[0].s) <= set(whole.s)  # the same candidates with the same scores
    assert score_runs(runs / "mf", requests=10**6).requests == whole.requests
