"""Raw values to rows of an embedding table: 0 padding, 1 missing, 2 unknown, then the values, most frequent first.

Fitted on train rows: a value seen fewer than `min_count` times there, or never, is unknown. Features
that share a table share one vocabulary.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.lookup import Lookup
from prerank.data.values import FEW, Place, Values, as_type, row, series
from prerank.schema import FIRST, MISSING, UNKNOWN

_WORDS = 100_000  # a dict for them is kept for vocabularies up to this size


class Vocabulary:
    """Distinct values in the order of their rows.

    values   [size - 3] of type Int64, Float64 or String
    size     rows of the table, the three reserved ones included
    """

    suffix = ".parquet"

    def __init__(self, values: pl.Series) -> None:
        self.values = values
        self.dtype = values.dtype
        self.size = FIRST + len(values)
        self._lookup = Lookup(values)

    @classmethod
    def fit(cls, counts: pl.DataFrame, min_count: int) -> Vocabulary:
        """From columns value and count (`statistics.Counts`), most frequent first."""
        return cls(counts.filter(pl.col("count") >= min_count)["value"])

    def rows(self, values: Values, what: str, place: Place = row) -> NDArray[np.int32]:
        """values [n] of any fitting type -> int32 [n]. Raises DataError for values of another type."""
        if (
            isinstance(values, list)
            and len(values) <= FEW
            and self._words is not None
            and all(type(v) in (str, type(None)) for v in values)
        ):
            return np.array([self._words.get(v, UNKNOWN) for v in values], np.int32)
        values = as_type(series(values, what), self.dtype, what, place)
        found = self._lookup.find(values).astype(np.int32)
        found += FIRST
        found[found < FIRST] = UNKNOWN
        if values.null_count():
            found[values.is_null().to_numpy()] = MISSING
        return found

    @cached_property
    def _words(self) -> dict[str | None, int] | None:
        """Rows of text values, missing among them; None for other types and large vocabularies."""
        if self.dtype != pl.String or self.size > _WORDS:
            return None
        return {None: MISSING} | {v: i for i, v in enumerate(self.values.to_list(), FIRST)}

    def save(self, path: Path) -> None:
        """One Parquet file with a column `value`."""
        pl.DataFrame({"value": self.values}).write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        return cls(pl.read_parquet(path)["value"])

    def __repr__(self) -> str:
        return f"<Vocabulary {len(self.values)} values of {self.dtype}>"
