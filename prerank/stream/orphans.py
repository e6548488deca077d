"""Feedback whose impression has not come yet: found by its key, dropped by time, never more than so many."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

Key = tuple[int | str, int | str]  # request, item
SLACK = 1000  # places of orphans that found their impression, which may lie in the heap beyond twice `keep`


class Orphan(NamedTuple):
    """n: how many events came before it."""

    n: int
    kind: str
    ts: int
    value: float


class Orphans:
    """keep   at most so many; the oldest in event time is dropped for a new one"""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._of: dict[Key, list[Orphan]] = {}
        self._due: list[tuple[int, int, Key]] = []  # heap by time; those whose impression came lie there until then
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Key, orphan: Orphan) -> int:
        """-> how many were dropped for it."""
        self._of.setdefault(key, []).append(orphan)
        heappush(self._due, (orphan.ts, orphan.n, key))
        self._count += 1
        dropped = 0
        while self._count > self.keep:
            dropped += self._drop()
        if len(self._due) > 2 * self.keep + SLACK:
            self._rebuild()
        return dropped

    def take(self, key: Key) -> list[Orphan]:
        """An impression's, in the order in which they came; they are orphans no more."""
        found = self._of.pop(key, [])
        self._count -= len(found)
        return found

    def expire(self, until: int) -> int:
        """Drop those of times up to `until` -> how many."""
        dropped = 0
        while self._due and self._due[0][0] <= until:
            dropped += self._drop()
        return dropped

    def state(self) -> list[tuple[Key, list[Orphan]]]:
        """All of them."""
        return list(self._of.items())

    def restore(self, state: list[tuple[Key, list[Orphan]]]) -> None:
        """As `state` gave them."""
        self._of = dict(state)
        self._count = sum(map(len, self._of.values()))
        self._rebuild()

    def _rebuild(self) -> None:
        self._due = [(orphan.ts, orphan.n, key) for key, of in self._of.items() for orphan in of]
        heapify(self._due)

    def _drop(self) -> int:
        """The oldest, if it is still without an impression."""
        _, n, key = heappop(self._due)
        before = self._of.get(key, [])
        left = [orphan for orphan in before if orphan.n != n]
        if left:
            self._of[key] = left
        else:
            self._of.pop(key, None)
        dropped = len(before) - len(left)
        self._count -= dropped
        return dropped
