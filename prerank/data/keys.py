"""A hash table of 64-bit keys that takes keys in and lets them go, whole arrays at a time: what growing vocabularies are made of.

Open addressing in numpy: every round looks at one slot of all keys that are still open, so that a call costs a few array
operations and no Python a key. (A dict takes .3 us a key to ask and 100 bytes to hold it; `Lookup` and `index.Ids` cannot change.)

    keys = Keys(capacity=4)
    keys.put(np.array([70, 80]), np.array([0, 3]))
    keys.find(np.array([80, 9]))   ->  [3, -1]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prerank.data.hashing import mix

EMPTY, GONE = -1, -2  # what a slot without a key holds: never had one, or had
_FULL = 0.7  # part of the slots that are not empty, from which on the table is made anew

Positions = NDArray[np.int64]


class Keys:
    """Distinct keys int64 at positions 0 .. capacity - 1.

    >>> keys = Keys(4)
    >>> keys.put(np.array([70, 80]), np.array([0, 3]))
    >>> keys.remove(np.array([0]))
    >>> keys.find(np.array([70, 80, 9])).tolist()
    [-1, 3, -1]
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.at = np.zeros(max(2, capacity), np.int64)  # the key of each position that has one; 2, as slots without one index it, too
        self._mask = (1 << max(3, (2 * capacity - 1).bit_length())) - 1  # half full at most
        self.clear()

    def clear(self) -> None:
        """Let all go."""
        self._slots = np.full(self._mask + 1, EMPTY, np.int32)
        self._taken = 0  # slots that are not empty

    @property
    def bytes(self) -> int:
        """Of memory; the same however many keys there are."""
        return self.at.nbytes + self._slots.nbytes

    def find(self, keys: NDArray[np.int64]) -> Positions:
        """Position of each key, -1 where there is none.  # [n]"""
        found = np.full(len(keys), -1, np.int64)
        slot = self._home(keys)
        open_, asked = np.arange(len(keys)), keys
        while len(open_):
            held = self._slots[slot]
            hit = (held >= 0) & (self.at[held] == asked)
            found[open_[hit]] = held[hit]
            on = ~hit & (held != EMPTY)
            open_, asked, slot = open_[on], asked[on], (slot[on] + 1) & self._mask
        return found

    def put(self, keys: NDArray[np.int64], positions: Positions) -> None:
        """Keys that are not in the table, distinct, at positions that have none."""
        if self._taken + len(keys) > _FULL * (self._mask + 1):
            self._remake()
        self.at[positions] = keys
        self._settle(keys, positions.astype(np.int32))

    def remove(self, positions: Positions) -> None:
        """The keys of these positions."""
        slot, wanted = self._home(self.at[positions]), positions.astype(np.int32)
        while len(wanted):
            here = self._slots[slot] == wanted
            self._slots[slot[here]] = GONE
            wanted, slot = wanted[~here], (slot[~here] + 1) & self._mask

    def positions(self) -> Positions:
        """All that have a key, ascending."""
        return np.sort(self._slots[self._slots >= 0]).astype(np.int64)

    def _settle(self, keys: NDArray[np.int64], positions: NDArray[np.int32]) -> None:
        """Each takes the first free slot on its way; of those that want the same one, one gets it and the others go on."""
        slot = self._home(keys)
        while len(positions):
            held = self._slots[slot]
            free = held < 0
            self._slots[slot[free]] = positions[free]
            got = free & (self._slots[slot] == positions)
            self._taken += int((held[got] == EMPTY).sum())
            on = ~got
            positions, slot = positions[on], (slot[on] + 1) & self._mask

    def _remake(self) -> None:
        """Without the slots of those that are gone."""
        kept = self.positions()
        self.clear()
        self._settle(self.at[kept], kept.astype(np.int32))

    def _home(self, keys: NDArray[np.int64]) -> Positions:
        return (mix(keys.view(np.uint64)) & np.uint64(self._mask)).view(np.int64)
