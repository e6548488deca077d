"""Splits are disjoint, repeatable, of the size asked for, and cut where they say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.config import Split
from prerank.data import DataError
from prerank.data.split import Splitter, by_column, check, quantile, time_cuts
from prerank.data.timestamps import Timestamps

N = 50_000
USERS = pl.Series(np.random.default_rng(0).integers(0, 2000, N))


def assign(split: Split, numbers: np.ndarray | None = None, users: pl.Series = USERS) -> np.ndarray:
    return Splitter(split).assign(np.arange(N) if numbers is None else numbers, users, None)


def test_random_is_repeatable_and_of_the_right_size() -> None:
    split = Split(kind="random", validation=0.1, test=0.2, seed=5)
    out = assign(split)
    assert np.bincount(out) / N == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    halves = [assign(split, numbers, USERS[: len(numbers)]) for numbers in (np.arange(N // 2), np.arange(N // 2, N))]
    assert np.concatenate(halves).tolist() == out.tolist()  # batches do not matter
    other = assign(Split(kind="random", validation=0.1, test=0.2, seed=6))
    assert (other == out).mean() == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.01)  # seeds are independent


def test_test_rows_do_not_depend_on_validation() -> None:
    a, b = (assign(Split(kind="random", validation=v, test=0.2, seed=5)) for v in (0.05, 0.3))
    assert ((a == 2) == (b == 2)).all()


@pytest.mark.parametrize("users", [USERS, USERS.cast(pl.String)])
def test_user(users: pl.Series) -> None:
    out = assign(Split(kind="user", validation=0.1, test=0.2, seed=1), users=users)
    sides = pl.DataFrame({"user": users, "split": out}).group_by("user").agg(pl.col("split").n_unique())
    assert sides["split"].max() == 1
    assert np.bincount(out) / N == pytest.approx([0.7, 0.1, 0.2], abs=0.04)


def chunks(ts: np.ndarray, size: int = 7) -> Iterator[np.ndarray]:
    yield from (ts[i : i + size] for i in range(0, len(ts), size))


TIMES = st.lists(st.integers(0, 50) | st.integers(0, 10**15), min_size=1, max_size=60)


@given(TIMES, st.data())
def test_quantile_is_exact(values: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(values) - 1))
    ts = np.array(values)
    assert quantile(lambda: chunks(ts), rank) == sorted(values)[rank]


@given(TIMES, st.floats(0, 0.45), st.floats(0, 0.45))
def test_time_by_fractions(values: list[int], validation: float, test: float) -> None:
    ts = np.array(values)
    split = Split(kind="time", validation=validation, test=test)
    cuts = time_cuts(split, Timestamps("t", "UTC"), lambda: chunks(ts))
    out = Splitter(split, cuts).assign(np.arange(len(ts)), pl.Series(values), ts)
    order = np.argsort(ts, kind="stable")
    assert (np.diff(out[order].astype(int)) >= 0).all()  # train, validation, test follow one another
    for instant in set(values):
        assert len(set(out[ts == instant].tolist())) == 1  # an instant is never cut
    if len(set(values)) == len(values):  # without ties the sizes are exact
        n_test, n_validation = round(test * len(ts)), round(validation * len(ts))
        assert np.bincount(out, minlength=3).tolist() == [len(ts) - n_test - n_validation, n_validation, n_test]


def test_time_by_moments() -> None:
    clock = Timestamps("t", "Asia/Shanghai")
    split = Split(kind="time", validation="2022-05-05", test="2022-05-06", timezone="Asia/Shanghai")
    first, second = time_cuts(split, clock, lambda: iter(()))
    assert second - first == 24 * 3600 * 1000
    ts = np.array([first - 1, first, second - 1, second])
    assert Splitter(split, (first, second)).assign(np.arange(4), USERS[:4], ts).tolist() == [0, 1, 1, 2]
    mixed = Split(kind="time", validation=0.25, test="2022-05-06", timezone="Asia/Shanghai")
    assert time_cuts(mixed, clock, lambda: chunks(ts)) == (second - 1, second)


def test_wrong_order() -> None:
    split = Split(kind="time", validation="2022-05-07", test="2022-05-06")
    with pytest.raises(DataError, match=r"split: validation \(2022-05-07\) must begin before test \(2022-05-06\)"):
        time_cuts(split, Timestamps("t", "UTC"), lambda: iter(()))


def test_check() -> None:
    assert check(Split(), has_time=False) is None
    assert "needs data.time" in (check(Split(kind="time"), has_time=False) or "")
    assert "leave no rows to train on" in (check(Split(validation=0.5, test=0.5), has_time=False) or "")


def test_a_column_of_the_log_says_it() -> None:
    assert by_column(pl.Series("part", [2, 0, 1, 1], dtype=pl.UInt8)).tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("values", "said"), [([0, 3], "first at row 2: 3"), ([0, -1, 7], "2 are not, first at row 2: -1"), ([None, 1], "missing")]
)
def test_a_column_that_says_something_else_is_refused(values: list[int | None], said: str) -> None:
    with pytest.raises(DataError, match=f"split.column 'part'.*{said}"):
        by_column(pl.Series("part", values))
