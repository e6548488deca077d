"""A Parquet log as events, in the order of time and at a chosen speed: what happened then, happens again.

    for event in events("log.parquet", Columns(feedback={"click": "is_click"})): client.send(event)

A row is an impression, followed by feedback of each kind whose column is above 0.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from prerank.config.asof import milliseconds
from prerank.config.errors import ConfigError, nearest
from prerank.stream.event import Event, Feedback, Impression, Tick, encode
from prerank.stream.producer import Client

CHUNK = 50_000  # rows that are events at once


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what.

    request    none: a row is a request of its own, and its number the name
    feedback   kind -> column; above 0 it happened, with that value. "column@30s": so long after the impression, "column@other": as many ms
               as column `other` says; else at once
    features   columns that are logged as features; none: all that are nothing else
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "ts"
    request: str | None = None
    feedback: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] | None = None


def events(path: str | Path, columns: Columns) -> Iterator[Event]:
    """All events of the log in order of time; rows of a log that is not sorted are sorted in memory. Raises ConfigError.

    Times are integers of milliseconds, or dates."""
    frame = _sorted(path, columns)
    due: list[tuple[int, int, Feedback]] = []  # heap by time, then in order of making
    delays = {kind: _delay(spec) for kind, spec in columns.feedback.items()}
    names = _features(frame, columns)
    number = made = 0
    for part in frame.iter_slices(CHUNK):
        for row in part.iter_rows(named=True):
            shown = Impression(request=number if columns.request is None else row[columns.request], user=row[columns.user],
                               item=row[columns.item], ts=row[columns.time], features={n: _plain(row[n]) for n in names})  # fmt: skip
            while due and due[0][0] <= shown.ts:
                yield heapq.heappop(due)[2]
            yield shown
            for kind, (column, after) in delays.items():
                value = row[column]
                if value is not None and value > 0:
                    wait = after if isinstance(after, int) else int(row[after] or 0)
                    event = Feedback(request=shown.request, item=shown.item, ts=shown.ts + max(0, wait), kind=kind, value=float(value))
                    heapq.heappush(due, (event.ts, made, event))
                    made += 1
            number += 1
    while due:
        yield heapq.heappop(due)[2]


def replay(path: str | Path, client: Client, columns: Columns, *, speed: float | None = None, stamp: Literal["event", "now"] = "event",
           close: int | None = None, told: Callable[[int, int], None] = lambda sent, ts: None) -> int:  # fmt: skip
    """Send the log's events -> how many. Raises ConfigError, LogError, ValueError for a row that is no event.

    speed   event time per clock time, 60: an hour is a minute; none: as fast as it goes
    stamp   "event": times as they were; "now": the time each is sent at, so that the log seems to happen now, `speed` times as fast
    close   ms that are said to have gone by after the last event, so that all windows are over
    told    called after each second, and at the end, with how many were sent and the log's time
    """
    sent, first, latest, began, tell = 0, None, 0, time.monotonic(), time.monotonic() + 1
    begin = time.time_ns() // 1_000_000
    pace = speed or math.inf
    for event in events(path, columns):
        first = event.ts if first is None else first
        latest = max(latest, event.ts)
        gone = (event.ts - first) / pace  # ms of the clock
        ahead = began + gone / 1000 - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        if stamp == "now":
            event.ts = latest = begin + round(gone) if speed else time.time_ns() // 1_000_000
        client.send(event)
        sent += 1
        if time.monotonic() >= tell:
            told(sent, latest)
            tell += 1
    client.flush()
    if close is not None and sent:
        tick = encode(Tick(ts=latest + close))
        for partition in range(client.log.partitions):
            client.log.append([tick], partition=partition)
    told(sent, latest)
    return sent


def _sorted(path: str | Path, columns: Columns) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"'{path}': cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    wanted = {"user": columns.user, "item": columns.item, "time": columns.time}
    wanted |= {} if columns.request is None else {"request": columns.request}
    wanted |= {f"feedback {kind}": _delay(spec)[0] for kind, spec in columns.feedback.items()}
    wanted |= {f"feedback {kind}": after for kind, spec in columns.feedback.items() if isinstance(after := _delay(spec)[1], str)}
    for what, name in [*wanted.items(), *(("feature", name) for name in columns.features or ())]:
        if name not in frame.columns:
            raise ConfigError(f"{what}: '{path}' has no column '{name}'{nearest(name, frame.columns)}")
    if frame.schema[columns.time].is_temporal():
        frame = frame.with_columns(pl.col(columns.time).cast(pl.Datetime("ms")).dt.epoch("ms"))
    if not frame.schema[columns.time].is_integer():
        raise ConfigError(f"time '{columns.time}': must be integers of milliseconds, or dates; got {frame.schema[columns.time]}")
    return frame if frame[columns.time].is_sorted() else frame.sort(columns.time, maintain_order=True)


def _features(frame: pl.DataFrame, columns: Columns) -> list[str]:
    if columns.features is not None:
        return list(columns.features)
    specs = [_delay(spec) for spec in columns.feedback.values()]
    used = {columns.user, columns.item, columns.time, columns.request, *(c for c, _ in specs), *(a for _, a in specs)}
    return [name for name in frame.columns if name not in used]


def _delay(spec: str) -> tuple[str, int | str]:
    """column, and after how many ms or the column that says it."""
    column, _, after = spec.partition("@")
    if not after:
        return column, 0
    try:
        return column, milliseconds(after)
    except ValueError:
        return column, after


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is missing, dates are milliseconds."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return value.isoformat() if isinstance(value, date) else value


