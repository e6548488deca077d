"""Encoders against plain Python: what a tower reads for every raw value, and the same after a round trip through files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.data import DataError, encoder
from prerank.data.encoder import Bins, Categorical, Encoder, Many, Standardise, Vector
from prerank.data.vocabulary import Vocabulary

WORDS = ["a", "b", "c"]
LETTERS = st.sampled_from(["a", "b", "c", "q"])
FLOATS = st.none() | st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, -math.inf, 1.0, 2.5])


def words() -> Vocabulary:
    return Vocabulary(pl.Series(WORDS))


def number_of(value: str) -> int:
    return WORDS.index(value) + 3 if value in WORDS else 2


@given(st.lists(st.none() | st.lists(st.none() | LETTERS, max_size=6), max_size=12), st.integers(1, 4), st.sampled_from(["first", "last"]))
def test_many(lists: list[list[str | None] | None], max_length: int, keep: str) -> None:
    expected = []
    for values in lists:
        kept = [number_of(v) for v in values or [] if v is not None]
        kept = (kept[:max_length] if keep == "first" else kept[-max_length:]) or [1]
        expected.append(kept + [0] * (max_length - len(kept)))
    out = Many("x", words(), max_length, keep).encode(pl.Series(lists, dtype=pl.List(pl.String)))
    assert out.dtype == np.int32
    assert out.shape == (len(lists), max_length)
    assert out.tolist() == expected


def test_many_from_text_and_single_values() -> None:
    many = Many("x", words(), 3, "first", separator=",")
    assert many.encode(["a,b", " c , a,", "", None, "b"]).tolist() == [[3, 4, 0], [5, 3, 0], [1, 0, 0], [1, 0, 0], [4, 0, 0]]
    numbers = Many("x", Vocabulary(pl.Series([10, 20])), 2, "last", separator=" ")
    assert numbers.encode(["10 30 20", "20"]).tolist() == [[2, 4], [4, 0]]
    assert numbers.encode([20, None]).tolist() == [[4, 0], [1, 0]]
    assert numbers.encode([]).shape == (0, 2)
    assert numbers.encode([None]).tolist() == numbers.missing().tolist()


def test_many_names_the_row_of_a_wrong_value() -> None:
    many = Many("h", Vocabulary(pl.Series([10])), 5, "last")
    with pytest.raises(DataError, match="feature 'h': 1 value is not an integer, first at row 3: 'x'"):
        many.encode(["10|10", "", "10|x", "10"])
    with pytest.raises(DataError, match="feature 'h': values must be lists"):
        many.encode([{"a": 1}])


@given(st.lists(FLOATS, max_size=20))
def test_bins(values: list[float | None]) -> None:
    edges = [1.0, 2.5, 4.0]
    known = [v is not None and math.isfinite(v) for v in values]
    expected = [3 + sum(v >= e for e in edges) if ok else 1 for v, ok in zip(values, known, strict=True)]
    assert Bins("x", np.array(edges)).encode(pl.Series(values, dtype=pl.Float64)).tolist() == expected


@given(st.lists(FLOATS, max_size=20))
def test_standardise(values: list[float | None]) -> None:
    expected = [(v - 2.0) / 4.0 if v is not None and math.isfinite(v) else 0.0 for v in values]
    out = Standardise("x", 2.0, 4.0).encode(pl.Series(values, dtype=pl.Float64))
    assert out.dtype == np.float32
    assert out.tolist() == pytest.approx(expected)


def test_encoding_leaves_the_values_alone() -> None:
    values = pl.Series([1.0, math.nan, math.inf])
    Standardise("x", 0.0, 1.0).encode(values)
    Bins("x", np.array([1.0])).encode(values)
    assert math.isnan(values[1])
    assert values[2] == math.inf


def test_vector() -> None:
    vector = Vector("v", 2)
    out = vector.encode([[1, 2], None, [math.nan, 3.0], [None, 4.0]])
    assert out.dtype == np.float32
    assert out.tolist() == [[1, 2], [0, 0], [0, 3], [0, 4]]
    assert vector.encode(["1|2.5", None]).tolist() == [[1, 2.5], [0, 0]]
    assert vector.encode(pl.Series([[1, 2]], dtype=pl.Array(pl.Float32, 2))).tolist() == [[1, 2]]
    assert vector.encode([]).shape == (0, 2)
    with pytest.raises(DataError, match="feature 'v': a vector must have 2 numbers, row 2 has 3"):
        vector.encode([[1, 2], [1, 2, 3]])
    with pytest.raises(DataError, match="feature 'v': 1 value is not a number, first at row 2: 'x'"):
        vector.encode(["1|2", "3|x"])


@pytest.mark.parametrize("values", [[["a"]], [{"a": 1}], [b"a"]])
def test_wrong_types(values: list) -> None:
    with pytest.raises(DataError, match="feature 'x'"):
        Categorical("x", words()).encode(values)
    with pytest.raises(DataError, match="feature 'x'"):
        Bins("x", np.array([1.0])).encode(values)


ALL: list[Encoder] = [
    Categorical("a/b c", words()),
    Many("m", words(), 3, "last"),
    Bins("b", np.array([1.0, 2.0])),
    Standardise("s", 1.0, 2.0),
    Vector("v", 2),
]


@pytest.mark.parametrize("one", ALL)
def test_missing_is_what_null_becomes(one: Encoder) -> None:
    assert one.missing().tolist() == one.encode([None]).tolist()
    assert one.missing().dtype == one.encode([None]).dtype


def test_round_trip_without_pickle(tmp_path: Path) -> None:
    shared = words()
    encoders: dict[str, Encoder] = {e.name: e for e in ALL} | {
        "own": Categorical("own", shared),
        "other": Many("other", shared, 2, "first"),
    }
    encoder.save(encoders, tmp_path)
    loaded = encoder.load(tmp_path)
    assert list(loaded) == list(encoders)
    asked = {"a/b c": ["a", "z"], "m": ["a|b", ""], "b": [0, 3], "s": [1, 5], "v": [[1, 2]], "own": ["c"], "other": [["c", "b"]]}
    for name, values in asked.items():
        assert loaded[name].encode(values).tolist() == encoders[name].encode(values).tolist()
        assert loaded[name].size == encoders[name].size
    assert loaded["own"].vocabulary is loaded["other"].vocabulary
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".parquet"}


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"encoders '.*': cannot be read"):
        encoder.load(tmp_path)


@given(
    st.lists(st.none() | st.lists(st.none() | LETTERS | st.just(" a"), max_size=6) | st.text("abq| ", max_size=6), min_size=1, max_size=5)
)
def test_a_request_is_encoded_as_a_column_is(values: list[str | list[str | None] | None]) -> None:
    """Short lists take a path of their own, which must agree with the long one."""
    many = Many("x", words(), 3, "last")
    for value in values:
        column = pl.Series([value], dtype=pl.List(pl.String) if isinstance(value, list) else pl.String)
        assert many.encode([value]).tolist() == many.encode(column).tolist()
    flat = [v for v in values if not isinstance(v, list)]
    assert Categorical("x", words()).encode(flat).tolist() == Categorical("x", words()).encode(pl.Series(flat, dtype=pl.String)).tolist()
