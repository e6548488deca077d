"""Label waiting by brute force: every question is answered by looking through the whole list of events again.

No queues, no memory bound. Independent of stream/waiting.py: it shares only the event's shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prerank.stream import Entry, Feedback, Impression, Rejected, Tick, decode


@dataclass
class Rules:
    """Milliseconds."""

    windows: dict[str, int]
    lateness: int
    remember: int
    skew: int
    early: bool

    @property
    def longest(self) -> int:
        return max(self.windows.values())


class Oracle:
    def __init__(self, entries: list[Entry], rules: Rules) -> None:
        self.rules = rules
        self.entries = entries
        self.events: list[Any] = [decode(e.data) for e in entries]
        self.far = [not isinstance(e, Rejected) and e.ts > entry.ts + rules.skew for e, entry in zip(self.events, entries, strict=True)]
        self.accepted: dict[int, Impression] = {}  # by place in the list
        self.verdict = [self._verdict(i) for i in range(len(entries))]

    def latest(self, i: int) -> int:
        """The latest time seen when entry i was, ms; 0 before any."""
        moving = (Impression, Feedback, Tick)
        return max([0, *(e.ts for e, far in zip(self.events[: i + 1], self.far, strict=False) if isinstance(e, moving) and not far)])

    def watermark(self, i: int) -> int:
        return self.latest(i) - self.rules.lateness

    def known(self, key: tuple, i: int) -> int | None:
        """Place of the impression that entry i is a repetition of, or feedback to."""
        of = [j for j, e in self.accepted.items() if j < i and (e.request, e.item) == key]
        if of and self.accepted[of[-1]].ts + self.rules.longest + self.rules.remember > self.watermark(i):
            return of[-1]
        return None

    def _verdict(self, i: int) -> str:
        event, rules = self.events[i], self.rules
        if isinstance(event, Rejected):
            return f"dead {event.reason}"
        if self.far[i]:
            return "dead far_future"
        if isinstance(event, Impression):
            if self.known((event.request, event.item), i) is not None:
                return "duplicate"
            if event.ts + rules.longest <= self.watermark(i):
                return "dead late"
            self.accepted[i] = event
            return "accepted"
        if isinstance(event, Feedback):
            if event.kind not in rules.windows:
                return "dead unknown_kind"
            if self.known((event.request, event.item), i) is not None:
                return "known"
            gone = event.ts + rules.skew + rules.longest <= self.watermark(i)
            return "too late for any" if gone else "orphan"
        return "time" if isinstance(event, Tick) else "entity"

    def feedback(self, i: int) -> list[tuple[int, int, Feedback]]:
        """(when it was joined, when it came, what) of the impression at place i, in that order."""
        shown, found = self.accepted[i], []
        for j, event in enumerate(self.events):
            if not isinstance(event, Feedback) or (event.request, event.item) != (shown.request, shown.item):
                continue
            if self.verdict[j] == "known" and self.known((event.request, event.item), j) == i:
                found.append((j, j, event))
            if self.verdict[j] == "orphan" and self._adopted(j) == i:
                found.append((i, j, event))
        return sorted(found, key=lambda f: f[:2])

    def _adopted(self, j: int) -> int | None:
        """Which later impression an orphan found, before its time was over."""
        event = self.events[j]
        after = [i for i, e in self.accepted.items() if i > j and (e.request, e.item) == (event.request, event.item)]
        if after and self.watermark(after[0]) < event.ts + self.rules.skew + self.rules.longest:
            return after[0]
        return None

    def unmatched(self) -> int:
        """Feedback that waited in vain, and whose time is over."""
        end = self.watermark(len(self.entries) - 1)
        of = [self.events[j] for j, v in enumerate(self.verdict) if v == "orphan" and self._adopted(j) is None]
        return sum(e.ts + self.rules.skew + self.rules.longest <= end for e in of)

    def uncounted(self) -> dict[str, int]:
        """Feedback that came to its impression and changed nothing: outside its window, or not the first of its kind."""
        found = {"outside": 0, "repeated_feedback": 0}
        for i, shown in self.accepted.items():
            for f in self.feedback(i):
                if f not in self.counted(i):
                    inside = -self.rules.skew <= f[2].ts - shown.ts <= self.rules.windows[f[2].kind]
                    found["repeated_feedback" if inside else "outside"] += 1
        return found

    def counted(self, i: int) -> list[tuple[int, int, Feedback]]:
        """Of these, the first of each kind inside its window."""
        kinds, found = set(), []
        for at, j, event in self.feedback(i):
            inside = -self.rules.skew <= event.ts - self.accepted[i].ts <= self.rules.windows[event.kind]
            if inside and event.kind not in kinds:
                kinds.add(event.kind)
                found.append((at, j, event))
        return found

    def out(self, i: int) -> int | None:
        """Place of the entry that makes the row ready."""
        shown, came = self.accepted[i], self.counted(i)
        ends = [n for n in range(i, len(self.entries)) if self.watermark(n) >= shown.ts + self.rules.longest][:1]
        if self.rules.early and len(came) == len(self.rules.windows):
            ends.append(came[-1][0])
        return min(ends, default=None)

    def rows(self) -> list[dict[str, Any]]:
        """In the order in which they go out."""
        found = []
        for i, shown in self.accepted.items():
            end = self.out(i)
            if end is not None:
                labels = dict.fromkeys(self.rules.windows, 0.0) | {e.kind: e.value for at, _, e in self.counted(i) if at <= end}
                full = self.rules.early and shown.ts + self.rules.longest > self.watermark(end)
                found.append({"at": end, "order": (end, not full, shown.ts, i), "impression": shown, "labels": labels,
                              "delay": self.latest(end) - shown.ts, "appended": self.entries[end].ts})  # fmt: skip
        return sorted(found, key=lambda r: r["order"])

    def late(self) -> list[tuple[int, int, str]]:
        """(when, impression, kind) of feedback that counted only after its row was out."""
        ends = {i: self.out(i) for i in self.accepted}
        return sorted((at, i, e.kind) for i, end in ends.items() if end is not None for at, _, e in self.counted(i) if at > end)
