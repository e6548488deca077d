"""Events become pairs, checked against a dictionary: whatever the order and the parts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.datasets.pairs import by_user, pairs

EVENT = st.tuples(st.integers(-3, 5), st.integers(0, 3), st.sampled_from(["pv", "buy"]), st.integers(0, 100))


@given(st.lists(st.lists(EVENT, min_size=1, max_size=20), min_size=1, max_size=4))
def test_pairs_against_a_dictionary(blocks: list[list[tuple[int, int, str, int]]]) -> None:
    schema = {"user": pl.Int32, "item": pl.Int32, "kind": pl.String, "time": pl.Int64}
    frames = (pl.DataFrame(block, schema=schema, orient="row") for block in blocks)
    found = pl.concat(pairs(frames, "user", "item", "kind", "time", {"viewed": "pv", "bought": "buy"}))
    expected: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for user, item, kind, time in (event for block in blocks for event in block):
        expected[user, item].append((kind, time))
    assert {r[:2]: r[2:] for r in found.rows()} == {
        pair: (min(t for _, t in events), *(int(any(k == kind for k, _ in events)) for kind in ("pv", "buy")))
        for pair, events in expected.items()
    }
    assert found.height == len(expected)


def test_a_user_is_in_one_part_and_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    frames = (pl.DataFrame({"user": [i % 10 for i in range(b, b + 50)], "n": list(range(b, b + 50))}) for b in (0, 50, 100))
    parts = list(by_user(frames, "user", parts=4))
    assert 1 < len(parts) <= 4
    users = [set(p["user"]) for p in parts]
    assert sum(map(len, users)) == 10
    for part in parts:
        for (user,), own in part.partition_by("user", as_dict=True).items():
            assert own["n"].to_list() == list(range(user, 150, 10))
    assert list(tmp_path.iterdir()) == []  # the spool is gone
