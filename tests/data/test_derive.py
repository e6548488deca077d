"""Derived columns against brute force: every row looked at by itself, with ties in time and missing keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prerank.config import Derived, Split
from prerank.data.derive import FOLD_SEED, FOLDS, How, count, history, how_of, target_mean
from prerank.data.hashing import uniform
from prerank.metrics import auc

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


def known(how: How, i: int, rows: list[tuple]) -> list[tuple]:
    """The train rows whose labels row i may know."""
    fold = (uniform(np.arange(len(rows)), FOLD_SEED) * FOLDS).astype(int)
    counted = [(j, r) for j, r in enumerate(rows) if r[3]]
    if how == "as_of":
        return [r for _, r in counted if r[2] < rows[i][2]]
    if not rows[i][3]:
        return [r for _, r in counted]
    return [r for j, r in counted if (j != i if how == "leave_one_out" else fold[j] != fold[i])]


@pytest.mark.parametrize("how", ["out_of_fold", "as_of", "leave_one_out"])
@given(ROWS, st.sampled_from([0.0, 2.0]))
def test_target_mean_is_of_the_rows_that_a_row_may_know(how: How, rows: list[tuple], smoothing: float) -> None:
    keys, _, ts, train, labels = columns(rows)
    setting = Derived(name="m", kind="target_mean", by="k", label="y", smoothing=smoothing)
    out = target_mean(setting, how, keys, train, labels, ts)
    for i, (key, *_rest) in enumerate(rows):
        others = known(how, i, rows)
        mean = average([r[4] for r in others])
        assert out.rows[i] == pytest.approx(smooth([r[4] for r in others if key is not None and r[0] == key], mean, smoothing))
    counted = [r for r in rows if r[3]]
    mean = average([r[4] for r in counted])
    served = out.serving(pl.Series([0, 1, 2, 3, 99, None], dtype=pl.Int64)).to_list()
    for key, value in zip([0, 1, 2, 3, 99, None], served, strict=True):
        assert value == pytest.approx(smooth([r[4] for r in counted if r[0] is not None and r[0] == key], mean, smoothing))


@pytest.mark.parametrize("how", ["out_of_fold", "as_of", "leave_one_out"])
@given(ROWS)
def test_own_label_never_moves_own_value(how: How, rows: list[tuple]) -> None:
    keys, _, ts, train, labels = columns(rows)
    setting = Derived(name="m", kind="target_mean", by="k", label="y", smoothing=3.0)
    for i in np.flatnonzero(train):
        flipped = labels.copy()
        flipped[i] = 1 - flipped[i]
        a, b = (target_mean(setting, how, keys, train, y, ts).rows[i] for y in (labels, flipped))
        assert a == pytest.approx(b, abs=1e-12)


def test_a_model_that_knows_the_key_reads_the_label_off_leave_one_out_alone() -> None:
    """Labels drawn by lot: the best that can be said from key and value is which of the key's values are the low ones."""
    rng = np.random.default_rng(0)
    keys, labels, ts = rng.integers(0, 40, 20_000), rng.integers(0, 2, 20_000).astype(float), rng.permutation(20_000)
    setting = Derived(name="m", kind="target_mean", by="k", label="y")
    found = {}
    for how in ("out_of_fold", "as_of", "leave_one_out"):
        values = target_mean(setting, how, pl.Series(keys), np.ones(len(keys), bool), labels, ts).rows
        middle = np.array([values[keys == k].mean() for k in range(40)])[keys]
        found[how] = float(auc(middle - values, labels))
    assert found["leave_one_out"] > 0.99
    assert found["out_of_fold"] == pytest.approx(0.5, abs=0.06)  # a fold's mean of 100 labels, and no row's own
    assert found["as_of"] == pytest.approx(0.5, abs=0.02)


def test_how_a_mean_is_made_where_nobody_says() -> None:
    setting = Derived(name="m", kind="target_mean", by="k", label="y")
    assert [how_of(setting, Split(kind=kind)) for kind in ("random", "user", "time")] == ["out_of_fold", "out_of_fold", "as_of"]
    assert how_of(setting.model_copy(update={"how": "leave_one_out"}), Split(kind="time")) == "leave_one_out"
    with pytest.raises(ValidationError, match="how: belongs to kind target_mean, this is count"):
        Derived(name="n", kind="count", by="k", how="as_of")


@given(ROWS)
def test_count(rows: list[tuple]) -> None:
    keys, _, _, train, _ = columns(rows)
    out = count(keys, train)
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
