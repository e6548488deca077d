"""A Parquet log as events."""

from __future__ import annotations

import time
from datetime import datetime

import polars as pl
import pytest

from prerank.config import ConfigError
from prerank.stream import Client, Feedback, Impression, Joiner, Rows, Tick, Waiting, decode, now
from prerank.stream.replay import Columns, events, replay
from prerank.stream.sqlite import SqliteLog

FRAME = pl.DataFrame({
    "user_id": [1, 2, 1, 3], "item_id": ["a", "b", "c", "a"], "ts": [3000, 1000, 2000, 4000], "is_click": [1, 0, 1, 1],
    "watched": [None, 2.5, 0.0, float("nan")], "late_ms": [500, 0, 1500, 100], "tab": [1, 2, 3, None],
    "price": [1.5, float("nan"), 2.0, 3.0],
})  # fmt: skip


@pytest.fixture
def parquet(tmp_path):
    FRAME.write_parquet(tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_rows_are_impressions_and_what_came_of_them_in_order_of_time(parquet):
    columns = Columns(feedback={"click": "is_click@late_ms", "view": "watched@2s"}, features=("tab", "price"))
    found = list(events(parquet, columns))
    assert found == [
        Impression(request=0, user=2, item="b", ts=1000, features={"tab": 2, "price": None}),
        Impression(request=1, user=1, item="c", ts=2000, features={"tab": 3, "price": 2.0}),
        Feedback(request=0, item="b", ts=3000, kind="view", value=2.5),
        Impression(request=2, user=1, item="a", ts=3000, features={"tab": 1, "price": 1.5}),
        Feedback(request=1, item="c", ts=3500, kind="click"),
        Feedback(request=2, item="a", ts=3500, kind="click"),
        Impression(request=3, user=3, item="a", ts=4000, features={"tab": None, "price": 3.0}),
        Feedback(request=3, item="a", ts=4100, kind="click"),
    ]


def test_features_are_all_other_columns(parquet):
    first = next(events(parquet, Columns(feedback={"click": "is_click@late_ms"}, request="watched")))
    assert sorted(first.features) == ["price", "tab"]


def test_dates_are_times(tmp_path):
    FRAME.with_columns(ts=pl.Series([datetime(2024, 1, 1, 0, 0, s) for s in (3, 1, 2, 4)])).write_parquet(tmp_path / "l.parquet")
    assert [e.ts % 60_000 for e in events(tmp_path / "l.parquet", Columns())] == [1000, 2000, 3000, 4000]


def test_a_replay_becomes_rows(parquet, tmp_path):
    log, rows = SqliteLog(tmp_path / "e.db", 2), SqliteLog(tmp_path / "r.db", 2)
    told = []
    with Client(log) as client:
        sent = replay(parquet, client, Columns(feedback={"click": "is_click"}), close=3_600_000, told=lambda *t: told.append(t))
    assert (sent, told[-1]) == (7, (7, 4000))
    assert [decode(log.read(p, log.end(p) - 1)[0].data) for p in range(2)] == [Tick(ts=3_604_000)] * 2
    joiner = Joiner(log, rows, Waiting(kinds={"click": "10m"}, early=True), tmp_path / "s")
    joiner.step()
    joiner.close()
    labels = {r.impression.request: r.labels["click"] for p in range(2) for r in Rows(rows, p).take()}
    assert labels == {0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0}


def test_speed_is_kept_and_time_may_be_now(parquet, tmp_path):
    log = SqliteLog(tmp_path / "e.db", sync=False)
    began, clock = now(), time.monotonic()
    with Client(log) as client:
        replay(parquet, client, Columns(), speed=20.0, stamp="now")
    assert 0.15 <= time.monotonic() - clock < 30
    ts = [decode(e.data).ts for e in log.read(0, 0)]
    assert [t - ts[0] for t in ts] == [0, 50, 100, 150]
    assert 0 <= ts[0] - began < 30_000


@pytest.mark.parametrize(("columns", "told"), [
    (Columns(user="uid"), "user: '.*log.parquet' has no column 'uid'"), (Columns(time="price"), "time 'price': must be integers"),
    (Columns(feedback={"click": "clck"}), "feedback click: .* no column 'clck'"),
    (Columns(feedback={"click": "is_click@late"}), "no column 'late'; did you mean 'late_ms'"),
    (Columns(features=("tub",)), "feature: .* no column 'tub'; did you mean 'tab'"),
])  # fmt: skip
def test_columns_that_are_not_there(parquet, columns, told):
    with pytest.raises(ConfigError, match=told):
        next(events(parquet, columns))
