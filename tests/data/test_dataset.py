"""A data set opened from its folder: the same columns, read only, with a repr that says its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prerank.data import DataError, Dataset, prepare

from .conftest import Make


def test_repr_and_length(make: Make) -> None:
    dataset = prepare(make())
    sizes = [len(dataset.rows(s)) for s in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert repr(dataset) == (
        f"<Dataset 12 rows ({sizes[0]} train, {sizes[1]} validation, {sizes[2]} test), 6 users, 6 items, 7 features, labels: like>"
    )
    assert len(dataset) == 12


def test_columns_of_log_rows(make: Make) -> None:
    dataset = prepare(make())
    rows = np.array([3, 0, 3])
    user, item = dataset.columns("user", rows), dataset.columns("item", rows)
    assert list(user) == ["user", "age", "city", "tab"]
    assert list(item) == ["genres", "length", "item"]
    assert user["tab"].tolist() == dataset.log["tab"][rows].tolist()
    assert user["city"].tolist() == dataset.users["city"][dataset.user_row[rows]].tolist()
    assert item["genres"].shape == (3, 3)
    assert item["genres"].dtype == torch.int32
    assert item["length"].dtype == torch.float32


def test_columns_are_mapped_and_read_only(make: Make) -> None:
    dataset = prepare(make())
    assert isinstance(dataset.labels.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 5


def test_types(make: Make) -> None:
    dataset = prepare(make(time="seconds", request="rating"))
    types = {"user_row": "int32", "item_row": "int32", "labels": "float32", "split": "uint8", "ts": "int64", "request": "int64"}
    for name, dtype in types.items():
        assert getattr(dataset, name).dtype == dtype
    assert dataset.rows("train").dtype == np.int64
    assert dataset.labels.shape == (12, 1)
    assert all(c.dtype == np.int64 for c in dataset.counts.values())
    assert {k: len(v) for k, v in dataset.counts.items()} == dataset.sizes


def test_encoders_encode_as_the_log_was(make: Make) -> None:
    dataset = prepare(make())
    assert dataset.encoders["tab"].encode([1, 1, 2, 2, None, 1, 3, 3, 1, 2, 1, 1]).tolist() == dataset.log["tab"].tolist()
    assert dataset.encoders["city"].encode(["x", "nowhere", None]).tolist()[1:] == [2, 1]


def test_wrong_folder_or_split(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a whole folder"):
        Dataset(tmp_path / "nothing")
    with pytest.raises(DataError, match="split must be one of train, validation, test; got 'valid'"):
        prepare(make()).rows("valid")  # type: ignore[arg-type]
