"""What was answered, written into an event log without anybody waiting for it: an impression for each item of an answer.

    recorder = Recorder("sqlite:///events.db", measures)
    recorder.put(answered, ts, latency)             returns at once
    await recorder.append(messages, keys)           waits until they are durable: what POST /events calls

A thread makes the messages and hands them to a `stream.Client`, which appends in batches and tries again while the log is away. Both have
room for so much; what does not fit any more is dropped and counted, and `problem` says so. A log that is away when the server starts is
tried again for ever.
"""

from __future__ import annotations

import logging
import math
import queue
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from prerank.serving.commits import Commits
from prerank.serving.desk import Answered
from prerank.serving.generation import Generation
from prerank.serving.measures import Measures
from prerank.serving.served import Served
from prerank.stream import Client, Event, Impression, Log, LogError, encode, key_of, open_log

REQUESTS, MESSAGES = 1_000, 100_000  # that wait at most: answers for the thread, messages for the log
LOOK = 0.2  # seconds between looks at what the log acknowledged
TOLD = 60.0  # seconds that a dropped impression is worth a word of health's
LAST = 5.0  # seconds that what waits is given when the server ends
log = logging.getLogger("prerank.serving")


class _Put(NamedTuple):
    """An answer that waits. ts: when it was given, ms; latency: ms in the server."""

    answered: Answered
    ts: int
    latency: float


class Recorder:
    """See the module's first lines."""

    def __init__(self, url: str, measures: Measures, limit: int = MESSAGES) -> None:
        """Raises ValueError for an address that is none."""
        self._measures, self._limit = measures, limit
        self._waiting: queue.SimpleQueue[_Put | Event | None] = queue.SimpleQueue()
        self._served: WeakKeyDictionary[Generation, Served] = WeakKeyDictionary()
        self._encode = msgspec.json.Encoder().encode
        self._log = _Late(url)
        self._client: Client | None = None
        self._commits = Commits(cast(Log, self._log))
        self._dropped_at, self._acknowledged = -math.inf, 0
        self._thread = threading.Thread(target=self._work, name="prerank recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._client = Client(cast(Log, self._log), limit=self._limit, timeout=LAST)
        self._thread.start()
        self._commits.start()

    def put(self, answered: Answered, ts: int, latency: float) -> None:
        """Remember an answer to be logged; at once, whatever the log does."""
        if self._waiting.qsize() < REQUESTS:
            self._waiting.put(_Put(answered, ts, latency))
        else:
            self._drop(_count(answered), "full")

    def put_event(self, event: Event) -> None:
        """The same for an event that is one already."""
        if self._waiting.qsize() < REQUESTS:
            self._waiting.put(event)
        else:
            self._drop(1, "full")

    async def append(self, messages: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """Durable when it returns. Raises LogError."""
        await self._commits.append(messages, keys)

    @property
    def problem(self) -> str | None:
        """Why not all that is answered is logged; None: it is."""
        why = self._log.away or (self._client and self._client.problem)
        if not why and time.monotonic() - self._dropped_at < TOLD:
            why = "impressions were dropped, the log did not take them quickly enough"
        return f"log: {why}" if why else None

    def close(self) -> None:
        """What waits is given some seconds."""
        self._waiting.put(None)
        self._thread.join(2 * LAST)
        assert self._client is not None
        try:
            self._client.close()
        except LogError as error:
            log.error("what was answered last is not logged: %s", error)
        self._acknowledge()
        self._commits.close()
        self._log.close()

    def _work(self) -> None:
        """The thread. It outlives whatever a single answer does."""
        while True:
            try:
                one = self._waiting.get(timeout=LOOK)
            except queue.Empty:
                self._acknowledge()
                continue
            if one is None:
                return
            try:
                self._send(one)
            except Exception:
                log.exception("an answer could not be logged")
                self._drop(1, "failed")
            if self._waiting.empty():
                self._acknowledge()

    def _send(self, one: _Put | Event) -> None:
        """Its messages to the client, or nowhere."""
        client, n = self._client, _count(one.answered) if isinstance(one, _Put) else 1
        assert client is not None
        if len(client) + n > self._limit:
            self._drop(n, "full")
            return
        try:
            messages = self._messages(one) if isinstance(one, _Put) else [encode(one)]
        except ValueError:  # an id that no event can carry
            self._drop(n, "invalid")
            return
        key = str(one.answered.id).encode() if isinstance(one, _Put) else key_of(one)
        for message in messages:
            client.send_message(message, key)

    def _messages(self, one: _Put) -> list[bytes]:
        """One for each item. Raises ValueError for an answer that is no event; the first message is looked at for all.

        What was forced into an arm is of no experiment: whoever compares its arms wants users that were dealt.
        """
        answered, response, generation = one.answered, one.answered.response, one.answered.scorer.generation
        request, served = answered.request, self._of(generation)
        objective = answered.scorer.objectives[0] if request.objective is None else request.objective
        items, scores = numbers(response.items, "<i8"), numbers(response.probabilities[objective], "<f4")
        bids = _bids(request) if request.bids is not None else {}
        assert answered.id is not None
        common: dict[str, Any] = {
            "request": answered.id, "user": request.user, "ts": one.ts, "generation": generation.meta.number,
            "sequence": generation.sequence, "posts": generation.posts, "memory": _version(response.memory),
            "experiment": None if request.arm else response.experiment or None, "arm": response.arm or None,
            "latency": round(one.latency, 3),
        }  # fmt: skip
        if not items:
            return []
        first = Impression(**common, item=items[0], features=served.features(answered.user, request))
        try:
            encode(first)
        except ValueError:
            first.features = served.encodable(answered.user, request)
            encode(first)
        features: Any = msgspec.Raw(self._encode(first.features)) if first.features else {}
        shown = zip(items, scores, strict=True)
        return [self._encode(Impression(**common, item=item, position=at, score=score, bid=bids.get(item), features=features))
                for at, (item, score) in enumerate(shown)]  # fmt: skip

    def _of(self, generation: Generation) -> Served:
        found = self._served.get(generation)
        if found is None:
            found = self._served[generation] = Served(generation)
        return found

    def _drop(self, n: int, why: str) -> None:
        self._measures.dropped.labels(why).inc(n)
        if why != "invalid":
            self._dropped_at = time.monotonic()

    def _acknowledge(self) -> None:
        """Tell the measures what the log has by now."""
        assert self._client is not None
        new = self._client.acknowledged - self._acknowledged
        self._acknowledged += new
        self._measures.logged.inc(new)


class _Late:
    """A log that is opened when it can be: of a `Log`, what is needed to append.

    away   why it could not be opened, last time; None: it is open
    """

    partitions = 0

    def __init__(self, url: str) -> None:
        self._url, self.name = url, re.sub(r"//[^/@]*@", "//", url)  # clients are told the name: it must not have a password
        self.away: str | None = None
        self._lock = threading.Lock()
        self._log: Log | None = None
        with suppress(LogError):
            self._opened()

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        """See stream/log.py. Raises LogError while it is away."""
        return self._opened().append(messages, keys, partition=partition)

    def close(self) -> None:
        """Let go of files and connections."""
        if self._log is not None:
            self._log.close()

    def _opened(self) -> Log:
        with self._lock:
            if self._log is None:
                try:
                    self._log, self.away = open_log(self._url), None
                except LogError as error:
                    self.away = str(error)
                    raise
            return self._log


def _count(answered: Answered) -> int:
    """Impressions of an answer."""
    items = answered.response.items
    return len(items) // 8 if isinstance(items, bytes) else len(items)


def numbers(values: Any, kind: str) -> list[Any]:
    """A list, or what a bin holds."""
    found: list[Any] = np.frombuffer(values, kind).tolist() if isinstance(values, bytes) else values
    return found


def _bids(request: Any) -> dict[Any, float]:
    """By item."""
    return dict(zip(numbers(request.candidates, "<i8"), numbers(request.bids, "<f4"), strict=True))


def _version(memory: Any) -> str | None:
    """Of the user's memory: how often each cache was written, in their order; 'cold' where it could not be read."""
    if not isinstance(memory, dict):
        return None
    return ".".join(map(str, memory.values())) or "cold"
