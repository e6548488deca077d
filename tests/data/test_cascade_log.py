"""Preparing a cascade's log: rows by stage, counts, list columns, and candidates from a table of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.batch import Stage
from prerank.config import ConfigError, Lists
from prerank.data import ALL, DataError, ListLoader, Loader, prepare
from prerank.data.sources import find
from tests.data.cascade import STAGES, cascade_data, cascade_dataset, cascade_log


def test_rows_are_impressions_unless_more_is_asked_for(tmp_path: Path) -> None:
    log = cascade_log(0)
    dataset = cascade_dataset(log, tmp_path)
    stage, split = log["stage"].to_numpy(), np.asarray(dataset.split)
    for number, name in enumerate(("train", "validation", "test")):
        np.testing.assert_array_equal(dataset.rows(name), np.flatnonzero((split == number) & (stage == "impression")))
        np.testing.assert_array_equal(dataset.rows(name, ALL), np.flatnonzero(split == number))
        np.testing.assert_array_equal(dataset.rows(name, None), np.flatnonzero(split == number))
        some = dataset.rows(name, (Stage.RECALL, Stage.RANKING))
        np.testing.assert_array_equal(some, np.flatnonzero((split == number) & np.isin(stage, ["recall", "ranking"])))
    assert dataset.stage is not None
    assert [STAGES[s] for s in dataset.stage] == stage.tolist()
    batches = list(Loader(dataset, dataset.rows("train"), 8).epoch(0))
    assert sum(b.rows for b in batches) == len(dataset.rows("train"))


def test_counts_are_of_impressions_and_of_every_row(tmp_path: Path) -> None:
    log = cascade_log(1)
    dataset = cascade_dataset(log, tmp_path)
    train = log.filter(pl.Series(np.asarray(dataset.split) == 0))
    for counts, rows in ((dataset.counts, train.filter(pl.col("stage") == "impression")), (dataset.counts_every, train)):
        items = rows["item"].to_list()
        for raw, row in zip(dataset.item_ids, dataset.items["item"], strict=True):
            assert counts["item"][row] == (items.count(raw) if row > 2 else counts["item"][row])
        assert counts["item"].sum() == len(items)
    assert len(dataset.counts["item"]) == 3 + train["item"].n_unique()  # candidates have rows of their own


def test_a_log_without_stages_is_prepared_as_ever(tmp_path: Path) -> None:
    log = cascade_log(2).filter(pl.col("stage") == "impression").drop("stage", "score", "bid")
    dataset = cascade_dataset(log, tmp_path, stage=None, teacher=None, bid=None)
    assert (dataset.stage, dataset.teacher, dataset.bid) == (None, None, None)
    assert dataset.counts_every is dataset.counts
    np.testing.assert_array_equal(dataset.rows("train"), dataset.rows("train", ALL))
    assert len(dataset.rows("train", (Stage.RECALL,))) == 0
    written = {p.name for p in dataset.path.iterdir()}
    assert not written & {"stage.npy", "teacher.npy", "bid.npy", "counts-every"}


def test_requests_stay_together(tmp_path: Path) -> None:
    log = cascade_log(3, requests=200)
    dataset = cascade_dataset(log, tmp_path, split={"kind": "request", "validation": 0.2, "test": 0.2})
    parts = pl.DataFrame({"request": log["request"], "split": np.asarray(dataset.split)}).unique()
    assert parts.height == log["request"].n_unique()
    assert abs((parts["split"] == 2).mean() - 0.2) < 0.1
    named = log.with_columns(request=pl.format("r{}", "request"))
    (tmp_path / "text").mkdir()
    assert prepare(cascade_data(named, tmp_path / "text")).request is not None
    with pytest.raises(DataError, match=r"split.kind: request needs data.request"):
        find(cascade_data(log, tmp_path, request=None))


def test_list_columns_become_rows(tmp_path: Path) -> None:
    flat = cascade_log(4).sort("request", maintain_order=True)
    entries = ["item", "stage", "click", "score", "bid", "price"]
    lists = flat.group_by("request", maintain_order=True).agg(pl.first("user", "time", "hour"), *entries)
    empty = lists.head(1).with_columns(pl.lit(999, pl.Int64).alias("request"), *(pl.col(c).list.head(0) for c in entries))
    (tmp_path / "lists").mkdir()
    (tmp_path / "flat").mkdir()
    a = cascade_dataset(pl.concat([lists, empty]), tmp_path / "lists", explode=entries)
    b = cascade_dataset(flat, tmp_path / "flat")
    for name in ("labels", "stage", "teacher", "bid", "split", "ts", "request"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.items["item"][a.item_row], b.items["item"][b.item_row])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            pl.col("click").list.head(1),
            "data.explode: lists of a row must be equally long; in row 1 of cascade.parquet 'item' has 2, 'click' 1",
        ),
        (pl.lit(1).alias("click"), "data.explode: column 'click' must hold lists (as a Parquet file can), it is Int32"),
    ],
)
def test_lists_that_do_not_fit_are_named(tmp_path: Path, change: pl.Expr, message: str) -> None:
    log = pl.DataFrame({"request": [1], "user": [1], "time": [1], "item": [[1, 2]], "stage": [["impression"] * 2], "click": [[0, 1]]})
    data = cascade_data(log.with_columns(change), tmp_path, explode=["item", "stage", "click"], teacher=None, bid=None)
    with pytest.raises(DataError) as error:
        prepare(data)
    assert message in str(error.value)
    with pytest.raises(DataError, match=r"data.explode: log '.*' has no column 'stages'; did you mean 'stage'"):
        prepare(cascade_data(log, tmp_path, explode=["stages"]))


def with_candidates(tmp_path: Path, made: dict[str, list[Any]], **more: Any) -> Any:
    log = cascade_log(5)
    pl.DataFrame(made).write_parquet(tmp_path / "made.parquet")
    return log, cascade_data(log, tmp_path, candidates=str(tmp_path / "made.parquet"), **more)


def test_made_candidates_join_the_lists(tmp_path: Path) -> None:
    """Of requests that the log has; item 77 is only there, and has a row in the vocabulary of every stage."""
    features = [{"name": "user", "side": "user"}, {"name": "item", "side": "item"}, {"name": "price", "side": "item"},
                {"name": "hour", "side": "context"}]  # fmt: skip
    users = dict(zip(cascade_log(5)["request"], cascade_log(5)["user"], strict=True))
    made = {"request": [0, 0, 1], "user": [users[r] for r in (0, 0, 1)], "item": [77, 78, 77], "stage": ["recall", "ranking", 3]}
    made["stage"] = ["recall", "ranking", "recall"]
    log, data = with_candidates(tmp_path, made, features=features, split={"kind": "request", "validation": 0, "test": 0})
    dataset = prepare(data)
    assert dataset.logged == log.height == len(dataset) - 3
    assert dataset.stage is not None
    assert dataset.stage[-3:].tolist() == [Stage.RECALL, Stage.RANKING, Stage.RECALL]
    assert dataset.labels[-3:].sum() == 0
    assert set(dataset.rows("train")) & {len(dataset) - 1} == set()
    stages = {"impression": "all", "ranking": "all", "recall": "all"}
    (batch,) = ListLoader(dataset, "train", Lists.model_validate({"stages": stages}), 1000).epoch(0)
    assert batch.request is not None
    assert batch.ts is not None
    b = batch.request.tolist().index(0)
    here = batch.item_index[b][batch.where[b]]
    new = (batch.item["item"][here] == dataset.encoders["item"].encode([77])[0]).nonzero()[0]
    assert batch.ts[b][new] == batch.ts[b][0]
    assert batch.item["price"][here][new] == dataset.encoders["price"].encode([None])[0]  # never logged anywhere
    before = cascade_dataset(log, tmp_path, features=features, split={"kind": "request", "validation": 0, "test": 0})
    assert before.fingerprint != dataset.fingerprint
    np.testing.assert_array_equal(before.log["hour"], dataset.log["hour"][: dataset.logged])


MADE = {"user": [0, 1, 2] * 9, "item": list(range(27)), "stage": [3] * 27}


def test_made_candidates_without_what_the_split_reads_are_train_rows(tmp_path: Path) -> None:
    _, data = with_candidates(tmp_path, MADE, split={"kind": "time", "validation": 0.2, "test": 0.2}, request=None)
    assert prepare(data).split[-27:].tolist() == [0] * 27


def test_made_candidates_are_dealt_and_leave_the_split_of_the_log_alone(tmp_path: Path) -> None:
    """A pool of test items may then hold candidates, and none that training called negative."""
    split = {"kind": "random", "validation": 0.3, "test": 0.3}
    log, data = with_candidates(tmp_path, MADE, split=split, request=None)
    dataset, before = prepare(data), cascade_dataset(log, tmp_path, split=split, request=None)
    np.testing.assert_array_equal(dataset.split[: dataset.logged], before.split)
    assert set(dataset.split[-27:].tolist()) == {0, 1, 2}
    pool = ListLoader(dataset, "test", Lists.model_validate({"by": "user", "stages": {"impression": "all", "random": "all"}}), 1000)
    trained = {(int(dataset.user_row[r]), int(dataset.item_row[r])) for r in dataset.rows("train", None)}
    (batch,) = pool.epoch(0)
    drawn = (batch.where & (batch.stage == Stage.RANDOM)).nonzero()
    users = dataset.encoders["user"].encode(dataset.user_ids.to_list()).tolist()
    items = dataset.encoders["item"].encode(dataset.item_ids.to_list()).tolist()
    asked = {(users.index(int(batch.user["user"][batch.user_index[b]])), items.index(int(batch.item["item"][batch.item_index[b, c]])))
             for b, c in drawn.tolist()}  # fmt: skip
    assert asked
    assert not asked & trained


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"user": [1], "item": [1], "request": [1]}, "stage: candidates '.*' has no column 'stage'"),
        ({"user": [1], "item": [1], "stage": ["recall"]}, "data.request: candidates '.*' has no column 'request'"),
        ({"user": [1], "item": [1], "stage": ["recal"], "request": [1]}, "unknown value, first at row 1 of made.parquet: 'recal'"),
        ({"user": [1], "item": [None], "stage": ["recall"], "request": [1]}, "item id 'item': must not be missing"),
        ({"user": [1], "item": [1], "stage": ["impression"], "request": [1]}, "candidates: impressions belong to the log; 1 rows are"),
    ],
)  # fmt: skip
def test_wrong_candidates_are_named(tmp_path: Path, made: dict[str, list[Any]], message: str) -> None:
    _, data = with_candidates(tmp_path, made)
    with pytest.raises(DataError, match=message):
        prepare(data)


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (pl.lit("shown").alias("stage"), {}, "stage 'stage': unknown value, first at row 1 of cascade.parquet: 'shown'"),
        (pl.lit(None, pl.String).alias("stage"), {}, "stage 'stage': must not be missing"),
        (pl.lit("recall").alias("stage"), {}, "is an impression, and only they have labels to learn from"),
        (pl.lit(-2.0).alias("bid"), {}, "bid 'bid': must be 0 or more"),
        (pl.lit("x").alias("score"), {}, "teacher, column 'score': .* values are not numbers"),
        (pl.lit(1).alias("x"), {"stage": {"column": "stag"}}, "data.stage: log '.*' has no column 'stag'; did you mean 'stage'"),
        (pl.lit(1).alias("x"), {"teacher": {"weighted": {"pctr": 1.0}}}, "data.teacher: log '.*' has no column 'pctr'"),
        (pl.lit(1).alias("x"), {"bid": "bids"}, "data.bid: log '.*' has no column 'bids'; did you mean 'bid'"),
    ],
)
def test_wrong_cascade_logs_are_named(tmp_path: Path, change: pl.Expr, more: dict[str, Any], message: str) -> None:
    data = cascade_data(cascade_log(6).with_columns(change), tmp_path, **more)
    with pytest.raises((DataError, ConfigError), match=message):
        prepare(data)


def test_derived_columns_look_at_impressions_alone(tmp_path: Path) -> None:
    log = cascade_log(7)
    derive = [{"name": "shown", "kind": "count", "by": "item"}]
    features = [{"name": "user", "side": "user"}, {"name": "item", "side": "item"},
                {"name": "shown", "side": "item", "kind": "numeric", "encoding": "raw"}]  # fmt: skip
    dataset = cascade_dataset(log, tmp_path, derive=derive, features=features)
    rows = log.rows(named=True)
    train = [rows[r] for r in dataset.rows("train")]
    encode = dataset.encoders["shown"].encode
    for raw, value in zip(dataset.item_ids, dataset.items["shown"], strict=True):
        assert value == encode([float(sum(r["item"] == raw for r in train))])[0]
