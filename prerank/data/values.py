"""Raw values of one column brought to the type its reader needs, or a message that names the first that cannot be.

Four types exist past this border: Int64, Float64, String and Boolean. Files and requests hold more
(small and unsigned integers, dates, decimals, text that looks like numbers); every reader calls
`as_type` once and trusts what it gets.

    as_type(pl.Series(["3", "n/a"]), pl.Int64, "feature 'age'")
    DataError: feature 'age': 1 value is not an integer, first at row 2: 'n/a'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.errors import DataError

Place = Callable[[int], str]  # position in a series -> where the user finds it
Values = pl.Series | list[Any]  # of a file; of a request

_NOUN = {
    pl.Int64: ("an integer", "integers"),
    pl.Float64: ("a number", "numbers"),
    pl.String: ("text", "text"),
    pl.Boolean: ("true or false", "true or false"),
}
_LARGE = 1e19  # squares of smaller numbers are float32 still
_EXACT = 2.0**53  # integers above it are not exact as floats
FEW = 64  # values of a request, for which plain Python is quicker than a column's machinery (2 against 200 us)


def row(position: int) -> str:
    """Rows are counted from 1, a header is none."""
    return f"row {position + 1}"


def value_type(dtype: pl.DataType) -> pl.DataType:
    """The type in which values of a column are kept: Int64, Float64 or String (of the elements, for lists)."""
    if isinstance(dtype, pl.List | pl.Array):
        return value_type(_inner(dtype))
    if dtype.is_integer() or dtype == pl.Boolean:
        return pl.Int64()
    return pl.Float64() if dtype.is_float() or dtype.is_decimal() else pl.String()


def series(values: Values, what: str) -> pl.Series:
    """A column from a request's list. Raises DataError when the values have no common type."""
    if isinstance(values, pl.Series):
        return values
    try:
        found = pl.Series(values, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise DataError(f"{what}: values have no common type: {values!r:.60}") from None
    if found.dtype == pl.Object:
        raise DataError(f"{what}: values have no common type: {values!r:.60}")
    return found


def as_type(values: pl.Series, dtype: pl.DataType, what: str, place: Place = row) -> pl.Series:
    """Cast without loss; NaN becomes missing (null).

    values   [n], any type
    dtype    Int64, Float64, String or Boolean
    what     the thing's name, for the message
    place    position -> where it stands, for the message
    Raises DataError with the number of values that do not fit and the first of them.
    """
    if values.dtype == dtype:
        return values.fill_nan(None) if dtype == pl.Float64 else values
    if values.dtype == pl.Null:
        return values.cast(dtype)
    cast = _cast(values, dtype)
    given = values.fill_nan(None).is_not_null() if values.dtype.is_float() else values.is_not_null()
    bad = cast.is_null() & given
    if bad.any():
        first = int(bad.arg_max() or 0)
        value = values.slice(first, 1).to_list()[0]
        raise DataError(f"{what}: {_rule(int(bad.sum()), value, dtype)}, first at {place(first)}: {value!r:.60}")
    return cast


def not_null(values: pl.Series, what: str, place: Place = row) -> pl.Series:
    """The same values. Raises DataError when one is missing."""
    if values.null_count():
        first = int(values.is_null().arg_max() or 0)
        count = values.null_count()
        raise DataError(f"{what}: must not be missing, {count} value{'s are' if count > 1 else ' is'}, first at {place(first)}")
    return values


def numbers(values: Values, what: str, place: Place = row) -> NDArray[np.float64]:
    """Numbers with NaN for missing ones, a fresh array.  # [n]"""
    given = series(values, what)
    if not given.dtype.is_numeric():
        given = as_type(given, pl.Float64(), what, place)
    return np.array(given.to_numpy(), np.float64)


def sane(x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a number can be computed with: neither NaN nor so large that its square leaves float32 (1e19).  # [n]"""
    return np.abs(x) < _LARGE  # NaN compares false


def flatten(values: Values, what: str, separator: str, max_length: int, keep: Literal["first", "last"]) -> tuple[Values, NDArray[np.int64]]:
    """Lists (or text split by the separator) without missing values, cut to their first or last `max_length`.

    Returns all their values one after the other, and the length of each list [n] (0 for missing and empty ones).
    """
    if isinstance(values, list) and len(values) <= FEW and all(isinstance(v, str | list | None) for v in values):
        few = [
            [y for x in v.split(separator) if (y := x.strip())] if isinstance(v, str) else [x for x in v or [] if x is not None]
            for v in values
        ]
        few = [xs[:max_length] if keep == "first" else xs[-max_length:] for xs in few]
        return [x for xs in few for x in xs], np.array([len(xs) for xs in few], np.int64)
    lists = as_lists(series(values, what), separator, what).list.drop_nulls()
    lists = lists.list.head(max_length) if keep == "first" else lists.list.tail(max_length)
    lengths = lists.list.len().fill_null(0)
    return lists.filter(lengths > 0).list.explode(), lengths.to_numpy().astype(np.int64)


def as_lists(values: pl.Series, separator: str, what: str) -> pl.Series:
    """Lists from lists, from text (empty text: an empty list), or from single values (lists of one); missing stays missing."""
    if values.dtype == pl.Null:
        return values.cast(pl.List(pl.Int64))
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list()
    if isinstance(values.dtype, pl.List):
        return values
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        raise DataError(f"{what}: values must be lists, or text split by '{separator}'; got {values.dtype}")
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        parts = values.cast(pl.String).str.split(separator)
        return parts.list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars() != ""))
    return pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series()


def _inner(dtype: pl.DataType) -> pl.DataType:
    inner = dtype.inner  # type: ignore[attr-defined]
    return inner() if isinstance(inner, type) else inner


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Values that do not fit become null."""
    source = values.dtype
    if source.is_nested() or source == pl.Binary or (source.is_temporal() and dtype not in (pl.String, pl.Boolean)):
        return pl.repeat(None, len(values), dtype=dtype, eager=True).alias(values.name)
    if dtype == pl.String:
        return values.cast(pl.String, strict=False)
    if dtype == pl.Boolean:
        lower = values.cast(pl.String).str.to_lowercase()
        return lower.replace_strict(["true", "false"], [True, False], default=None, return_dtype=pl.Boolean)
    if isinstance(source, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if dtype == pl.Int64 and source.is_float():
        whole = values.is_finite() & (values == values.floor()) & (values.abs() <= _EXACT)
        return values.set(~whole.fill_null(False), None).cast(pl.Int64, strict=False)
    cast = values.cast(dtype, strict=False)
    return cast.fill_nan(None) if dtype == pl.Float64 else cast


def _rule(count: int, value: Any, dtype: pl.DataType) -> str:
    """'1 value is not an integer', '3 values are not integers', or that they are too long for 64 bits."""
    noun = "1 value" if count == 1 else f"{count} values"
    text = str(value).strip()
    if dtype == pl.Int64 and text.lstrip("+-").isdigit():
        return f"{noun} do{'es' if count == 1 else ''} not fit a 64-bit integer (store such ids as text)"
    one, many = _NOUN[type(dtype)]
    return f"{noun} is not {one}" if count == 1 else f"{noun} are not {many}"
