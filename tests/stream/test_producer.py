"""The client: batches, outages, memory, order."""

from __future__ import annotations

import threading
import time

import pytest

from prerank.stream import Client, Feedback, Impression, LogError, decode, producer
from prerank.stream.sqlite import SqliteLog
from tests.stream.flaky import Flaky


@pytest.fixture
def log(tmp_path) -> SqliteLog:
    return SqliteLog(tmp_path / "e.db", sync=False)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(producer, "BACKOFF", (0.005, 0.02))


def event(n: int) -> Impression:
    return Impression(request=n, user=1, item=n, ts=n)


def sent(log: SqliteLog) -> list:
    return [decode(e.data) for e in log.read(0, 0, 100_000)]


def test_all_is_there_after_a_flush_in_order_and_in_batches(log):
    flaky = Flaky(log)
    with Client(flaky, batch=50, linger=5.0) as client:
        for n in range(500):
            client.send(event(n))
        client.flush()
        assert sent(log) == [event(n) for n in range(500)]
        assert (client.acknowledged, len(client), client.retries) == (500, 0, 0)
    assert flaky.appends <= 60


def test_a_message_waits_for_others_no_longer_than_it_lingers(log):
    with Client(log, linger=0.02) as client:
        client.send(event(1))
        assert len(log.read(0, 0, wait=5.0)) == 1


def test_it_tries_again_until_the_log_is_back_and_keeps_the_order(log):
    with Client(Flaky(log, ["before"] * 4 + ["ok", "before"]), batch=10) as client:
        for n in range(40):
            client.send(event(n))
        client.flush()
        assert client.retries == 5
    assert sent(log) == [event(n) for n in range(40)]


def test_a_lost_answer_repeats_messages_and_loses_none(log):
    with Client(Flaky(log, ["after"]), batch=10) as client:
        for n in range(10):
            client.send(event(n))
    assert {e.request for e in sent(log)} == set(range(10))
    assert len(sent(log)) == 20


def test_memory_is_bounded_and_giving_up_is_told(log):
    client = Client(Flaky(log, ["before"] * 1000), limit=5, timeout=0.05)
    for n in range(5):
        client.send(event(n))
    with pytest.raises(LogError, match="5 events wait and none was taken after 0 s; log 'flaky': cannot be reached"):
        client.send(event(5))
    with pytest.raises(LogError, match="5 events are not acknowledged after 0 s"):
        client.flush()
    client.log.plan.clear()
    client.timeout = 10
    client.close()
    assert len(sent(log)) == 5
    with pytest.raises(LogError, match="is closed"):
        client.send(event(6))


def test_who_waits_for_room_gets_it(log):
    client = Client(Flaky(log, ["before"] * 5), limit=3)
    thread = threading.Thread(target=lambda: [client.send(event(n)) for n in range(30)])
    thread.start()
    thread.join(timeout=10)
    client.close()
    assert [e.request for e in sent(log)] == list(range(30))


def test_an_event_that_nobody_could_use_is_the_senders_problem(log):
    with Client(log) as client, pytest.raises(ValueError, match="value: must be finite"):
        client.send(Feedback(request=1, item=1, ts=1, kind="click", value=float("nan")))
    with Client(log) as client, pytest.raises(ValueError, match="a message must be at most 524288 bytes; got 600000"):
        client.send_message(b" " * 600_000, b"k")
    assert sent(log) == []


def test_an_address_is_opened_and_closed(tmp_path):
    with Client(f"sqlite:///{tmp_path}/e.db?partitions=2") as client:
        client.send(event(1))
        assert client.log.partitions == 2
    with pytest.raises(LogError):
        client.log.end(0)
    assert threading.active_count() == 1 or time.sleep(0.1) is None
