"""Sends events without waiting for the log: batches, tries again when it is away, and says when all of it is there.

    with Client("redis://localhost:6379/0?log=events") as client:
        client.send(Impression(request="r1", user=7, item=42, ts=now()))
        client.flush()          # returns when it is durable

A log that is away for a minute costs nothing but memory: up to `limit` events wait, then `send` blocks. A try whose answer was lost is
repeated, so that a message may lie in the log twice: label waiting drops the second.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from types import TracebackType

from prerank.stream.event import LONGEST, Event, Feedback, Impression, Shadow, encode
from prerank.stream.log import Log, LogError
from prerank.stream.url import open_log

BACKOFF = 0.05, 5.0  # seconds between tries, from the first to the longest


class Client:
    """See the module's first lines. Any thread may send.

    log       an address or an open log; one that the client opened, it closes
    batch     most messages of one append
    linger    seconds that a message waits for others
    limit     messages in memory, beyond which `send` blocks
    timeout   seconds after which `send` and `flush` give up

    acknowledged, retries: how often so far
    """

    def __init__(self, log: Log | str, *, batch: int = 1000, linger: float = 0.01, limit: int = 100_000, timeout: float = 120.0) -> None:
        self._own = isinstance(log, str)
        self.log = open_log(log) if isinstance(log, str) else log
        self.batch, self.linger, self.limit, self.timeout = batch, linger, limit, timeout
        self.acknowledged = self.retries = 0
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._changed = threading.Condition()
        self._flushing = self._closed = False
        self._last: LogError | None = None
        self._thread = threading.Thread(target=self._work, name="prerank events", daemon=True)
        self._thread.start()

    def send(self, event: Event) -> None:
        """Raises ValueError for an event that nobody could use, LogError when the memory stays full."""
        self.send_message(encode(event), key_of(event))

    def send_message(self, message: bytes, key: bytes) -> None:
        """An encoded event, of which only the size is looked at; the key is its impression's request.

        Raises ValueError for one that is too large, LogError when the memory stays full.
        """
        if len(message) > LONGEST:
            raise ValueError(f"event: a message must be at most {LONGEST} bytes; got {len(message)}")
        with self._changed:
            if self._closed:
                raise LogError(f"log '{self.log.name}': this client is closed")
            if not self._changed.wait_for(lambda: len(self._waiting) < self.limit, self.timeout):
                raise self._stuck(f"{self.limit} events wait and none was taken")
            self._waiting.append((message, key))
            if len(self._waiting) in (1, self.batch):
                self._changed.notify_all()

    def flush(self) -> None:
        """Returns when all that was sent is durable. Raises LogError after `timeout`; the events still wait, and are tried."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._waiting, self.timeout):
                raise self._stuck(f"{len(self._waiting)} events are not acknowledged")

    def close(self) -> None:
        """Flushes first. Raises LogError when that fails."""
        try:
            if not self._closed:
                self.flush()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._thread.join()
            if self._own:
                self.log.close()

    @property
    def problem(self) -> str | None:
        """Why the last try failed; None: it did not."""
        return None if self._last is None else str(self._last)

    def __len__(self) -> int:
        """Events that are not acknowledged yet."""
        return len(self._waiting)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        """The thread: batches go out one after the other, in the order of sending."""
        pause = BACKOFF[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._changed.wait_for(lambda: len(self._waiting) >= self.batch or self._flushing or self._closed, self.linger)
                part = [self._waiting[i] for i in range(min(self.batch, len(self._waiting)))]
            try:
                self.log.append([m for m, _ in part], [k for _, k in part])
            except LogError as error:
                self._last = error
                self.retries += 1
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, BACKOFF[1])
                continue
            pause, self._last = BACKOFF[0], None
            with self._changed:
                for _ in part:
                    self._waiting.popleft()
                self.acknowledged += len(part)
                self._flushing = self._flushing and bool(self._waiting)
                self._changed.notify_all()

    def _stuck(self, what: str) -> LogError:
        return LogError(f"log '{self.log.name}': {what} after {self.timeout:.0f} s; {self._last or 'it is slow'}")


def key_of(event: Event) -> bytes:
    """What decides an event's partition: an impression and its feedback share their request's.

    >>> key_of(Feedback(request="r1", item=42, ts=5, kind="click"))
    b'r1'
    """
    if isinstance(event, Impression | Feedback | Shadow):
        return str(event.request).encode()
    return str(getattr(event, "id", "")).encode()


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
