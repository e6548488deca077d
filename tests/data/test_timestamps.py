"""Times in every unit and form become the same milliseconds."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest

from prerank.data import DataError
from prerank.data.timestamps import Timestamps
from prerank.data.values import row

MS = 1650812741436


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([MS // 1000], MS // 1000 * 1000),
        ([MS], MS),
        ([MS * 1000 + 7], MS),
        ([MS * 10**6 + 7], MS),
        ([MS / 1000], MS),
        ([str(MS)], MS),
        ([datetime(2022, 4, 24, 15, 5, 41, 436000)], MS),
        (["2022-04-24 15:05:41.436"], MS),
        ([date(2022, 4, 24)], MS - (15 * 3600 + 5 * 60 + 41) * 1000 - 436),
    ],
)
def test_units(values: list[Any], expected: int) -> None:
    assert Timestamps("t", "UTC").read(pl.Series(values), row).tolist() == [expected]


def test_the_unit_is_told_once() -> None:
    clock = Timestamps("t", "UTC")
    assert clock.read(pl.Series([1_600_000_000]), row).tolist() == [1_600_000_000_000]
    assert clock.read(pl.Series([0, 5]), row).tolist() == [0, 5000]


def test_zones() -> None:
    clock = Timestamps("t", "Asia/Shanghai")
    naive = pl.Series([datetime(2022, 5, 6)])
    assert clock.read(naive, row)[0] == clock.moment("2022-05-06", "split.test")
    assert clock.moment("2022-05-06", "x") == Timestamps("t", "UTC").moment("2022-05-05T16:00", "x")
    assert clock.moment("2022-05-06T00:00+00:00", "x") == Timestamps("t", "UTC").moment("2022-05-06", "x")
    aware = naive.dt.replace_time_zone("UTC")
    assert clock.read(aware, row)[0] == Timestamps("t", "UTC").moment("2022-05-06", "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], "time 't': must not be missing, 1 value is, first at row 2"),
        (["2022-05-06 10:00", "soon"], "time 't': 1 value(s) are no time, first at row 2: 'soon'"),
        (["soon"], "time 't'"),
        ([[1]], "time 't'"),
    ],
)
def test_wrong_times(values: list[Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        Timestamps("t", "UTC").read(pl.Series(values), row)
    assert message in str(caught.value)


def test_wrong_settings() -> None:
    with pytest.raises(DataError, match=r"split.timezone: 'Mars/Olympus' is no time zone"):
        Timestamps("t", "Mars/Olympus")
    with pytest.raises(DataError, match=r"split.test: must be a moment like .* got 'May'"):
        Timestamps("t", "UTC").moment("May", "split.test")
