"""The process around label waiting: outages, restarts, quiet logs, full disks, two at once."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.stream import (
    Client,
    Entry,
    Feedback,
    Impression,
    Joiner,
    LabelWaiting,
    LogError,
    Position,
    Rows,
    StateError,
    Tick,
    Waiting,
    encode,
    now,
    open_log,
    read_dead,
    read_row,
)
from prerank.stream.saved import SavedError
from prerank.stream.sqlite import SqliteLog
from tests.stream.flaky import Flaky
from tests.stream.servers import RedisServer

CLICK = Waiting(kinds={"click": "10s"}, early=True, lateness="1s")


def messages(n: int = 40) -> list[bytes]:
    """Some clicked, some poison."""
    found = []
    for i in range(n):
        found.append(encode(Impression(request=i, user=1, item=i, ts=1000 * i)))
        if i % 3 == 0:
            found.append(encode(Feedback(request=i, item=i, ts=1000 * i + 500, kind="click")))
        if i % 10 == 9:
            found.append(b"poison %d" % i)
    return [*found, encode(Tick(ts=1000 * n + 60_000))]


def expected(log: SqliteLog) -> tuple[list, list]:
    ready = LabelWaiting(CLICK).push_all(log.read(0, 0, 100_000))
    return [read_row(m) for m in ready.rows], ready.dead


@pytest.fixture
def logs(tmp_path: Path) -> tuple[SqliteLog, SqliteLog, SqliteLog]:
    return tuple(SqliteLog(tmp_path / f"{name}.db", sync=False) for name in ("events", "rows", "dead"))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_fails_and_whenever_it_is_restarted_each_row_is_there_once(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("joiner")
    events, rows, dead = (SqliteLog(folder / f"{name}.db", sync=False) for name in ("events", "rows", "dead"))
    plans = st.lists(st.sampled_from(["ok", "before", "after"]), max_size=6)
    flaky = [Flaky(log, data.draw(plans)) for log in (rows, dead)]
    left, all_ = data.draw(st.lists(st.integers(1, 20), max_size=5)), messages()
    joiner = None
    while all_ or joiner is None or joiner.parts[0].lag:
        events.append(all_[: (part := left.pop() if left else len(all_))])
        all_ = all_[part:]
        if joiner is None or data.draw(st.booleans()):  # killed: nothing is said to the one before
            joiner = Joiner(events, flaky[0], CLICK, folder, dead=flaky[1], every=data.draw(st.sampled_from([0.0, 1e9])), ttl=1e-9)
        for _ in range(3):
            try:
                joiner.step()
            except LogError:
                joiner.parts[0]._lease.ttl = 1e-9
    for one in flaky:
        one.plan.clear()
    joiner.step()
    want, letters = expected(events)
    reader = Rows(rows)
    assert reader.take(10_000) == want
    assert reader.repeated == reader.broken == 0
    assert [e.data for e in dead.read(0, 0, 10_000)] == letters
    for log in (events, rows, dead):
        log.close()


def test_a_state_saves_reading_all_of_it_again(logs, tmp_path):
    events, rows, dead = logs
    events.append(messages())
    first = Joiner(events, rows, CLICK, tmp_path / "s", dead=dead)
    first.step()
    first.close()
    assert events.committed("labels", 0) == events.end(0)
    second = Joiner(events, rows, CLICK, tmp_path / "s", dead=dead)
    second.step()
    assert second.parts[0].waiting.offset == events.end(0) - 1
    assert second.counts()["rows"] == 40
    assert rows.end(0) == 40
    second.close()
    with pytest.raises(StateError, match="was saved with other kinds"):
        Joiner(events, rows, Waiting(kinds={"click": "1h"}, early=True, lateness="1s"), tmp_path / "s").step()


def test_a_spoilt_state_is_refused_and_a_half_written_one_is_not_seen(logs, tmp_path):
    events, rows, _ = logs
    events.append(messages())
    joiner = Joiner(events, rows, CLICK, tmp_path / "s")
    joiner.step()
    joiner.close()
    state = tmp_path / "s" / "labels-0.state"
    (tmp_path / "s" / "labels-0.state.part").write_bytes(b"half")
    joiner = Joiner(events, rows, CLICK, tmp_path / "s")
    joiner.step()
    joiner.close()
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    with pytest.raises(SavedError, match=r"labels-0.state': is not what was saved there"):
        Joiner(events, rows, CLICK, tmp_path / "s").step()


def test_a_full_disk_keeps_the_state_before(logs, tmp_path, monkeypatch):
    events, rows, _ = logs
    joiner = Joiner(events, rows, CLICK, tmp_path / "s")
    events.append(messages(10))
    joiner.step()
    joiner.save()
    before = (tmp_path / "s" / "labels-0.state").read_bytes()
    events.append(messages(20)[10:])
    joiner.step()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said: list[str] = []
    joiner.every = joiner._save_at = 0.0
    joiner.run(lambda: len(said) == 2, said.append)  # it goes on, and tries again
    assert "No space left on device" in said[1]
    joiner = Joiner(events, rows, CLICK, tmp_path / "s", every=1e9)
    joiner._save_at = 1e9
    joiner.step()
    with pytest.raises(OSError, match=r"No space left on device: '.*labels-0\.state'"):
        joiner.save()
    monkeypatch.undo()
    assert (tmp_path / "s" / "labels-0.state").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "s")) == [".lock", "labels-0.state"]
    joiner.save()
    assert (tmp_path / "s" / "labels-0.state").read_bytes() != before
    joiner.close()


def test_a_full_log_refuses_whole_appends_and_goes_on_when_there_is_room(logs):
    events = logs[0]
    events.append([b"x" * 1000] * 10)
    (pages,) = events._db.execute("PRAGMA page_count").fetchone()
    events._db.execute(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(LogError, match="database or disk is full"):
        events.append([b"y" * 1000] * 500)
    assert events.end(0) == 10
    events._db.execute("PRAGMA max_page_count=1000000")
    events.append([b"z"])
    assert [e.data for e in events.read(0, 9)] == [b"x" * 1000, b"z"]


def test_a_quiet_log_goes_on_by_the_clock(logs, tmp_path):
    events, rows, _ = logs
    begin = now()
    settings = Waiting(kinds={"click": "0.2s"}, early=True, lateness="0.1s")
    joiner = Joiner(events, rows, settings, tmp_path / "s", idle=0.05)
    events.append([encode(Impression(request=1, user=1, item=1, ts=begin))])
    while rows.end(0) == 0:
        joiner.step(0.01)
        assert now() - begin < 30_000
    assert now() - begin >= 300
    ticks = events.end(0)
    assert ticks > 1
    for _ in range(20):
        joiner.step(0.01)
    assert events.end(0) == ticks  # nothing waits: nothing needs to be said
    joiner.close()


def test_events_are_trimmed_once_they_are_part_of_the_state(logs, tmp_path):
    events, rows, _ = logs
    events.append(messages())
    joiner = Joiner(events, rows, CLICK, tmp_path / "s", retain=0, every=1e9)
    joiner.step()
    joiner.close()
    time.sleep(0.01)
    events.append([b"{}"])
    joiner = Joiner(events, rows, CLICK, tmp_path / "s", retain=0)
    joiner.step()
    joiner.close()
    assert events.start(0) >= events.end(0) - 1
    assert rows.end(0) == 40


def test_events_that_were_trimmed_before_they_were_read_are_counted(logs, tmp_path):
    events, rows, _ = logs
    events.append(messages(10))
    events.trim(0, before=4)
    joiner = Joiner(events, rows, CLICK, tmp_path / "s")
    joiner.step()
    assert joiner.counts()["lost"] == 4
    joiner.close()


def test_two_share_the_partitions_and_one_takes_over(tmp_path):
    events, rows = (SqliteLog(tmp_path / f"{name}.db", 3, sync=False) for name in ("events", "rows"))
    one = Joiner(events, rows, CLICK, tmp_path / "s", partitions=[0, 1], ttl=1.0)
    two = Joiner(events, rows, CLICK, tmp_path / "s")
    one.step()
    two.step()
    assert (sorted(one.parts), sorted(two.parts)) == ([0, 1], [2])
    events.append(messages(), partition=1)
    one.step()
    one.save()
    deadline = time.monotonic() + 20
    while len(two.parts) < 3 and time.monotonic() < deadline:  # `one` is gone without a word
        two.step(0.01)
    assert sorted(two.parts) == [0, 1, 2]
    two.step()
    time.sleep(0.05)
    two.step()
    with pytest.raises(LogError, match="partition 0 belongs to"):
        one.step()
    assert [r.source for r in Rows(rows, 1).take()] == sorted({r.source for r in Rows(rows, 1).take()})
    two.close()


def test_logs_of_other_partitions_are_refused(logs, tmp_path):
    with pytest.raises(ValueError, match=r"must have as many partitions as '.*', 2; got 1"):
        Joiner(SqliteLog(tmp_path / "two.db", 2), logs[1], CLICK, tmp_path)


def test_redis_gone_for_a_while_and_back(redis_server: RedisServer, tmp_path):
    """Client, joiner and reader go on where they stood; what was acknowledged is there, each row once."""
    url = redis_server.url
    stop, said = threading.Event(), []
    logs = [open_log(url(name, 1)) for name in ("events", "rows", "dead")]
    joiner = Joiner(logs[0], logs[1], CLICK, tmp_path, dead=logs[2], every=0.1, ttl=1.0)
    thread = threading.Thread(target=joiner.run, args=(stop.is_set, said.append))
    thread.start()
    rows = Rows(open_log(url("rows", 1)))
    found, all_ = [], messages(300)
    with Client(url("events", 1), batch=20, linger=0.0) as client:
        for i, message in enumerate(all_):
            client.send_message(message, b"k")
            if i == 150:
                client.flush()
                redis_server.kill()
                with pytest.raises(LogError, match="log 'rows': cannot be reached"):
                    rows.take()
            if i == 250:
                time.sleep(0.4)
                redis_server.start()
        client.flush()
        assert client.retries > 0
        assert client.acknowledged == len(all_)
    deadline = time.monotonic() + 20
    while len(found) < 300 and time.monotonic() < deadline:
        try:
            found += rows.take(wait=0.1)
        except LogError:
            time.sleep(0.05)
    stop.set()
    thread.join()
    log = open_log(url("events", 1))
    want, letters = expected(log)
    assert found == want
    assert len(want) == 300
    assert [read_dead(e.data) for e in open_log(url("dead", 1)).read(0, 0)] == [read_dead(m) for m in letters]
    assert any("cannot be reached" in line and "next try in" in line for line in said)


def test_a_server_that_came_back_empty_is_told():
    server = RedisServer(durable=False)
    try:
        log = open_log(server.url("events", 1))
        log.append([b"a", b"b"])
        server.kill()
        server.start()
        with pytest.raises(LogError, match="ends at 0, before offset 2 that was asked for: it lost entries"):
            log.read(0, 2)
    finally:
        server.close()


def test_rows_skip_what_came_again_and_what_is_none(logs):
    rows = logs[1]
    ready = LabelWaiting(CLICK).push_all(_entries(messages())).rows
    rows.append([*ready[:5], *ready[2:4], b"{}", *ready[3:9]])
    reader = Rows(rows)
    assert reader.take(6) == [read_row(m) for m in ready[:5]]
    saved = Position(*reader.position)
    assert reader.lag == 14 - 6
    again = Rows(rows, 0, saved)
    assert again.take() == [read_row(m) for m in ready[5:9]]
    assert (again.repeated, again.broken) == (3, 1)
    assert again.take() == []


def _entries(all_: list[bytes]) -> list[Entry]:
    return [Entry(i, 10**9, m) for i, m in enumerate(all_)]
