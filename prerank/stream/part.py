"""One partition of label waiting: its lease, its state on disk, and rows that are appended once.

State is saved now and then, not with every row. A restarted joiner reads the events since then again and makes the same rows;
the rows' own log says which of them it has, by their `source`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from prerank.stream.event import Tick, encode
from prerank.stream.log import Lease, Log, LogError
from prerank.stream.row import Source, read_dead, source_of
from prerank.stream.saved import load, save
from prerank.stream.settings import Waiting
from prerank.stream.waiting import LabelWaiting

BATCH = 2000  # entries read at once
_NONE = Source(-1, 0)
T = TypeVar("T")


class Part:
    """A claimed partition. Raises LeaseError when another joiner has it, StateError for a state of other settings.

    lost    events that were trimmed before they were read
    begun   counts of the state that it goes on from
    """

    def __init__(self, partition: int, events: Log, rows: Log, dead: Log | None, settings: Waiting,
                 decoder: msgspec.json.Decoder[Any] | None, folder: Path, lease: Lease) -> None:  # fmt: skip
        self.partition, self._events, self._rows, self._dead, self._lease = partition, events, rows, dead, lease
        self.waiting = LabelWaiting(settings, decoder)
        self.lost = 0
        self._path = folder / f"labels-{partition}.state"
        self._unsent: list[bytes] = []
        self._letters: list[bytes] = []
        self._sent, self._told = _NONE, -1
        self._sure = False  # what of ours the logs have
        self._heard = time.monotonic()
        found = load(self._path)
        if found is not None:
            sent, state = msgspec.msgpack.decode(found, type=tuple[Source, bytes])
            self.waiting.restore(state)
            self._sent, self._told = sent, self.waiting.offset
        self._saved = self.waiting.offset
        self.begun = dict(self.waiting.counts)

    def step(self, wait: float) -> int:
        """Reads some entries and appends what they made ready -> how many were read. Raises LogError; then call it again."""
        self._lease.renew()
        self._flush()
        expected = self.waiting.offset + 1
        entries = self._events.read(self.partition, expected, BATCH, wait)
        if not entries:
            return 0
        self._heard = time.monotonic()
        self.lost += entries[0].offset - max(expected, 0)
        ready = self.waiting.push_all(entries)
        self._unsent = [m for m in ready.rows if source_of(m) > self._sent] if expected <= self._sent.offset else ready.rows
        self._letters = [m for m in ready.dead if read_dead(m).offset > self._told] if expected <= self._told else ready.dead
        self._flush()
        return len(entries)

    @property
    def lag(self) -> int:
        """Events that are not read yet, or whose rows are not appended. Raises LogError."""
        return self._events.end(self.partition) - self.waiting.offset - 1 + len(self._unsent)

    def tick(self, idle: float) -> None:
        """When nothing came for so many seconds, say in the log itself how much time went by. Raises LogError."""
        passed = time.monotonic() - self._heard
        if passed >= idle and not self.waiting.quiet:
            ts = min(self.waiting.latest + round(passed * 1000), time.time_ns() // 1_000_000)
            self._heard = time.monotonic()
            if ts > self.waiting.latest:
                self._events.append([encode(Tick(ts=ts))], partition=self.partition)

    def save(self, group: str, retain: int | None) -> None:
        """State to disk, then the offset to the log for all to see, then events older than `retain` ms are trimmed.

        Raises LogError, OSError.
        """
        if self.waiting.offset == self._saved or self._unsent or self._letters:
            return
        save(self._path, msgspec.msgpack.encode((self._sent, self.waiting.state())))
        self._saved = self.waiting.offset
        self._events.commit(group, self.partition, self._saved + 1)
        if retain is not None:
            older = time.time_ns() // 1_000_000 - retain
            self._events.trim(self.partition, older=older)

    def release(self) -> None:
        """Another may go on. Raises LogError."""
        self._lease.release()

    def _flush(self) -> None:
        """Appends what is ready and not there yet. An append that failed may have succeeded: then the log is asked what it has."""
        if not self._sure:
            self._sent = max(self._sent, _last(self._rows, self.partition, source_of, _NONE))
            self._unsent = [m for m in self._unsent if source_of(m) > self._sent]
            if self._dead is not None:
                self._told = max(self._told, _last(self._dead, self.partition, lambda m: read_dead(m).offset, -1))
                self._letters = [m for m in self._letters if read_dead(m).offset > self._told]
            self._sure = True
        try:
            if self._unsent:
                self._rows.append(self._unsent, partition=self.partition)
                self._sent, self._unsent = source_of(self._unsent[-1]), []
            if self._letters:
                if self._dead is not None:
                    self._dead.append(self._letters, partition=self.partition)
                self._told, self._letters = read_dead(self._letters[-1]).offset, []
        except LogError:
            self._sure = False
            raise


def _last(log: Log, partition: int, read: Callable[[bytes], T], none: T) -> T:
    """What the last message of a log says; `none` of an empty one. Offsets may have gaps: it is looked for ever further back."""
    start, end = log.start(partition), log.end(partition)
    back = 1
    while end > start:
        entries = log.read(partition, max(start, end - back), back)
        if entries:
            return read(entries[-1].data)
        if end - back <= start:
            break
        back *= 10
    return none
