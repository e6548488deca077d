"""What the tests kill: `write` appends impressions and feedback and tells the numbers that are acknowledged; `join` joins them.

They are started by a server that has imported everything already, so that a start takes no time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prerank.stream import Client, Feedback, Impression, Joiner, Tick, Waiting, encode, open_log

BEGIN = 1_700_000_000_000


def start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """A process of one of the functions below, and what it tells."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.stream.process", "redis", "confluent_kafka"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


def told(connection: Connection) -> Iterator[Any]:
    """All that a process said until it ended; half a word at its death is none."""
    while True:
        try:
            yield connection.recv()
        except (EOFError, OSError):
            return


def write(tell: Connection, url: str, first: int, count: int) -> None:
    """Each number is an impression, every third is clicked; once in a while a message is poison, or sent twice."""
    with Client(url, batch=40) as client:
        for n in range(first, first + count):
            ts = BEGIN + n * 100
            client.send(Impression(request=f"r{n // 5}", user=n % 17, item=n, ts=ts, features={"number": n}))
            if n % 3 == 0:
                client.send(Feedback(request=f"r{n // 5}", item=n, ts=ts + 1000, kind="click"))
            if n % 50 == 0:
                client.send_message(b"poison", b"r%d" % (n // 5))
            if n % 7 == 0:
                client.send(Impression(request=f"r{n // 5}", user=n % 17, item=n, ts=ts, features={"number": n}))
            if n % 20 == 19:
                client.flush()
                tell.send(n)
        client.flush()
        for p in range(client.log.partitions):
            client.log.append([encode(Tick(ts=BEGIN + (first + count) * 100 + 60_000))], partition=p)


def join(tell: Connection, events: str, rows: str, dead: str, folder: str, drain: bool) -> None:
    """Until it is killed, or to the end of the log after the file `go` is there."""
    settings = Waiting(kinds={"click": "10s"}, early=True)
    joiner = Joiner(open_log(events), open_log(rows), settings, folder, dead=open_log(dead), every=0.05, ttl=0.3)
    while len(joiner.parts) < joiner.events.partitions or joiner.counts()["rows"] == 0:
        joiner.step(0.01)
    tell.send("ready")
    go = Path(folder) / "go"
    joiner.run(lambda: drain and go.exists() and joiner.at_end())
