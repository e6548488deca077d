"""How fast events are appended, read and joined: each log, label waiting alone, and the whole process around it.

    python -m benchmarks.events [--rounds 5] [--requests 20000]

A made-up log: requests of 10 impressions with 8 features, a fifth of them clicked within a minute, in order of arrival. A round appends
it in batches, reads it back, and joins it; the median over rounds is told. CPU seconds are this process's, so that a server's own
work is in the wall clock only. Redis and Kafka are left out where they cannot be run: redis-server is started on a socket, without
disk and with every append on disk; Kafka is librdkafka's mock cluster in this process, which says what the client costs, not what
brokers do.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record
from prerank.stream import Entry, Feedback, Impression, Joiner, LabelWaiting, Log, Rows, Tick, Waiting, encode, open_log

ROOT = Path(__file__).resolve().parents[1]
BAR = 50_000  # rows a CPU-second of label waiting
BEGIN, STEP, ITEMS = 1_700_000_000_000, 5, 10  # ms from one impression to the next: 200 a second
WINDOWS = {"click=10m": {"click": "10m"}, "click=1m": {"click": "1m"}, "click=1m, buy=30m": {"click": "1m", "buy": "30m"}}
NUMBERS = ("append_per_s", "append_per_cpu_s", "read_per_s", "read_per_cpu_s")
MOCKED = 20_000  # messages that the mock cluster keeps of a partition are few


def log_of(requests: int, seed: int) -> list[bytes]:
    """Messages in order of event time, then a tick that closes every window."""
    rng = random.Random(seed)
    messages: list[bytes] = []
    due: list[tuple[int, int, bytes]] = []
    for n in range(requests * ITEMS):
        ts, request, item = BEGIN + n * STEP, f"request-{n // ITEMS}", rng.randrange(50_000)
        while due and due[0][0] <= ts:
            messages.append(heapq.heappop(due)[2])
        features = {"tab": rng.randrange(5), "hour": n % 24, "device": "ios", "city": f"c{rng.randrange(300)}", "age": "25-30",
                    "price": round(rng.random() * 100, 2), "recent": [rng.randrange(50_000) for _ in range(5)], "new": False}  # fmt: skip
        messages.append(encode(Impression(request=request, user=rng.randrange(100_000), item=item, ts=ts, position=n % ITEMS,
                                          score=round(rng.random(), 6), generation=12, features=features)))  # fmt: skip
        if rng.random() < 0.2:
            later = ts + rng.randrange(60_000)
            heapq.heappush(due, (later, n, encode(Feedback(request=request, item=item, ts=later, kind="click"))))
    messages += [message for _, _, message in sorted(due)]
    return [*messages, encode(Tick(ts=BEGIN + requests * ITEMS * STEP + 7_200_000))]


class Clock:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def appended_and_read(log: Log, messages: list[bytes], batch: int) -> dict[str, float]:
    """Messages per second of wall clock and of CPU."""
    with Clock() as write:
        for i in range(0, len(messages), batch):
            log.append(messages[i : i + batch], partition=0)
    offset, count = log.start(0), 0
    with Clock() as read:
        while entries := log.read(0, offset, 2000):
            offset, count = entries[-1].offset + 1, count + len(entries)
    assert count == len(messages), f"{log}: {count} of {len(messages)} messages came back"
    n = len(messages)
    return {"append_per_s": n / write.wall, "append_per_cpu_s": n / write.cpu, "read_per_s": n / read.wall, "read_per_cpu_s": n / read.cpu}


def joined(messages: list[bytes], kinds: dict[str, str]) -> dict[str, float]:
    """Label waiting alone: entries in memory in, messages out."""
    entries = [Entry(n, BEGIN + n * STEP + 7_500_000, m) for n, m in enumerate(messages)]
    waiting, rows, most = LabelWaiting(Waiting(kinds=kinds)), 0, 0
    with Clock() as clock:
        for i in range(0, len(entries), 2000):
            rows += len(waiting.push_all(entries[i : i + 2000]).rows)
            most = max(most, len(waiting))
    assert waiting.counts["dead"] == 0, waiting.counts
    return {"rows": rows, "rows_per_cpu_s": rows / clock.cpu, "events_per_cpu_s": len(entries) / clock.cpu, "most_in_memory": most}


def through(messages: list[bytes]) -> dict[str, float]:
    """The process: SQLite to SQLite, offsets and state included; then a trainer's reading of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        events, rows = open_log(f"sqlite:///{folder}/events.db"), open_log(f"sqlite:///{folder}/rows.db")
        for i in range(0, len(messages), 5000):
            events.append(messages[i : i + 5000])
        joiner = Joiner(events, rows, Waiting(kinds={"click": "10m"}, early=True, skew="10d"), folder)
        with Clock() as join:
            while joiner.step():
                pass
            joiner.close()
        reader, count = Rows(rows), 0
        with Clock() as read:
            while taken := reader.take(2000):
                count += len(taken)
        for log in (events, rows):
            log.close()
    return {"rows": count, "rows_per_cpu_s": count / join.cpu, "rows_per_s": count / join.wall, "taken_per_cpu_s": count / read.cpu}


def memory(requests: int, seed: int) -> float:
    """Bytes that a waiting impression takes, its message included."""
    messages = [m for m in log_of(requests, seed) if b'"impression"' in m]
    entries = [Entry(n, 2**50, bytes(bytearray(m))) for n, m in enumerate(messages)]
    waiting = LabelWaiting(Waiting(kinds={"click": "10d"}, early=True, keep=len(entries)))
    size = sum(len(m) for m in messages)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    waiting.push_all(entries)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(waiting) + size / len(messages)


@contextmanager
def redis(durable: bool) -> Iterator[str]:
    """A server's socket."""
    with tempfile.TemporaryDirectory(prefix="prerank-") as folder:
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        command = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/s", "--save", "", *kept, "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            while not Path(f"{folder}/s").exists():
                time.sleep(0.01)
            yield f"unix://{folder}/s"
            server.terminate()


def logs(messages: list[bytes], batch: int) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Name, and what measures it once."""

    def sqlite(sync: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            return _closed(open_log(f"sqlite:///{folder}/e.db?sync={sync}"), messages, batch)

    def server(durable: bool) -> dict[str, float]:
        with redis(durable) as address:
            return _closed(open_log(address), messages, batch)

    def mock() -> dict[str, float]:
        import confluent_kafka

        host: Any = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        (broker,) = host.list_topics(timeout=10).brokers.values()
        return _closed(open_log(f"kafka://{broker.host}:{broker.port}/events"), messages[: MOCKED // 2], batch)

    yield "sqlite", lambda: sqlite("on")
    yield "sqlite, sync=off", lambda: sqlite("off")
    yield "redis, in memory", lambda: server(False)
    yield "redis, fsync always", lambda: server(True)
    yield "kafka, mock cluster", mock


def _closed(log: Log, messages: list[bytes], batch: int) -> dict[str, float]:
    try:
        return appended_and_read(log, messages, batch)
    finally:
        log.close()


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each number over rounds."""
    return {name: round(statistics.median(r[name] for r in rounds), 1) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="append, read and label waiting: events per second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000, help="of 10 impressions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console()
    a_waiting_impression = memory(given.requests, given.seed)
    messages = log_of(given.requests, given.seed)
    found: dict[str, Any] = {"messages": len(messages), "bytes_a_message": round(sum(map(len, messages)) / len(messages), 1),
                             "bytes_a_waiting_impression": round(a_waiting_impression, 1), "logs": {}, "waiting": {}}  # fmt: skip
    part = messages[: 4 * MOCKED]
    for batch in (100, 1000):
        for name, measure in logs(part, batch):
            try:
                found["logs"].setdefault(name, {})[f"batch {batch}"] = median([measure() for _ in range(given.rounds)])
            except (ImportError, FileNotFoundError) as error:
                console.print(f"{name}: left out: {error}")
    for name, kinds in WINDOWS.items():
        found["waiting"][name] = median([joined(messages, kinds) for _ in range(given.rounds)])
    found["process"] = median([through(messages) for _ in range(given.rounds)])
    slowest = min(w["rows_per_cpu_s"] for w in found["waiting"].values())
    found["bar"] = {"rows_per_cpu_s": BAR, "holds": slowest >= BAR, "slowest": slowest}
    _show(console, found)
    record.write(ROOT / "results/events.json", benchmark="events", seed=given.seed, results=found)


def _show(console: Console, found: dict[str, Any]) -> None:
    table = Table("log", "batch", "append / s", "append / CPU s", "read / s", "read / CPU s", box=None)
    for name, batches in found["logs"].items():
        for batch, numbers in batches.items():
            table.add_row(name, batch, *(f"{numbers[k]:,.0f}" for k in NUMBERS))
    console.print(table)
    for name, numbers in [*found["waiting"].items(), ("process, sqlite to sqlite", found["process"])]:
        console.print(f"{name}: {numbers['rows_per_cpu_s']:,.0f} rows a CPU-second", highlight=False)
    console.print(f"a waiting impression: {found['bytes_a_waiting_impression']:,.0f} bytes", highlight=False)


if __name__ == "__main__":
    main()
