"""One file for every log: the contract of stream/log.py, and what must hold when processes are killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prerank.stream import LabelWaiting, LeaseError, Log, LogError, Rows, Waiting, open_log, partition_of, read_row
from tests.stream.process import join, start, told, write
from tests.stream.servers import Brokers, RedisServer

PARTITIONS = 4  # those that the mock cluster makes
Opener = Callable[..., Log]
_names = itertools.count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture(params=["sqlite", "redis", "kafka"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Name of a log -> its address, in every kind in turn."""
    unique = next(_names)

    def of(name: str = "events") -> str:
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db?partitions={PARTITIONS}"
        if request.param == "redis":
            return request.getfixturevalue("redis").url(f"{name}-{unique}", PARTITIONS)
        return request.getfixturevalue("brokers").url(f"{name}-{unique}")

    return of


@pytest.fixture
def opened(address: Callable[[str], str]) -> Iterator[Opener]:
    """Opens the log of a name, as often as one likes."""
    logs: list[Log] = []

    def open_(name: str = "events") -> Log:
        logs.append(open_log(address(name)))
        return logs[-1]

    yield open_
    for log in logs:
        log.close()


@pytest.fixture
def log(opened: Opener) -> Log:
    return opened()


def all_of(log: Log, partition: int, limit: int = 700) -> list[bytes]:
    found: list[bytes] = []
    offset = log.start(partition)
    while entries := log.read(partition, offset, limit):
        found += [e.data for e in entries]
        assert [e.offset for e in entries] == sorted({e.offset for e in entries})
        assert entries[0].offset >= offset
        offset = entries[-1].offset + 1
    assert offset <= log.end(partition)
    return found


def test_what_was_appended_is_read_in_order_with_its_offsets_and_time(log):
    messages = [b"%d" % i for i in range(2500)]
    began = time.time_ns() // 1_000_000
    offsets = log.append(messages[:1], partition=2)
    offsets += log.append(messages[1:], partition=2)
    assert offsets == sorted(set(offsets))
    found = log.read(2, offsets[0], 5000)
    assert [(e.offset, e.data) for e in found] == list(zip(offsets, messages, strict=True))
    assert all(began - 1000 <= e.ts <= time.time_ns() // 1_000_000 + 1000 for e in found)
    assert log.end(2) > offsets[-1]


def test_reading_goes_on_from_any_offset(log):
    offsets = log.append([b"%d" % i for i in range(10)], partition=1)
    assert [e.data for e in log.read(1, offsets[4], 3)] == [b"4", b"5", b"6"]
    assert [e.data for e in log.read(1, offsets[9] + 1, 3)] == []
    assert [e.data for e in log.read(1, offsets[2], 2)] == [b"2", b"3"]
    assert log.read(0, 0, 3) == []


def test_a_reader_that_waits_is_woken(log):
    offset = log.append([b"a"], partition=0)[0] + 1
    log.read(0, offset)  # connected
    began = time.monotonic()
    assert log.read(0, offset, wait=0.05) == []
    assert 0.04 < time.monotonic() - began < 2
    writer = threading.Timer(0.1, lambda: log.append([b"b"], partition=0))
    writer.start()
    began = time.monotonic()
    found: list[bytes] = []
    while not found and time.monotonic() - began < 5:
        found = [e.data for e in log.read(0, offset, wait=2.0)]
    assert found == [b"b"]
    assert time.monotonic() - began < 5
    writer.join()


def test_a_key_decides_the_partition(log):
    keys = [b"r%d" % (i % 7) for i in range(100)]
    messages = [b"%d" % i for i in range(100)]
    offsets = log.append(messages, keys)
    for p in range(PARTITIONS):
        expected = [(o, m) for o, m, k in zip(offsets, messages, keys, strict=True) if partition_of(k, PARTITIONS) == p]
        assert [(e.offset, e.data) for e in log.read(p, 0)] == expected


def test_any_bytes_and_many_of_them(log):
    messages = [b"", b"\x00\xff\n", os.urandom(900_000)]
    log.append(messages, partition=3)
    assert all_of(log, 3) == messages
    assert log.append([]) == []


@pytest.mark.parametrize("partition", [-1, PARTITIONS])
def test_partitions_that_are_not_there(log, partition):
    for call in (lambda: log.append([b"a"], partition=partition), lambda: log.read(partition, 0), lambda: log.end(partition),
                 lambda: log.start(partition), lambda: log.commit("g", partition, 0), lambda: log.claim("g", partition, "a"),
                 lambda: log.trim(partition, before=1)):  # fmt: skip
        with pytest.raises(ValueError, match=f"partition: must be from 0 to 3; got {partition}"):
            call()
    with pytest.raises(ValueError, match="keys: must be one a message, 1; got 2"):
        log.append([b"a"], [b"k", b"k"])


def test_groups_keep_their_own_place(log, opened):
    log.append([b"a"] * 9, partition=1)
    assert log.committed("a", 1) is None
    for group, offset in (("a", 5), ("b", 7), ("a", 3)):
        log.commit(group, 1, offset)
    other = opened()
    assert (other.committed("a", 1), other.committed("b", 1), other.committed("a", 0)) == (3, 7, None)


def test_a_log_outlives_its_client_and_its_partitions_stay(log, opened, address):
    log.append([b"a"], partition=1)
    log.close()
    assert all_of(opened(), 1) == [b"a"]
    with pytest.raises(LogError, match=r"must have 3 partitions; .* 4"):
        open_log(f"{address('events').split('?')[0]}?{_with_three(address('events'))}")


def test_a_log_that_is_only_looked_at_is_not_made(address, opened):
    with pytest.raises(LogError, match=r"no such file|none of that name|no such topic"):
        open_log(address("none"), create=False)
    opened("some").append([b"a"], partition=1)
    found = open_log(address("some"), create=False)
    assert all_of(found, 1) == [b"a"]
    found.close()


def _with_three(url: str) -> str:
    return f"{url.partition('?')[2].replace('partitions=4', '')}&partitions=3".strip("&").replace("&&", "&")


def test_an_offset_beyond_the_end_is_no_quiet_log(log):
    log.append([b"a"], partition=1)
    with pytest.raises(LogError, match="partition 1 ends at 1, before offset 5 that was asked for: it lost entries"):
        log.read(1, 5)


def test_retention(log):
    offsets = log.append([b"%d" % i for i in range(10)], partition=1)
    if type(log).__name__ == "KafkaLog":  # the mock cluster cannot delete; real brokers do
        with pytest.raises(LogError, match="Required feature not supported by broker"):
            log.trim(1, before=offsets[4])
        return
    log.trim(1, before=offsets[4])
    assert log.start(1) == offsets[4]
    assert [e.data for e in log.read(1, 0, 2)] == [b"4", b"5"]
    time.sleep(0.02)
    log.append([b"young"], partition=1)
    log.trim(1, older=log.read(1, offsets[-1] + 1)[0].ts)
    assert all_of(log, 1) == [b"young"]
    log.trim(1, older=time.time_ns() // 1_000_000 + 60_000)
    assert (all_of(log, 1), log.start(1)) == ([], log.end(1))
    assert log.append([b"next"], partition=1)[0] > offsets[-1] + 1


def test_a_partition_has_one_owner(log, opened):
    other = opened()
    lease = log.claim("trainers", 1, "a", ttl=1.5)
    with pytest.raises(LeaseError, match=r"partition 1 belongs to 'a' in group 'trainers' for [012] more seconds"):
        other.claim("trainers", 1, "b")
    other.claim("trainers", 2, "b")
    other.claim("rankers", 1, "b")
    for _ in range(2):
        time.sleep(0.8)
        lease.renew()
    with pytest.raises(LeaseError):
        other.claim("trainers", 1, "b")
    lease.release()
    taken = other.claim("trainers", 1, "b", ttl=0.3)
    time.sleep(0.35)
    log.claim("trainers", 1, "a", ttl=30)  # b did not renew
    with pytest.raises(LeaseError, match="belongs to 'a'"):
        taken.renew()
    taken.release()  # what b no longer has, it cannot give away
    with pytest.raises(LeaseError, match="belongs to 'a'"):
        other.claim("trainers", 1, "c")


def test_of_many_that_claim_at_once_one_has_it(log, opened):
    logs, won = [opened() for _ in range(4)], []
    for p in range(2):
        barrier = threading.Barrier(len(logs))

        def claim(one: Log, name: str, p: int = p, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                one.claim("trainers", p, name)
                won.append(p)
            except LeaseError:
                pass

        threads = [threading.Thread(target=claim, args=(one, f"owner {i}")) for i, one in enumerate(logs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert won == [0, 1]


def test_writers_at_once_lose_nothing_and_keep_their_order(opened):
    opened()  # where there is no such server, the test is skipped here and not in a thread

    def write(n: int) -> None:
        log = opened()
        for i in range(0, 60, 3):
            log.append([b"%d %d" % (n, i + k) for k in range(3)], partition=1)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = all_of(opened(), 1)
    assert len(found) == 180
    for n in range(3):
        assert [m for m in found if m.startswith(b"%d " % n)] == [b"%d %d" % (n, i) for i in range(60)]


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_of_writer_and_joiner_loses_nothing_and_joins_nothing_twice(address, opened, tmp_path, kills):
    """Both are killed at random moments and started again; rows must be those of a run without interruption."""
    if address("x").startswith("kafka"):
        kills = min(kills, 12)  # the mock cluster keeps 5 MB of a partition
    rng, state, last = random.Random(tmp_path.name), tmp_path / "labels", -1
    for name in ("events", "rows", "dead"):
        opened(name)
    for kill in [True] * kills + [False]:
        writer, acknowledged = start(write, address("events"), last + 1, 4000 if kill else 600)
        joiner, words = start(join, address("events"), address("rows"), address("dead"), str(state), not kill)
        last = acknowledged.recv()  # it is at work
        if kill:
            assert words.recv() == "ready"
            time.sleep(rng.uniform(0.0, 0.4))
            for process in rng.sample((writer, joiner), 2):
                process.kill()
        last = max([last, *told(acknowledged)])
        writer.join(30)
        (state / "go").touch()  # all of it is in the log now, time that closes the windows, too
        joiner.join(60)
        assert joiner.exitcode == (-signal.SIGKILL if kill else 0)
        (state / "go").unlink()
    log, rows = opened("events"), opened("rows")
    written, repeated = set(), 0
    for p in range(PARTITIONS):
        oracle = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True))
        entries = log.read(p, 0, 1_000_000)
        written |= {m.split(b'"number":')[1].split(b"}")[0] for e in entries if b'"number":' in (m := e.data)}
        expected = oracle.push_all(entries)
        reader = Rows(rows, p)
        found = reader.take(1_000_000)
        repeated += reader.repeated
        assert [r.source for r in found] == [read_row(m).source for m in expected.rows]
        assert found == [read_row(m) for m in expected.rows]
        assert len({(r.impression.request, r.impression.item) for r in found}) == len(found)
        assert all_of(opened("dead"), p) == expected.dead
    assert {b"%d" % n for n in range(last + 1)} <= written
    assert repeated == 0
