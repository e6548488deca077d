"""Labels of all four kinds, and what is said of those that cannot be made."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.config import Label
from prerank.data import DataError, Table
from prerank.data.labels import Condition, LabelCheck, Labels

from .conftest import LOG, write_table

FRAME = pl.DataFrame({"rating": [5, 3, 1], "click": [1, 0, 1], "like": [0, 0, 1], "play": [0.5, None, 2.0], "text": ["1", "0", "x"]})


@pytest.fixture
def log(tmp_path: Any) -> Table:
    return Table(write_table(FRAME.to_dict(as_series=False), tmp_path / "log.parquet"), "log")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"rule": "rating > 3"}, [1, 0, 0]),
        ({"rule": "rating == 3"}, [0, 1, 0]),
        ({"rule": "rating = 3"}, [0, 1, 0]),
        ({"rule": "click = 1 AND NOT (rating <= 1)"}, [1, 0, 0]),
        ({"rule": "text = 'x'"}, [0, 0, 1]),
        ({"column": "click"}, [1, 0, 1]),
        ({"weighted": {"click": 1.0, "like": 2.5}}, [1, 0, 3.5]),
        ({"levels": ("click", "like")}, [1, 0, 2]),
    ],
)
def test_kinds(log: Table, label: dict[str, Any], expected: list[float]) -> None:
    labels = Labels({"other": Label(column="like"), "y": Label(**label)}, log)
    out = labels.compute(FRAME.select(labels.columns))
    assert out.dtype == np.float32
    assert out[:, 1].tolist() == expected
    assert out[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"column": "play"}, "label 'y': 1 row has no value (missing, NaN or infinite), first at row 2"),
        ({"rule": "play > 1"}, "label 'y': 1 row has no value (missing, NaN or infinite), first at row 2"),
        ({"levels": ("click", "play")}, "label 'y': 1 row has no value"),
        ({"column": "text"}, "label 'y', column 'text': 1 value is not a number, first at row 3: 'x'"),
        ({"rule": "text > 3"}, "label 'y': 'text > 3' cannot be decided (text is String)"),
        ({"rule": "rating + 1"}, "label 'y': 'rating + 1' must be true or false for each row, it is Int64"),
    ],
)
def test_wrong_values(log: Table, label: dict[str, Any], message: str) -> None:
    labels = Labels({"y": Label(**label)}, log)
    with pytest.raises(DataError) as caught:
        labels.compute(FRAME.select(labels.columns))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_columns_are_all_named(log: Table) -> None:
    with pytest.raises(DataError) as caught:
        Labels({"a": Label(rule="ratng > 3"), "b": Label(weighted={"clik": 1.0, "like": 1.0})}, log)
    first, second = str(caught.value).splitlines()
    assert first.startswith("label 'a': log '")
    assert first.endswith("no column 'ratng'; did you mean 'rating'?")
    assert second.endswith("no column 'clik'; did you mean 'click'?")


@pytest.mark.parametrize("text", ["rating >", "", "nonsense(rating) > 1", "1 = 1"])
def test_no_condition(text: str) -> None:
    with pytest.raises(DataError, match="label 'y': "):
        Condition(text, "label 'y'")


def test_a_constant_label_is_no_label() -> None:
    check = LabelCheck(("a", "b"))
    check.update(np.array([[1, 0]], np.float32))
    check.update(np.array([[1, 1]], np.float32))
    with pytest.raises(DataError, match=r"^label 'a': all 2 train rows are 1, a label needs two classes$"):
        check.get()
    check.update(np.array([[0, 1]], np.float32))
    check.get()


def test_rules_read_csv_columns_as_numbers(tmp_path: Any) -> None:
    log = Table(write_table(LOG, tmp_path / "log.csv"), "log")
    labels = Labels({"y": Label(rule="price > 2 AND rating != 3")}, log)
    frame = log.read({c: log.typed(c) for c in labels.columns}).drop_nulls()
    expected = [float(p > 2 and r != 3) for p, r in zip(LOG["price"], LOG["rating"], strict=True) if p is not None]
    assert labels.compute(frame)[:, 0].tolist() == expected
