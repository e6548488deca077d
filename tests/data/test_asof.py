"""Running statistics against brute force, and against looking ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prerank.config import AsOf, Data, milliseconds
from prerank.data import DataError, Dataset, prepare
from prerank.data.asof import Keys, Log, running, scan
from prerank.metrics import auc

SETTINGS = {
    "odds": {"label": "y"},
    "odds-decayed": {"label": "y", "half_life": "3s", "smoothing": 2.0},
    "count": {},
    "count-decayed": {"half_life": "2s"},
    "idle": {"since_last": True},
}
ROWS = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(0, 12), st.booleans(), st.sampled_from([0.0, 1.0]), st.booleans()), min_size=1, max_size=40
)  # key, second, shown, label, train


def told(setting: AsOf, i: int, rows: list[tuple], delay: int, use: list[bool]) -> float:
    """The statistic of row i by its definition: every row looked at by itself."""
    key, second = rows[i][:2]
    now, wait = 1000 * second, delay if setting.label else 0
    half = milliseconds(setting.half_life) if setting.half_life else float("inf")
    earlier = [r for r, used in zip(rows, use, strict=True) if used and 1000 * r[1] < now - wait]
    own = [r for r in earlier if r[0] == key >= 0]
    if setting.since_last:
        return float(np.log1p(second - max(r[1] for r in own))) if own else float("nan")
    weights = [2.0 ** (-(now - 1000 * r[1]) / half) for r in own]
    if setting.label is None:
        return float(np.log1p(sum(weights)))
    prior = (sum(r[3] for r in earlier) + 0.5) / (len(earlier) + 1)
    mean = (sum(w * r[3] for w, r in zip(weights, own, strict=True)) + setting.smoothing * prior) / (sum(weights) + setting.smoothing)
    return float(np.log(mean / (1 - mean)))


@pytest.mark.parametrize("kind", SETTINGS)
@given(ROWS, st.sampled_from([0, 2000]))
def test_a_row_is_told_of_earlier_rows_of_its_key_alone(kind: str, rows: list[tuple], delay: int) -> None:
    rows = sorted(rows, key=lambda r: r[1])
    setting = AsOf(name="s", by=("k",), **SETTINGS[kind])
    key, second, shown, label, train = (np.array(c) for c in zip(*rows, strict=True))
    test = second > 8
    found = running(setting, Keys(key), Log(1000 * second, shown, train & ~test, test, {"y": label}, delay))
    for i in range(len(rows)):
        np.testing.assert_allclose(found.rows[i], told(setting, i, rows, delay, list(shown)), rtol=1e-9, atol=1e-12)
        before = list(shown & ~test) if test[i] else list(shown)
        np.testing.assert_allclose(found.frozen[i], told(setting, i, rows, delay, before), rtol=1e-9, atol=1e-12)


@given(st.lists(st.tuples(st.floats(-2, 2), st.sampled_from([0.0, 0.3, 1.0])), max_size=60))
def test_the_scan_is_the_plain_loop(steps: list[tuple[float, float]]) -> None:
    s, expected = 0.0, []
    for x, d in steps:
        s = x + d * s
        expected.append(s)
    x, d = (np.array([p[i] for p in steps]) for i in (0, 1))
    np.testing.assert_allclose(scan(x, d), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_row_cannot_see_its_own_label_nor_a_later_one(kind: str) -> None:
    """Bit for bit; rows after it see it."""
    random = np.random.default_rng(0)
    n = 400
    ts = np.sort(random.integers(0, 90, n)) * 1000
    keys, y, every = Keys(random.integers(0, 5, n)), random.random(n), np.ones(n, bool)
    setting = AsOf(name="s", by=("k",), **SETTINGS[kind])

    def values(labels: np.ndarray) -> np.ndarray:
        return running(setting, keys, Log(ts, every, every, ~every, {"y": labels})).rows

    plain = values(y)
    for row in (0, 17, 200, 399):
        flipped = y.copy()
        flipped[row] = 1 - y[row]
        changed = np.flatnonzero(values(flipped).view(np.int64) != plain.view(np.int64))
        assert (ts[changed] > ts[row]).all()
        assert bool(len(changed)) == (kind.startswith("odds") and row < 399)


def write_log(folder: Path, labels: np.ndarray, users: np.ndarray, items: np.ndarray, ts: np.ndarray) -> Data:
    frame = pl.DataFrame({"user": users, "item": items, "tab": users % 3, "ts": ts, "y": labels})
    frame.write_parquet(folder / "log.parquet")
    many = pl.int_range(0, 12, eager=True)
    pl.DataFrame({"item": many, "author": many % 4, "seconds": many.cast(pl.Float64) * 1.5}).write_parquet(folder / "items.parquet")
    asof: list[dict[str, Any]] = [
        {"name": "u", "by": "user", "label": "y"}, {"name": "a", "by": "author", "label": "y", "half_life": "30s"},
        {"name": "ut", "by": ["user", "tab"], "label": "y"}, {"name": "d", "by": "seconds", "label": "y", "bins": 3},
        {"name": "seen", "by": "item"}, {"name": "idle", "by": "user", "since_last": True},
    ]  # fmt: skip
    side = {"u": "user", "a": "item", "ut": "context", "d": "item", "seen": "item", "idle": "user"}
    return Data.model_validate(
        {
            "log": str(folder / "log.parquet"), "items": str(folder / "items.parquet"), "user_id": "user", "item_id": "item", "time": "ts",
            "labels": {"y": {"column": "y"}}, "split": {"kind": "time", "validation": 0.2, "test": 0.2}, "asof": asof,
            "features": [{"name": n, "side": s, "kind": "numeric"} for n, s in side.items()], "cache": str(folder / "cache"),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    n = 1500
    users, items = random.integers(0, 30, n), random.integers(0, 12, n)
    return {"labels": (random.random(n) < 0.4).astype(np.int64), "users": users, "items": items,
            "ts": 1_650_000_000_000 + 1000 * random.integers(0, 1000, n)}  # fmt: skip


def prepared(folder: Path, drawn: dict[str, np.ndarray], **other: np.ndarray) -> Dataset:
    folder.mkdir()
    return prepare(write_log(folder, **{**drawn, **other}))


def test_a_flipped_label_leaves_the_rows_columns_bit_identical(tmp_path: Path, drawn: dict[str, np.ndarray]) -> None:
    plain = prepared(tmp_path / "plain", drawn)
    for row in (3, 700, 1499):
        labels = drawn["labels"].copy()
        labels[row] = 1 - labels[row]
        other = prepared(tmp_path / str(row), drawn, labels=labels)
        later = drawn["ts"] > drawn["ts"][row]
        for name, column in plain.log.items():
            changed = column.view(np.int32) != other.log[name].view(np.int32)
            assert not changed[~later].any(), name
            assert not (plain.frozen().log[name].view(np.int32) != other.frozen().log[name].view(np.int32))[~later].any(), name


def test_labels_drawn_by_lot_are_not_found_and_planted_ones_are(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    n = 20_000
    users, items = random.integers(0, 300, n), random.integers(0, 12, n)
    taste = random.normal(size=300)
    ts = 1_650_000_000_000 + 1000 * np.arange(n)
    planted = (random.random(n) < 1 / (1 + np.exp(-2 * taste[users]))).astype(np.int64)
    log = {"labels": planted, "users": users, "items": items, "ts": ts}
    tastes, noise = prepared(tmp_path / "planted", log), prepared(tmp_path / "lot", log, labels=random.permutation(planted))
    at = np.arange(n // 2, n)
    assert auc(tastes.log["u"][at], planted[at] > 0) > 0.75
    for name in ("u", "a", "ut", "d"):
        assert abs(auc(noise.log[name][at], noise.labels[at, 0] > 0) - 0.5) < 0.02, name


def test_frozen_columns_know_nothing_of_test_days(tmp_path: Path, drawn: dict[str, np.ndarray]) -> None:
    plain = prepared(tmp_path / "plain", drawn)
    test = np.flatnonzero(plain.split == 2)
    labels = drawn["labels"].copy()
    labels[test] = 1 - labels[test]
    other = prepared(tmp_path / "other", drawn, labels=labels)
    for name in plain.log:
        np.testing.assert_array_equal(plain.frozen().log[name], other.frozen().log[name])
    assert (plain.log["u"] != other.log["u"]).any()
    np.testing.assert_array_equal(plain.items["a"], other.items["a"])  # what is served and retrieved with: of train alone


def test_entities_are_told_their_own_end_of_train(tmp_path: Path, drawn: dict[str, np.ndarray]) -> None:
    """An item's column in the table of items: the number of train rows that it has."""
    dataset = prepared(tmp_path / "log", drawn)
    train = dataset.rows("train")
    encoder = dataset.encoders["seen"]
    n = np.bincount(dataset.item_row[train], minlength=len(dataset.item_ids))
    np.testing.assert_array_equal(dataset.items["seen"], encoder.encode(pl.Series(np.log1p(n.astype(np.float64)))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "usr"}, "statistic 's': neither the log nor a table has a column 'usr'; did you mean 'user'?"),
        ({"label": "x"}, "statistic 's': label must be one of the labels, got 'x'"),
        ({"name": "tab"}, "statistic 'tab': there is a column of this name already"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, drawn: dict[str, np.ndarray], change: dict[str, Any], message: str) -> None:
    data = write_log(tmp_path, **drawn)
    wrong = AsOf.model_validate({"name": "s", "by": "user", **change})
    with pytest.raises(DataError) as caught:
        prepare(data.model_copy(update={"asof": (*data.asof, wrong)}))
    assert message in str(caught.value)


def test_bins_of_labels_are_refused(tmp_path: Path, drawn: dict[str, np.ndarray]) -> None:
    data = write_log(tmp_path, **drawn)
    binned = data.features[0].model_copy(update={"bins": 5})
    with pytest.raises(DataError, match="bins of a statistic with a label would be cut by labels to come"):
        prepare(data.model_copy(update={"features": (binned, *data.features[1:])}))


@pytest.mark.parametrize(
    "wrong", [{"half_life": "3 weeks"}, {"half_life": "0s"}, {"since_last": True, "label": "y"}, {"smoothing": 0}, {"by": []}]
)
def test_wrong_statistics_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AsOf.model_validate({"name": "s", "by": "k", **wrong})
