"""Derived columns against brute force: every row looked at by itself, with ties in time and missing keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.config import Derived
from prerank.data.derive import history, statistic

ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(0, 3), st.none() | st.integers(10, 15), st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 1.0])
    ),
    min_size=1,
    max_size=30,
)  # key, value, time, train, label


def columns(rows: list[tuple]) -> tuple[pl.Series, pl.Series, np.ndarray, np.ndarray, np.ndarray]:
    key, value, ts, train, label = zip(*rows, strict=True)
    return pl.Series(key, dtype=pl.Int64), pl.Series(value, dtype=pl.Int64), np.array(ts), np.array(train), np.array(label)


def smooth(labels: list[float], mean: float, smoothing: float) -> float:
    return (sum(labels) + smoothing * mean) / (len(labels) + smoothing) if labels or smoothing else mean


def average(labels: list[float]) -> float:
    return sum(labels) / len(labels) if labels else 0.0


@given(ROWS, st.sampled_from([0.0, 2.0]))
def test_target_mean_leaves_the_row_out(rows: list[tuple], smoothing: float) -> None:
    keys, _, _, train, labels = columns(rows)
    setting = Derived(name="m", kind="target_mean", by="k", label="y", smoothing=smoothing)
    out = statistic(setting, keys, train, labels)
    counted = [r for r in rows if r[3]]
    for i, (key, *_rest) in enumerate(rows):
        others = [(r[0], r[4]) for j, r in enumerate(rows) if r[3] and j != i]
        mean = average([y for _, y in others])
        assert out.rows[i] == pytest.approx(smooth([y for k, y in others if k is not None and k == key], mean, smoothing))
    mean = average([r[4] for r in counted])
    served = out.serving(pl.Series([0, 1, 2, 3, 99, None], dtype=pl.Int64)).to_list()
    for key, value in zip([0, 1, 2, 3, 99, None], served, strict=True):
        assert value == pytest.approx(smooth([r[4] for r in counted if r[0] is not None and r[0] == key], mean, smoothing))


@given(ROWS)
def test_own_label_never_moves_own_value(rows: list[tuple]) -> None:
    keys, _, _, train, labels = columns(rows)
    setting = Derived(name="m", kind="target_mean", by="k", label="y", smoothing=3.0)
    for i in range(len(rows)):
        flipped = labels.copy()
        flipped[i] = 1 - flipped[i]
        a, b = (statistic(setting, keys, train, y).rows[i] for y in (labels, flipped))
        assert a == pytest.approx(b, abs=1e-12)


@given(ROWS)
def test_count(rows: list[tuple]) -> None:
    keys, _, _, train, _ = columns(rows)
    out = statistic(Derived(name="n", kind="count", by="k"), keys, train, None)
    for i, (key, *_rest) in enumerate(rows):
        assert out.rows[i] == sum(1 for j, r in enumerate(rows) if r[3] and j != i and r[0] is not None and r[0] == key)
    assert out.serving(pl.Series([0, 99])).to_list() == [sum(1 for r in rows if r[3] and r[0] == 0), 0]


@given(ROWS, st.integers(1, 4), st.booleans())
def test_history_is_strictly_before(rows: list[tuple], max_length: int, beyond_train: bool) -> None:
    keys, values, ts, train, labels = columns(rows)
    setting = Derived(name="h", kind="history", by="k", of="v", label="y", max_length=max_length)
    out = history(setting, keys, values, ts, train, labels > 0, beyond_train)

    def expected(key: Any, before: float, only_train: bool) -> list[int]:
        past = [(r[2], j, r[1]) for j, r in enumerate(rows) if r[0] is not None and r[0] == key and r[1] is not None and r[4] > 0]
        past = [p for p in past if p[0] < before and (rows[p[1]][3] or not only_train)]
        return [v for _, _, v in sorted(past)][-max_length:]

    lists = out.part(0, len(rows)).to_list()
    for i, (key, _, when, in_train, _) in enumerate(rows):
        assert lists[i] == expected(key, when, in_train or not beyond_train)
    assert out.part(1, len(rows) - 1).to_list() == lists[1:]
    asked = [0, 3, 99, None]
    assert out.serving(pl.Series(asked, dtype=pl.Int64)).to_list() == [expected(k, float("inf"), True) for k in asked]
