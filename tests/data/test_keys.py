"""A hash table that changes, against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prerank.data.keys import Keys

# Few keys, and some whose slots lie together: of a small table most collide.
KEY = st.integers(-3, 12) | st.integers(-(2**63), 2**63 - 1)


@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.lists(KEY, max_size=8, unique=True)), max_size=30))
def test_against_a_dict(capacity: int, calls: list[tuple[bool, list[int]]]) -> None:
    keys, oracle = Keys(capacity), {}
    size = keys.bytes
    for put, given_ in calls:
        if put:
            free = [p for p in range(capacity) if p not in oracle.values()]
            new = [k for k in given_ if k not in oracle][: len(free)]
            oracle |= dict(zip(new, free, strict=False))
            keys.put(np.array(new, np.int64), np.array(free[: len(new)], np.int64))
        else:
            gone = [oracle.pop(k) for k in given_ if k in oracle]
            keys.remove(np.array(gone, np.int64))
        asked = np.array([*given_, *oracle, 99], np.int64)
        assert keys.find(asked).tolist() == [oracle.get(k, -1) for k in asked.tolist()]
        assert keys.positions().tolist() == sorted(oracle.values())
    assert keys.bytes == size


def test_a_table_whose_keys_come_and_go_for_ever_stays_quick() -> None:
    """Slots of those that went are given back: without that, every look-up would end up walking the whole table."""
    keys = Keys(64)
    for i in range(200):
        keys.put(np.arange(64) + 64 * i, np.arange(64))
        keys.remove(np.arange(64))
    assert (keys._slots == -1).sum() >= 0.3 * len(keys._slots)
    assert keys.find(np.arange(64 * 199, 64 * 200)).tolist() == [-1] * 64
