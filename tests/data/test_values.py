"""as_type: what fits is cast without loss, what does not is named with its row."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest

from prerank.data import DataError
from prerank.data.values import as_type, not_null, series, value_type

INT, F, S, B = pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, None, 3], INT, [1, None, 3]),
        (["1", "-2", None], INT, [1, -2, None]),
        ([1.0, float("nan"), 3.0], INT, [1, None, 3]),
        ([True, False], INT, [1, 0]),
        ([2**63 - 1, -(2**63)], INT, [2**63 - 1, -(2**63)]),
        (["1.5", "2", "1e3", None], F, [1.5, 2.0, 1000.0, None]),
        ([1, None], F, [1.0, None]),
        ([float("nan"), 1.0], F, [None, 1.0]),
        ([1, None], S, ["1", None]),
        ([date(2022, 5, 6)], S, ["2022-05-06"]),
        (["True", "FALSE", None], B, [True, False, None]),
        ([None, None], INT, [None, None]),
    ],
)
def test_cast(values: list[Any], dtype: pl.DataType, expected: list[Any]) -> None:
    out = as_type(pl.Series(values, strict=False), dtype, "x")
    assert out.dtype == dtype
    assert out.to_list() == expected


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (["1", "n/a", "?"], INT, "x: 2 values are not integers, first at row 2: 'n/a'"),
        ([1.0, 2.5], INT, "x: 1 value is not an integer, first at row 2: 2.5"),
        ([1.0, float("inf")], INT, "x: 1 value is not an integer, first at row 2: inf"),
        ([2.0**60], INT, "not an integer"),
        (
            ["9223372036854775808"],
            INT,
            "x: 1 value does not fit a 64-bit integer (store such ids as text), first at row 1: '9223372036854775808'",
        ),
        ([2**63, 1, 2**64 - 1], INT, "x: 2 values do not fit a 64-bit integer"),
        ([2**100], INT, "does not fit a 64-bit integer"),
        (["1", "abc"], F, "x: 1 value is not a number, first at row 2: 'abc'"),
        ([date(2022, 5, 6)], F, "not a number"),
        ([[1], [2]], INT, "2 values are not integers"),
        ([[1]], S, "1 value is not text"),
        (["yes"], B, "1 value is not true or false"),
    ],
)
def test_wrong_values_are_named(values: list[Any], dtype: pl.DataType, message: str) -> None:
    with pytest.raises(DataError) as caught:
        as_type(pl.Series(values, strict=False), dtype, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_place_names_the_row() -> None:
    with pytest.raises(DataError, match=r"first at line 101"):
        as_type(pl.Series(["x"]), INT, "f", lambda i: f"line {i + 101}")


def test_not_null() -> None:
    assert not_null(pl.Series([1, 2]), "x").to_list() == [1, 2]
    with pytest.raises(DataError, match="x: must not be missing, 2 values are, first at row 2"):
        not_null(pl.Series([1, None, None]), "x")


@pytest.mark.parametrize("values", [[{"a": 1}, 3], [object()], [1, [2]]])
def test_lists_without_a_common_type(values: list[Any]) -> None:
    with pytest.raises(DataError):
        as_type(series(values, "feature 'x'"), INT, "feature 'x'")


def test_value_type() -> None:
    assert value_type(pl.UInt8()) == INT
    assert value_type(pl.Boolean()) == INT
    assert value_type(pl.Float32()) == F
    assert value_type(pl.List(pl.Int16)) == INT
    assert value_type(pl.Categorical()) == S
    assert value_type(pl.Date()) == S
