"""Bounded counts: exact for the newest keys, and never more than what was seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prerank.data.sightings import Sightings


@given(st.integers(3, 6), st.lists(st.lists(st.integers(0, 20), max_size=10), max_size=20))
def test_against_two_counters(capacity: int, batches: list[list[int]]) -> None:
    seen = Sightings(capacity)
    now: Counter[int] = Counter()
    before: Counter[int] = Counter()
    for batch in batches:
        counts = dict(list(Counter(batch).items())[:capacity])
        if len({*now, *counts}) > capacity:
            before, now = now, Counter()
        now.update(counts)
        keys = np.array(list(counts), np.int64)
        found = seen.add(keys, np.array(list(counts.values()), np.int64))
        assert found.tolist() == [now[k] + before[k] for k in counts]
        if counts:
            first = keys[:1]
            seen.forget(first)
            now[int(first[0])] = before[int(first[0])] = 0


def test_memory_stays_what_it_is() -> None:
    seen = Sightings(100)
    size = seen.bytes
    for i in range(50):
        seen.add(np.arange(100) + 100 * i, np.ones(100, np.int64))
    assert seen.bytes == size
    assert seen.add(np.array([4_900, 4_950]), np.array([1, 1])).tolist() == [2, 2]
    assert seen.add(np.array([7]), np.array([1])).tolist() == [1]
