"""Batches of lists: each candidate is what its log row says, each stage gives what was asked, and a place in an epoch is its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.batch import Batch, Stage
from prerank.config import ConfigError, Lists
from prerank.data import Dataset, ListLoader
from prerank.data.lists import open_lists
from tests.data.cascade import STAGES, cascade_dataset, cascade_log, expected_lists

EVERY = {"impression": "all", "ranking": "all", "pre_ranking": "all", "recall": "all"}


def loader(dataset: Dataset, batch_size: int = 4, split: str = "train", seed: int = 0, **lists: Any) -> ListLoader:
    return ListLoader(dataset, split, Lists.model_validate({"stages": EVERY, **lists}), batch_size, seed=seed)


def raw_items(dataset: Dataset, batch: Batch, b: int) -> list[int]:
    """Raw item ids of a list's candidates."""
    encoded = {row: int(raw) for raw, row in zip(dataset.item_ids, dataset.items["item"], strict=True)}
    return [encoded[int(v)] for v in batch.item["item"][batch.item_index[b][batch.where[b]]]]


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_batch_holds_what_the_log_says(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    log = cascade_log(seed)
    dataset = cascade_dataset(log, tmp_path_factory.mktemp("cascade"))
    expected = expected_lists(dataset, log, "train", "request", True)
    rows, seen = log.rows(named=True), set()
    for batch in loader(dataset, 3).epoch(1):
        assert batch.request is not None
        assert batch.stage is not None
        assert batch.teacher is not None
        assert batch.bid is not None
        assert batch.ts is not None
        assert len(batch.user["user"]) == len(set(batch.user["user"].tolist()))
        assert len(batch.item["item"]) == len(set(batch.item["item"].tolist()))
        for b, request in enumerate(batch.request.tolist()):
            mine = [rows[r] for r in expected[request]]
            here = batch.where[b]
            assert here.tolist() == [True] * len(mine) + [False] * (len(here) - len(mine))
            assert raw_items(dataset, batch, b) == [r["item"] for r in mine]
            assert batch.stage[b][here].tolist() == [STAGES.index(r["stage"]) for r in mine]
            assert batch.labels[b, :, 0][here].tolist() == [r["click"] or 0 for r in mine]
            np.testing.assert_array_equal(batch.teacher[b][here], np.array([r["score"] for r in mine], np.float32))
            assert batch.bid[b][here].tolist() == [r["bid"] for r in mine]
            assert batch.ts[b][here].tolist() == [1000 * r["time"] for r in mine]
            user = batch.user["user"][batch.user_index[b]]
            assert user == dataset.encoders["user"].encode([mine[0]["user"]])[0]
            assert not batch.labels[b][~here].any()
            assert batch.teacher[b][~here].isnan().all()
            seen.add(request)
    assert seen == set(expected)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), ratio=st.sampled_from([0.5, 2.0]), count=st.integers(1, 4), max_length=st.integers(1, 9),
       filter_=st.booleans(), popularity=st.sampled_from([0.0, 0.75]))  # fmt: skip
def test_stages_give_what_is_asked(tmp_path_factory: pytest.TempPathFactory, seed: int, ratio: float, count: int, max_length: int,
                                   filter_: bool, popularity: float) -> None:  # fmt: skip
    log = cascade_log(seed)
    dataset = cascade_dataset(log, tmp_path_factory.mktemp("cascade"))
    stages = {"impression": "all", "ranking": count, "recall": {"ratio": ratio}, "random": {"count": count, "popularity": popularity}}
    expected = expected_lists(dataset, log, "train", "request", filter_)
    rows = log.rows(named=True)
    train = [rows[r] for r in dataset.rows("train", None)]
    known = {r["item"] for r in train}
    of_user = {(r["user"], r["item"]) for r in train}
    lists = loader(dataset, 5, stages=stages, max_length=max_length, filter=filter_)
    seen = set()
    for batch in lists.epoch(0):
        assert batch.stage is not None
        assert batch.request is not None
        for b, request in enumerate(batch.request.tolist()):
            seen.add(request)
            mine = [rows[r] for r in expected[request]]
            held = {s: [r["item"] for r in mine if r["stage"] == s] for s in STAGES}
            left, got = max_length, batch.stage[b][batch.where[b]].numpy()
            items = raw_items(dataset, batch, b)
            assert len(set(items)) == len(items)  # an item stands once
            for stage, quota in (
                ("impression", 99),
                ("ranking", count),
                ("pre_ranking", 0),
                ("recall", int(np.ceil(ratio * len(held["impression"])))),
            ):
                taken = [i for i, s in zip(items, got, strict=True) if s == STAGES.index(stage)]
                assert len(taken) == min(len(held[stage]), quota, left)
                assert set(taken) <= set(held[stage])
                left -= len(taken)
            drawn = [i for i, s in zip(items, got, strict=True) if s == Stage.RANDOM]
            never = {r["item"] for r in mine} | ({i for u, i in of_user if u == mine[0]["user"]} if filter_ else set())
            assert set(drawn) <= known - never
            assert len(drawn) == min(count, left, len(known - never))
    with_some = {r for r, found in expected.items()
                 if any(rows[x]["stage"] in ("impression", "ranking") for x in found)}  # fmt: skip
    assert with_some == seen


def test_batches_are_a_function_of_their_place(tmp_path: Path) -> None:
    dataset = cascade_dataset(cascade_log(5, requests=60), tmp_path)
    stages = {"impression": "all", "ranking": 1, "random": {"ratio": 1, "popularity": 1}}
    whole = list(loader(dataset, 4, stages=stages, seed=7).epoch(2))
    resumed = list(loader(dataset, 4, stages=stages, seed=7).epoch(2, start=3))
    assert len(whole) == len(loader(dataset, 4, stages=stages)) == len(resumed) + 3
    for a, b in zip(whole[3:], resumed, strict=True):
        for name in ("user_index", "item_index", "labels", "where", "stage", "bid", "ts", "request"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert all(torch.equal(a.item[n], b.item[n]) for n in a.item)
        torch.testing.assert_close(a.teacher, b.teacher, equal_nan=True, rtol=0, atol=0)
    other = list(loader(dataset, 4, stages=stages, seed=7).epoch(3))
    assert not all(
        a.item_index.shape == b.item_index.shape and torch.equal(a.item_index, b.item_index) for a, b in zip(whole, other, strict=True)
    )


def test_a_part_of_a_stage_is_another_one_each_epoch_and_comes_to_all(tmp_path: Path) -> None:
    log = pl.DataFrame({"request": [1] * 12, "user": [1] * 12, "item": list(range(12)), "time": [1] * 12,
                        "stage": ["impression"] * 2 + ["recall"] * 10, "click": [1, 0] + [None] * 10, "score": [None] * 12,
                        "bid": [1.0] * 12}, schema_overrides={"score": pl.Float64})  # fmt: skip
    dataset = cascade_dataset(log, tmp_path, split={"kind": "request", "validation": 0, "test": 0})
    lists = loader(dataset, 1, stages={"impression": "all", "recall": 3})
    times = np.zeros(12)
    for epoch in range(400):
        (batch,) = lists.epoch(epoch)
        times[raw_items(dataset, batch, 0)] += 1
    assert times[:2].tolist() == [400, 400]
    assert abs(times[2:] - 400 * 3 / 10).max() < 5 * np.sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize("popularity", [0.0, 1.0])
def test_random_items_come_by_their_popularity(tmp_path: Path, popularity: float) -> None:
    """Item i is in 2 i + 1 train rows of other users; user 0 has one item of its own."""
    items = [i for i in range(5) for _ in range(2 * i + 1)] + [5, 6]
    users = [1 + n % 20 for n in range(25)] + [0, 0]
    log = pl.DataFrame({"user": users, "item": items, "time": list(range(1, 28)), "click": [0] * 25 + [1, 0]})
    data: dict[str, Any] = {
        "stage": None,
        "teacher": None,
        "bid": None,
        "request": None,
        "split": {"kind": "user", "validation": 0, "test": 0},
    }
    dataset = cascade_dataset(log, tmp_path, **data)
    lists = loader(dataset, 64, by="user", stages={"impression": "all", "random": {"count": 1, "popularity": popularity}})
    drawn = np.zeros(7)
    for epoch in range(600):
        for batch in lists.epoch(epoch):
            assert batch.stage is not None
            b = int((batch.user["user"][batch.user_index] == dataset.encoders["user"].encode([0])[0]).nonzero()[0])
            drawn[[i for i, s in zip(raw_items(dataset, batch, b), batch.stage[b][batch.where[b]], strict=True) if s == Stage.RANDOM]] += 1
    chance = np.array([2 * i + 1 for i in range(5)]) ** popularity
    expected = 600 * chance / chance.sum()
    assert drawn[5:].sum() == 0
    assert (abs(drawn[:5] - expected) < 5 * np.sqrt(expected) + 1).all()


def test_all_items_of_train_but_those_of_the_users_own_rows(tmp_path: Path) -> None:
    log = cascade_log(9)
    dataset = cascade_dataset(log, tmp_path)
    rows = log.rows(named=True)
    train = [rows[r] for r in dataset.rows("train", None)]
    for batch in loader(dataset, 3, "test", by="user", stages={"impression": "all", "random": "all"}).epoch(0):
        assert batch.stage is not None
        for b in range(batch.rows):
            user = int(dataset.user_ids[int((dataset.users["user"] == int(batch.user["user"][batch.user_index[b]])).nonzero()[0][0])])
            items = raw_items(dataset, batch, b)
            drawn = {i for i, s in zip(items, batch.stage[b][batch.where[b]].tolist(), strict=True) if s == Stage.RANDOM}
            own = {rows[r]["item"] for r in dataset.rows("test", None) if rows[r]["user"] == user}
            known = {r["item"] for r in train if r["user"] == user}
            assert drawn == {r["item"] for r in train} - own - known


def test_columns_that_vary_by_row_are_the_rows_own(tmp_path: Path) -> None:
    """The context is the first row's; an item's price is the row's, and a drawn item's the last one."""
    log = cascade_log(4)
    features = [{"name": "user", "side": "user"}, {"name": "hour", "side": "context"}, {"name": "item", "side": "item"},
                {"name": "price", "side": "item", "kind": "categorical"}]  # fmt: skip
    dataset = cascade_dataset(log, tmp_path, features=features)
    expected = expected_lists(dataset, log, "train", "request", True)
    rows = log.rows(named=True)
    for batch in loader(dataset, 4, stages={**EVERY, "random": 2}).epoch(0):
        assert batch.request is not None
        assert batch.stage is not None
        for b, request in enumerate(batch.request.tolist()):
            mine = [rows[r] for r in expected[request]]
            assert batch.user["hour"][batch.user_index[b]] == dataset.encoders["hour"].encode([mine[0]["hour"]])[0]
            index = batch.item_index[b][batch.where[b]]
            prices = batch.item["price"][index].numpy()
            np.testing.assert_array_equal(prices[: len(mine)], dataset.encoders["price"].encode([r["price"] for r in mine]))
            for i in range(len(mine), len(prices)):
                entity = int((dataset.items["item"] == int(batch.item["item"][index[i]])).nonzero()[0][0])
                assert prices[i] == dataset.items["price"][entity]


def test_a_log_without_stages_has_impressions_and_random_items(tmp_path: Path) -> None:
    log = cascade_log(2).filter(pl.col("stage") == "impression")
    dataset = cascade_dataset(log, tmp_path, stage=None, teacher=None, bid=None)
    (batch, *_) = loader(dataset, 4, stages={"impression": "all"}).epoch(0)
    assert (batch.stage, batch.teacher, batch.bid) == (None, None, None)
    (batch, *_) = loader(dataset, 4, stages={"impression": "all", "random": 3}).epoch(0)
    assert batch.stage is not None
    assert set(batch.stage[batch.where].tolist()) == {0, 4}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"by": "user"}, "training.lists.by: user: context features vary inside a user's list: hour; make lists by request"),
        ({"by": "request", "stages": {"impression": "all", "pre_ranking": 2}}, "training.lists.stages: no row is of stage 'pre_ranking'"),
    ],
)
def test_lists_that_cannot_be_made_are_named(tmp_path: Path, lists: dict[str, Any], message: str) -> None:
    log = cascade_log(2).filter(pl.col("stage") != "pre_ranking")
    features = [{"name": "user", "side": "user"}, {"name": "hour", "side": "context"}, {"name": "item", "side": "item"}]
    dataset = cascade_dataset(log, tmp_path, features=features)
    with pytest.raises(ConfigError) as error:
        loader(dataset, **lists)
    assert message in str(error.value)


def test_what_is_odd_is_counted_and_said(tmp_path: Path) -> None:
    dataset = cascade_dataset(cascade_log(11, requests=80), tmp_path)
    said = "\n".join(loader(dataset, max_length=3, stages={"impression": "all", "recall": "all"}).sampler.said())
    f = open_lists(dataset, "train", "request").found
    assert f"{f.without_impressions} lists have no impression\n" in said
    assert said.startswith("lists by request: ")
    for part in ("have no candidate of these stages and are left out", "are longer than 3 and lose candidates of the earliest stages",
                 "rows repeat an item of their list", "candidates were liked by the user in train", "lists have no impression",
                 "lists have no positive", "lists have one logged candidate", "rows have no teacher's score and are masked"):  # fmt: skip
        assert part in said, part
