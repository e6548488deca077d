"""Appends that are durable when they return, many callers to a transaction: what reaches the disk once may have come from a hundred.

    commits = Commits(log)
    await commits.append(messages, keys)             raises LogError

One thread appends all that waits, while more comes to wait. Where the log hangs, callers beyond CALLS are refused at once: none of
them takes a thread that somebody else needs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from prerank.stream import Log, LogError

CALLS = 1_000  # that wait at most
BATCH = 10_000  # messages of a transaction, or those of one call


class _Call(NamedTuple):
    messages: Sequence[bytes]
    keys: Sequence[bytes]
    done: Future[None]


class Commits:
    """See the module's first lines. Any event loop, and any thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: deque[_Call] = deque()
        self._under_way = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="prerank commits", daemon=True)

    def start(self) -> None:
        """Begin to append."""
        self._thread.start()

    async def append(self, messages: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """Durable when it returns. Raises LogError."""
        call = _Call(messages, keys, Future())
        with self._changed:
            if self._closed:
                raise LogError(f"log '{self._log.name}': the server ends")
            if len(self._waiting) + self._under_way >= CALLS:
                raise LogError(f"log '{self._log.name}': {CALLS:,} calls wait for it already")
            self._waiting.append(call)
            self._changed.notify()
        await asyncio.wrap_future(call.done)

    def close(self) -> None:
        """What waits is still appended, or refused by the log."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                calls = self._next()
            try:
                self._log.append([m for c in calls for m in c.messages], [k for c in calls for k in c.keys])
            except Exception as error:
                for call in calls:
                    self._tell(call, error)
            else:
                for call in calls:
                    self._tell(call, None)
            self._under_way = 0

    def _next(self) -> list[_Call]:
        """Those of the next transaction."""
        found = [self._waiting.popleft()]
        size = len(found[0].messages)
        while self._waiting and size + len(self._waiting[0].messages) <= BATCH:
            found.append(self._waiting.popleft())
            size += len(found[-1].messages)
        self._under_way = len(found)
        return found

    def _tell(self, call: _Call, error: Exception | None) -> None:
        """A caller that went away does not hear it."""
        if call.done.set_running_or_notify_cancel():
            if error is None:
                call.done.set_result(None)
            else:
                call.done.set_exception(error)
