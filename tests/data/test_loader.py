"""Batches: every row once an epoch, the same rows with and without duplicates, the same batches after a resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.batch import Batch
from prerank.config import Data
from prerank.data import DataError, Dataset, Loader, prepare
from prerank.data import loader as module

from .conftest import Make, write_table

ROWS = 700
SHUFFLES = ["full", "blocks", "none"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """700 rows whose time is their number, so that a batch's `ts` says which rows it holds."""
    folder = tmp_path_factory.mktemp("loader")
    random = np.random.default_rng(0)
    log = {
        "user": random.integers(0, 40, ROWS).tolist(),
        "item": random.integers(0, 30, ROWS).tolist(),
        "tab": random.integers(0, 3, ROWS).tolist(),
        "y": random.integers(0, 2, ROWS).tolist(),
        "t": list(range(ROWS)),
        "tags": ["|".join(random.choice(list("abcd"), 2)) for _ in range(ROWS)],
    }
    users = {"user": list(range(40)), "age": random.integers(0, 9, 40).tolist()}
    return prepare(
        Data.model_validate(
            {
                "log": str(write_table(log, folder / "log.parquet")),
                "users": str(write_table(users, folder / "users.parquet")),
                "user_id": "user",
                "item_id": "item",
                "time": "t",
                "request": "t",
                "labels": {"y": {"column": "y"}},
                "split": {"validation": 0.0, "test": 0.0},
                "features": [
                    {"name": "age", "side": "user"},
                    {"name": "tab", "side": "context"},
                    {"name": "tags", "side": "user", "kind": "multi", "max_length": 2},
                ],
                "cache": str(folder / "cache"),
            }
        )
    )


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 32)
    monkeypatch.setattr(module, "WINDOW", 4)


def rows_of(batch: Batch) -> list[int]:
    assert batch.ts is not None
    return (batch.ts[:, 0] // 1000).tolist()


def gathered(batch: Batch) -> dict[str, torch.Tensor]:
    """One row a list: what the towers would see."""
    user = {k: v[batch.user_index] for k, v in batch.user.items()}
    return user | {k: v[batch.item_index[:, 0]] for k, v in batch.item.items()}


@pytest.mark.parametrize("shuffle", SHUFFLES)
@given(size=st.integers(1, 300), count=st.integers(0, ROWS), seed=st.integers(0, 3), dedup=st.booleans())
def test_every_row_once_an_epoch(dataset: Dataset, shuffle: str, size: int, count: int, seed: int, dedup: bool) -> None:
    rows = np.arange(ROWS)[::-1][:count]
    loader = Loader(dataset, rows, size, shuffle=shuffle, seed=seed, dedup=dedup)  # type: ignore[arg-type]
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader)
    assert all(b.rows == size for b in batches[:-1])
    seen = [r for b in batches for r in rows_of(b)]
    assert Counter(seen) == Counter(rows.tolist())
    if shuffle == "none":
        assert seen == rows.tolist()


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("dedup", [True, False])
def test_columns_are_those_of_the_rows(dataset: Dataset, shuffle: str, dedup: bool) -> None:
    for batch in Loader(dataset, dataset.rows("train"), 64, shuffle=shuffle, dedup=dedup).epoch(2):  # type: ignore[arg-type]
        rows = np.array(rows_of(batch))
        expected = dataset.columns("user", rows) | dataset.columns("item", rows)
        found = gathered(batch)
        assert list(found) == list(expected)
        assert all(torch.equal(found[k], expected[k]) for k in expected)
        assert batch.labels[:, 0].numpy().tolist() == dataset.labels[rows].tolist()
        assert batch.request is not None
        assert batch.request.tolist() == rows.tolist()


def test_shapes_and_types(dataset: Dataset) -> None:
    batch = next(iter(Loader(dataset, dataset.rows("train"), 64).epoch(0)))
    assert batch.user_index.dtype == batch.item_index.dtype == torch.int64
    assert batch.user_index.shape == (64,)
    assert batch.item_index.shape == batch.where.shape == (64, 1)
    assert batch.labels.shape == (64, 1, 1)
    assert batch.where.dtype == torch.bool
    assert bool(batch.where.all())
    assert batch.ts is not None
    assert batch.ts.shape == (64, 1)
    batch.labels.zero_()  # a batch is a copy: writing to it must be possible, and change nothing
    assert dataset.labels.any()


def test_distinct_rows_are_held_once(dataset: Dataset) -> None:
    batch = next(iter(Loader(dataset, dataset.rows("train"), 256).epoch(0)))
    assert batch.item["item"].shape[0] == len(set(dataset.item_row[rows_of(batch)].tolist()))
    user = gathered(batch)
    distinct = {tuple(np.hstack([user[k][i].numpy().ravel() for k in ("user", "age", "tab", "tags")])) for i in range(256)}
    assert batch.user["tab"].shape[0] == len(distinct)
    assert len(torch.unique(batch.user_index)) == batch.user["tab"].shape[0]


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("start", [0, 1, 5, 10, 11])
def test_resume_gives_the_same_batches(dataset: Dataset, shuffle: str, start: int) -> None:
    def batches(first: int) -> list[list[int]]:
        return [rows_of(b) for b in Loader(dataset, dataset.rows("train"), 64, shuffle=shuffle, seed=9).epoch(4, start=first)]  # type: ignore[arg-type]

    assert batches(start) == batches(0)[start:]


def test_what_was_gone_through_is_read_again(dataset: Dataset) -> None:
    loader = Loader(dataset, dataset.rows("train"), 64, shuffle="none")
    for k, batch in enumerate(loader.epoch(0)):
        again = loader.between(64 * k, 64 * k + batch.rows)
        assert rows_of(again) == rows_of(batch)
        assert again.labels.equal(batch.labels)
        assert all(again.user[name][again.user_index].equal(column[batch.user_index]) for name, column in batch.user.items())


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_order_depends_on_seed_and_epoch_alone(dataset: Dataset, shuffle: str) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = Loader(dataset, dataset.rows("train"), 64, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        list(loader.epoch(7))
        return [r for b in loader.epoch(epoch) for r in rows_of(b)]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4
    first = np.array(order(1, 2)[:100])
    assert len(set((first // 32).tolist())) > 3  # not in blocks as they stand


def test_auto(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Loader(dataset, dataset.rows("train"), 64, shuffle="auto").shuffle == "full"
    monkeypatch.setattr(module, "AUTO_FULL", 600)
    assert Loader(dataset, dataset.rows("train"), 64, shuffle="auto").shuffle == "blocks"


def test_wide_rows_are_shuffled_in_smaller_windows(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [dataset.user_row, dataset.item_row, dataset.user_key, dataset.labels, dataset.ts, dataset.request, *dataset.log.values()]
    row = sum(c.nbytes for c in columns if c is not None) // ROWS
    monkeypatch.setattr(module, "WINDOW_BYTES", 4 * 8 * row)  # four blocks of eight rows, where BLOCK is 32
    taken: list[int] = []
    take = module._Rows.take
    monkeypatch.setattr(module._Rows, "take", lambda self, at: (taken.append(len(at)), take(self, at))[1])
    loader = Loader(dataset, dataset.rows("train"), 64, shuffle="blocks")
    assert sorted(r for b in loader.epoch(0) for r in rows_of(b)) == list(range(ROWS))
    assert max(taken) == 32
    monkeypatch.setattr(module, "AUTO_FULL_BYTES", ROWS * row - 1)
    assert Loader(dataset, dataset.rows("train"), 64, shuffle="auto").shuffle == "blocks"


def test_entities_alone_decide(make: Make) -> None:
    """Without a column that varies by log row, distinct rows are distinct entities."""
    dataset = prepare(make(features=[{"name": "age", "side": "user", "kind": "numeric"}]))
    assert dataset.user_key is None
    batch = next(iter(Loader(dataset, np.arange(12), 12, shuffle="none").epoch(0)))
    expected = dataset.columns("user", np.arange(12)) | dataset.columns("item", np.arange(12))
    assert all(torch.equal(gathered(batch)[k], v) for k, v in expected.items())
    assert batch.user["age"].shape == (5,)
    assert batch.ts is None
    assert batch.request is None


def test_wrong_size_and_repr(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        Loader(dataset, dataset.rows("train"), 0)
    assert repr(Loader(dataset, dataset.rows("train"), 64)) == "<Loader 700 rows in 11 batches of 64, shuffle full>"


def test_nothing_is_written_to_the_cache(dataset: Dataset) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(dataset.path).rglob("*")}
    list(Loader(dataset, dataset.rows("train"), 64, shuffle="blocks").epoch(0))
    assert {p: p.stat().st_mtime_ns for p in Path(dataset.path).rglob("*")} == before
