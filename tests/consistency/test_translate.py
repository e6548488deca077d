"""The same pairs with another data set's columns: its own rows of them, missing for whom it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from prerank.batch import Batch
from prerank.config import Data
from prerank.consistency.translate import ByIds, by_ids_alone
from prerank.data import Dataset, prepare

FEATURES = [{"name": "user_id", "side": "user"}, {"name": "item_id", "side": "item"},
            {"name": "genre", "side": "item", "kind": "multi", "max_length": 3}]  # fmt: skip


def prepared(folder: Path, name: str, users: list[int], items: list[int], **more: object) -> Dataset:
    pl.DataFrame({"user_id": users, "item_id": items, "click": [0, 1] * (len(users) // 2)}).write_parquet(folder / f"{name}.parquet")
    pl.DataFrame({"item_id": [1, 2, 3], "genre": ["a|b", "b", "c|a|b"]}).write_parquet(folder / "items.parquet")
    settings = {"log": str(folder / f"{name}.parquet"), "items": str(folder / "items.parquet"), "labels": {"click": {"column": "click"}},
                "features": FEATURES, "cache": str(folder / "cache"),
                "split": {"kind": "random", "validation": 0.0, "test": 0.0}}  # fmt: skip
    return prepare(Data.model_validate(settings | more))


@pytest.fixture
def both(tmp_path: Path) -> tuple[Dataset, Dataset]:
    own = prepared(tmp_path, "own", [7, 7, 8, 9], [1, 2, 2, 3])
    return own, prepared(tmp_path, "theirs", [9, 9, 7, 9], [2, 1, 1, 2])


def test_columns_are_theirs_of_the_same_ids(both: tuple[Dataset, Dataset]) -> None:
    own, theirs = both
    row = {int(u): r for r, u in enumerate(own.user_ids)}, {int(i): r for r, i in enumerate(own.item_ids)}
    users, items = [9, 7, 8], [[1, 2], [3, 2], [2]]  # 8 is a stranger to them; 3 is in their table, but no train row has it
    where = torch.tensor([[True, True], [True, True], [True, False]])
    blank = Batch(user={}, item={}, user_index=torch.zeros(3).long(), item_index=torch.zeros(3, 2).long(), labels=torch.zeros(3, 2, 1),
                  where=where)  # fmt: skip
    made = ByIds(own, theirs).batch(blank, np.array([row[0][u] for u in users]), np.array([row[1][i] for one in items for i in one]))
    seen = [theirs.encoders["user_id"].encode([u])[0] for u in (9, 7)]
    assert made.user["user_id"][made.user_index].tolist() == [*seen, 1]  # 1: missing
    found = made.item["item_id"][made.item_index]
    expected = {i: int(theirs.encoders["item_id"].encode([i])[0]) for i in (1, 2)} | {3: 2}
    assert [found[b, c].item() for b, one in enumerate(items) for c in range(len(one))] == [expected[i] for one in items for i in one]
    genres = made.item["genre"][made.item_index]
    assert genres[0, 0].tolist() == theirs.encoders["genre"].encode(["a|b"])[0].tolist()
    assert torch.equal(made.where, where)


def test_ids_of_another_type_are_strangers(both: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    text = prepared(tmp_path, "text", ["u1", "u2"], [1, 2])  # type: ignore[list-item]
    blank = Batch(user={}, item={}, user_index=torch.zeros(1).long(), item_index=torch.zeros(1, 1).long(), labels=torch.zeros(1, 1, 1),
                  where=torch.ones(1, 1, dtype=torch.bool))  # fmt: skip
    assert ByIds(both[0], text).batch(blank, np.array([0]), np.array([0])).user["user_id"].tolist() == [1]


def test_what_the_log_says_is_not_decided_by_ids(both: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    assert by_ids_alone(both[0])
    pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "click": [0, 1], "tab": [3, 4]}).write_parquet(tmp_path / "tab.parquet")
    features = [*FEATURES, {"name": "tab", "side": "context"}]
    context = prepared(tmp_path, "x", [1, 2], [1, 2], log=str(tmp_path / "tab.parquet"), features=features)
    assert not by_ids_alone(context)
