"""How often values were seen that have no row yet, in bounded memory: two tables of counts; when the newer is full, the older is dropped.

A value's count is exact over the last `capacity` distinct values at least, and forgotten after twice as many at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prerank.data.keys import Keys


class Sightings:
    """Counts by 64-bit key.

    capacity   distinct keys of each of the two tables

    >>> seen = Sightings(10)
    >>> seen.add(np.array([7, 8]), np.array([1, 3])).tolist(), seen.add(np.array([7]), np.array([1])).tolist()
    ([1, 3], [2])
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._now, self._before = _Table(capacity), _Table(capacity)

    @property
    def bytes(self) -> int:
        """Of memory, at most."""
        return self._now.bytes + self._before.bytes

    def add(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often each was seen, these times included.  # [n]

        keys, counts   [n] distinct, `capacity` of them at most
        """
        at = self._now.keys.find(keys)
        if self._now.size + int((at < 0).sum()) > self.capacity:
            self.forget_older()
            at = np.full(len(keys), -1)
        return self._now.add(keys, at, counts) + self._before.get(keys)

    def forget(self, keys: NDArray[np.int64]) -> None:
        """Count these from 0 again."""
        for table in (self._now, self._before):
            at = table.keys.find(keys)
            table.counts[at[at >= 0]] = 0

    def forget_older(self) -> None:
        """Drop the older table."""
        self._before.clear()
        self._now, self._before = self._before, self._now

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """For a file."""
        parts = {"now": self._now, "before": self._before}
        return {f"{name}_{what}": array for name, t in parts.items()
                for what, array in (("keys", t.keys.at[: t.size]), ("counts", t.counts[: t.size].astype(np.int64)))}  # fmt: skip

    def load(self, arrays: dict[str, NDArray[np.int64]]) -> None:
        """The inverse of `arrays`, into new sightings of the same capacity."""
        for name, table in (("now", self._now), ("before", self._before)):
            keys = arrays[f"{name}_keys"]
            table.add(keys, np.full(len(keys), -1), arrays[f"{name}_counts"])


class _Table:
    """Keys in the order of their coming, and a count of each."""

    def __init__(self, capacity: int) -> None:
        self.keys, self.counts, self.size = Keys(capacity), np.zeros(capacity, np.int32), 0

    @property
    def bytes(self) -> int:
        return self.keys.bytes + self.counts.nbytes

    def add(self, keys: NDArray[np.int64], at: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """at   [n] where they are, -1: nowhere yet"""
        new = np.flatnonzero(at < 0)
        at[new] = np.arange(self.size, self.size + len(new))
        self.keys.put(keys[new], at[new])
        self.counts[at[new]] = 0
        self.size += len(new)
        self.counts[at] += counts.astype(np.int32)
        return self.counts[at].astype(np.int64)

    def get(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.size:
            return np.zeros(len(keys), np.int64)
        at = self.keys.find(keys)
        return np.where(at >= 0, self.counts[at], 0).astype(np.int64)

    def clear(self) -> None:
        if self.size:
            self.keys.clear()
        self.size = 0
