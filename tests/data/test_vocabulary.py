"""A vocabulary maps frequent train values to rows, all others to missing or unknown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.data import DataError
from prerank.data.statistics import Counts
from prerank.data.vocabulary import Vocabulary

WORDS = st.sampled_from(["a", "b", "c", "d", "ü", ""])


def fitted(values: list, dtype: pl.DataType, min_count: int) -> Vocabulary:
    counts = Counts(dtype)
    counts.update(pl.Series(values, dtype=dtype))
    return Vocabulary.fit(counts.get(), min_count)


@given(st.lists(WORDS, max_size=40), st.lists(st.none() | WORDS, max_size=20), st.integers(1, 4))
def test_against_plain_python(train: list[str], asked: list[str | None], min_count: int) -> None:
    vocabulary = fitted(train, pl.String(), min_count)
    known = [v for v, n in sorted(Counter(train).items(), key=lambda vn: (-vn[1], vn[0])) if n >= min_count]
    expected = [1 if v is None else known.index(v) + 3 if v in known else 2 for v in asked]
    assert vocabulary.rows(pl.Series(asked, dtype=pl.String), "x").tolist() == expected
    assert vocabulary.size == len(known) + 3


def test_values_of_a_fitting_type_are_cast() -> None:
    vocabulary = fitted([5, 5, 7], pl.Int64(), 1)
    assert vocabulary.rows(pl.Series(["7", "5", "6", None]), "x").tolist() == [4, 3, 2, 1]
    assert vocabulary.rows(pl.Series([5.0, float("nan")]), "x").tolist() == [3, 1]
    with pytest.raises(DataError, match=r"x: 1 value is not an integer, first at row 1: 'seven'"):
        vocabulary.rows(pl.Series(["seven"]), "x")


@pytest.mark.parametrize(("values", "dtype"), [([3, -4], pl.Int64()), (["x", "ü"], pl.String()), ([0.5], pl.Float64()), ([], pl.Int64())])
def test_round_trip(tmp_path: Path, values: list, dtype: pl.DataType) -> None:
    vocabulary = fitted(values, dtype, 1)
    vocabulary.save(tmp_path / "v.parquet")
    loaded = Vocabulary.load(tmp_path / "v.parquet")
    assert loaded.values.to_list() == vocabulary.values.to_list()
    assert loaded.dtype == dtype
    assert loaded.size == vocabulary.size
