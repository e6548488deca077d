"""Impressions wait for their feedback, by event time; what comes out is training rows.

    waiting = LabelWaiting(Waiting(kinds={"click": "10m"}))
    ready = waiting.push_all(log.read(partition, waiting.offset + 1))         # ready.rows, ready.dead: messages

The watermark is the latest event time seen, less `lateness`. A row goes out when the watermark has passed its impression's time and
longest window, or as soon as every kind came. The outcome is a function of the entries alone (their offsets, times and bytes; no
clock is read), so that whoever reads them again from a saved state makes the same rows with the same `source`.

What counts: feedback from `skew` before the impression (clocks differ) to `window` after it, the first of each kind; it may arrive
before its impression. What does not: an impression whose windows were over when it came ("late", a dead letter), a second one of the same
(request, item), events further ahead of their arrival than `skew`, kinds that nobody waits for.

Memory is bounded by `keep`: beyond it the oldest row that went out is forgotten, else the oldest waiting one goes out as it stands.
Impressions as old as one forgotten before its time are then late, so that none of them can be joined twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any, NamedTuple

import msgspec

from prerank.config.asof import milliseconds
from prerank.stream import event as events
from prerank.stream.event import Feedback, Impression, Rejected, Removal, Shadow, Upsert
from prerank.stream.log import Entry
from prerank.stream.orphans import Key, Orphan, Orphans
from prerank.stream.row import Raw, RawCorrection, dead
from prerank.stream.settings import Waiting

COUNTS = ("events", "impressions", "feedback", "entities", "shadows", "rows", "positive", "early", "forced", "late_impressions",
          "late_feedback", "corrections", "unmatched", "outside", "repeated_impressions", "repeated_feedback", "dead")  # fmt: skip


class StateError(ValueError):
    """A saved state that cannot be gone on from."""


class Ready(NamedTuple):
    """Messages to append: rows and corrections, in order of their source; and dead letters, in order of their offset."""

    rows: list[bytes]
    dead: list[bytes]


class Held(msgspec.Struct, array_like=True, gc=False):
    """An impression in memory. n: how many came before it; data None: it went out, and is only remembered; came: values by kind."""

    ts: int
    n: int
    data: bytes | None
    came: dict[str, float] | None = None
    out: bool = False


class State(msgspec.Struct, kw_only=True):
    """Everything that is to be known to go on; rows that went out stand in the order in which their windows closed."""

    settings: dict[str, Any]
    offset: int
    latest: int
    floor: int
    n: int
    counts: dict[str, int]
    waiting: list[tuple[Key, Held]]
    closed: list[tuple[Key, Held]]
    orphans: list[tuple[Key, list[Orphan]]]


class LabelWaiting:
    """See the module's first lines; one for each partition of the log.

    decoder   `typed.decoder(schema)`: features of wrong types make a dead letter
    offset    of the last entry that was pushed; -1: none
    latest    the latest event time seen, ms
    counts    by what happened: COUNTS, and `dead REASON`
    """

    def __init__(self, settings: Waiting, decoder: msgspec.json.Decoder[Any] | None = None) -> None:
        self.settings, self._decoder = settings, decoder
        self._windows = settings.windows
        self._longest = max(self._windows.values())
        self._lateness, self._skew = milliseconds(settings.lateness), milliseconds(settings.skew)
        self._horizon = self._longest + (self._longest if settings.remember is None else milliseconds(settings.remember))
        self._zeros = dict.fromkeys(self._windows, 0.0)
        self._encode = msgspec.json.Encoder().encode
        self.offset, self.latest, self.counts = -1, 0, dict.fromkeys(COUNTS, 0)
        self._floor, self._n = -1, 0
        self._rows: dict[Key, Held] = {}
        self._open: list[tuple[int, int, Key]] = []  # heap of impressions whose windows are open, by time
        self._closed: deque[tuple[Key, Held]] = deque()  # impressions whose windows are over, and which are remembered
        self._orphans = Orphans(settings.keep)
        self._ready, self._dead = list[bytes](), list[bytes]()
        self._at, self._first = 0, 0

    @property
    def watermark(self) -> int:
        """No earlier event is waited for, ms."""
        return self.latest - self._lateness

    def __len__(self) -> int:
        """Impressions in memory, those that are only remembered included."""
        return len(self._rows)

    @property
    def quiet(self) -> bool:
        """Nothing waits: time need not go on."""
        return not self._open and not self._orphans

    def push(self, entry: Entry) -> Ready:
        """One entry; see `push_all`."""
        return self.push_all((entry,))

    def push_all(self, entries: Iterable[Entry]) -> Ready:
        """Entries of the partition, in order, from `offset` + 1 on -> what is to be appended."""
        self._ready, self._dead = [], []
        decode, decoder, counts = events.decode, self._decoder, self.counts
        for offset, at, data in entries:
            assert offset > self.offset, f"entries ascend: {offset} after {self.offset}"
            self.offset, self._at, self._first = offset, at, len(self._ready)
            counts["events"] += 1
            event = decode(data, decoder)
            if type(event) is Rejected:
                self._refuse(event.reason, event.detail, data)
                continue
            ts = event.ts  # type: ignore[union-attr]
            if ts > at + self._skew:
                self._refuse("far_future", f"ts {ts} is {(ts - at) / 1000:.0f} s ahead of its arrival; allowed: {self.settings.skew}", data)
                continue
            kind = type(event)
            if kind is Upsert or kind is Removal:
                counts["entities"] += 1  # of users and items: for those who encode them
                continue
            if kind is Shadow:
                counts["shadows"] += 1  # nobody saw it, so that no feedback comes
                continue
            later = ts > self.latest
            if later:
                self.latest = ts
            if kind is Feedback:  # what counts for a row that it makes ready is in that row
                self._feedback(event, data)  # type: ignore[arg-type]
            if later:
                self._close()
            if kind is Impression:
                self._impression(event, data)  # type: ignore[arg-type]
        return Ready(self._ready, self._dead)

    def _impression(self, event: Impression, data: bytes) -> None:
        """Comes to wait, unless it is late or came already."""
        ts, watermark, counts = event.ts, self.latest - self._lateness, self.counts
        counts["impressions"] += 1
        key = event.request, event.item
        held = self._rows.get(key)
        if held is not None and held.ts + self._horizon > watermark:
            counts["repeated_impressions"] += 1
            return
        if ts + self._longest <= watermark or ts <= self._floor:
            counts["late_impressions"] += 1
            self._refuse("late", f"its windows were over when it came, {(self.latest - ts) / 1000:.0f} s behind the latest event", data)
            return
        self._n += 1
        held = self._rows[key] = Held(ts, self._n, data)
        heappush(self._open, (ts, self._n, key))
        for orphan in self._orphans.take(key):
            self._join(held, orphan.kind, orphan.ts, orphan.value)
        while len(self._rows) > self.settings.keep:
            self._forget_one()

    def _feedback(self, event: Feedback, data: bytes) -> None:
        """Joins its impression, or waits for it."""
        counts, kind, ts = self.counts, event.kind, event.ts
        counts["feedback"] += 1
        if kind not in self._windows:
            self._refuse("unknown_kind", f"kind '{kind[:100]}': must be one of {', '.join(self._windows)}", data)
            return
        key = event.request, event.item
        held = self._rows.get(key)
        watermark = self.latest - self._lateness
        if held is not None and held.ts + self._horizon > watermark:
            self._join(held, kind, ts, event.value)
        elif ts + self._skew + self._longest <= watermark:
            counts["late_feedback"] += 1  # no impression can come for it any more
        else:
            self._n += 1
            counts["unmatched"] += self._orphans.add(key, Orphan(self._n, kind, ts, event.value))

    def _join(self, held: Held, kind: str, ts: int, value: float) -> None:
        """Feedback to the impression it belongs to."""
        if not -self._skew <= ts - held.ts <= self._windows[kind]:
            self.counts["outside"] += 1
            return
        came = held.came
        if came is None:
            came = held.came = {}
        elif kind in came:
            self.counts["repeated_feedback"] += 1
            return
        came[kind] = value
        if held.out:
            self.counts["late_feedback"] += 1
            if self.settings.corrections:
                self._correct(held, kind)
        elif self.settings.early and len(came) == len(self._windows):
            self.counts["early"] += 1
            self._out(held)

    def _close(self) -> None:
        """Rows whose windows the watermark has passed go out; what was remembered long enough is forgotten."""
        watermark = self.latest - self._lateness
        until = watermark - self._longest
        while self._open and self._open[0][0] <= until:
            key = heappop(self._open)[2]
            held = self._rows[key]
            if not held.out:
                self._out(held)
            self._closed.append((key, held))
        while self._closed and self._closed[0][1].ts + self._horizon <= watermark:
            self._forget(*self._closed.popleft())
        self.counts["unmatched"] += self._orphans.expire(until - self._skew)

    def _out(self, held: Held) -> None:
        """The row as it stands."""
        came, counts = held.came, self.counts
        labels = self._zeros
        if came is not None:
            labels = {**labels, **came}
            counts["positive"] += 1
        assert held.data is not None
        source = self.offset, len(self._ready) - self._first
        row = Raw(impression=msgspec.Raw(held.data), labels=labels, delay=self.latest - held.ts, appended=self._at, source=source)
        self._ready.append(self._encode(row))
        counts["rows"] += 1
        held.out = True
        if not self.settings.corrections:
            held.data = None

    def _correct(self, held: Held, kind: str) -> None:
        assert held.data is not None
        assert held.came is not None
        source = self.offset, len(self._ready) - self._first
        row = RawCorrection(impression=msgspec.Raw(held.data), labels={**self._zeros, **held.came}, delay=self.latest - held.ts,
                            appended=self._at, source=source, kind=kind)  # fmt: skip
        self._ready.append(self._encode(row))
        self.counts["corrections"] += 1

    def _forget_one(self) -> None:
        """Memory is full: the oldest that went out, else the oldest that waits, which then goes out."""
        if self._closed:
            key, held = self._closed.popleft()
        else:
            key = heappop(self._open)[2]
            held = self._rows[key]
            if not held.out:
                self.counts["forced"] += 1
                self._out(held)
        self._floor = max(self._floor, held.ts)
        self._forget(key, held)

    def _forget(self, key: Key, held: Held) -> None:
        if self._rows.get(key) is held:  # else the request came again, long afterwards
            del self._rows[key]

    def _refuse(self, reason: str, detail: str, data: bytes) -> None:
        self.counts["dead"] += 1
        self.counts[f"dead {reason}"] = self.counts.get(f"dead {reason}", 0) + 1
        self._dead.append(dead(reason, detail, self.offset, self._at, data))

    def state(self) -> bytes:
        """To be saved; `restore` goes on from there as if nothing had happened."""
        closed = [(key, held) for key, held in self._closed if self._rows.get(key) is held]
        waiting = [(key, self._rows[key]) for _, _, key in self._open]
        return msgspec.msgpack.encode(State(
            settings=self.settings.model_dump(), offset=self.offset, latest=self.latest, floor=self._floor, n=self._n, counts=self.counts,
            waiting=waiting, closed=closed, orphans=self._orphans.state()))  # fmt: skip

    def restore(self, data: bytes) -> None:
        """Raises StateError for a state that is none, or of other settings: rows made anew would differ from those that went out."""
        try:
            state = msgspec.msgpack.decode(data, type=State)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateError(f"state of label waiting: cannot be read: {error}") from None
        if state.settings != self.settings.model_dump():
            theirs, ours = Waiting.model_validate(state.settings), self.settings
            differ = [name for name in Waiting.model_fields if getattr(theirs, name) != getattr(ours, name)]
            raise StateError(f"state of label waiting: was saved with other {', '.join(differ)}; keep those, or take another folder")
        self.offset, self.latest, self._floor, self._n = state.offset, state.latest, state.floor, state.n
        self.counts = {**dict.fromkeys(COUNTS, 0), **state.counts}
        self._rows = {**dict(state.closed), **dict(state.waiting)}
        self._closed = deque(state.closed)
        self._open = [(held.ts, held.n, key) for key, held in state.waiting]  # in the order of the heap, as it was
        self._orphans.restore(state.orphans)
