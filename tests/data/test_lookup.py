"""Lookup agrees with a dict, for dense and far-apart integers, numbers and text."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.data import Lookup

VALUES = {
    pl.Int64: st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 40),
    pl.Float64: st.floats(allow_nan=False),
    pl.String: st.text(max_size=6),
}


@pytest.mark.parametrize("dtype", list(VALUES))
@given(data=st.data())
def test_agrees_with_a_dict(dtype: Any, data: st.DataObject) -> None:
    known = data.draw(st.lists(VALUES[dtype], unique=True, max_size=30))
    asked = data.draw(st.lists(st.none() | VALUES[dtype] | (st.sampled_from(known) if known else st.none()), max_size=40))
    position = {v: i for i, v in enumerate(known)}
    found = Lookup(pl.Series(known, dtype=dtype)).find(pl.Series(asked, dtype=dtype))
    assert found.tolist() == [position.get(v, -1) if v is not None else -1 for v in asked]


def test_dense_integers_at_the_ends_of_the_range() -> None:
    known = [-(2**63), -(2**63) + 1]
    assert Lookup(pl.Series(known)).find(pl.Series([2**63 - 1, -(2**63) + 1, 0])).tolist() == [-1, 1, -1]


def test_a_hash_that_agrees_by_chance_is_no_hit() -> None:
    lookup = Lookup(pl.Series(["a", "b"]))
    lookup.values = pl.Series(["c", "b"])  # as if "a" had been asked for while only "c", of the same hash, is known
    assert lookup.find(pl.Series(["a", "b"])).tolist() == [-1, 1]
