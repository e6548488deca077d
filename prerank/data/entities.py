"""The rows of the users (or items) table: raw ids, and the features that the user's table gives them.

Rows are the ids of the user's table in its order, then the ids that only the log knows, most frequent first.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.encoder import Column, Encoder
from prerank.data.errors import DataError
from prerank.data.lookup import Lookup
from prerank.data.table import Table
from prerank.data.values import as_type, not_null


class Entities:
    """One side's entities.

    ids      [n] raw ids;   lookup   raw id -> row
    train    int64 [n] train rows of the log of each;   shown   of these, impressions
    """

    def __init__(self, table: Table | None, column: str, features: list[str], seen: pl.DataFrame, train: pl.DataFrame,
                 shown: pl.DataFrame | None = None) -> None:  # fmt: skip
        """Raises DataError when the table's ids are missing, of another type than the log's, or not unique.

        features      columns of the table that will be asked for
        seen, train   columns value and count: the raw ids in all rows and in train rows of the log
        shown         in train rows that are impressions; default: all of them
        """
        dtype = seen["value"].dtype
        self._frame = None
        self.ids = seen["value"]
        if table is not None:
            self._frame = table.read(dict.fromkeys([column, *features]))
            own = _unique_ids(self._frame[column], dtype, table, column)
            rest = self.ids.filter(pl.Series(Lookup(own).find(self.ids) < 0))
            self.ids = pl.concat([own, rest])
        self.ids = self.ids.alias("id")
        self.lookup = Lookup(self.ids)
        self.train = self._counted(train)
        self.shown = self.train if shown is None else self._counted(shown)

    def _counted(self, counts: pl.DataFrame) -> NDArray[np.int64]:
        found = np.zeros(len(self.ids), np.int64)
        found[self.lookup.find(counts["value"])] = counts["count"].to_numpy()
        return found

    def __len__(self) -> int:
        return len(self.ids)

    def values(self, column: str) -> pl.Series:
        """Raw values of a column of the user's table; entities that it lacks are left out (they are the last rows)."""
        assert self._frame is not None
        return self._frame[column]

    def weights(self) -> NDArray[np.int64]:
        """Train rows of the entities in the user's table."""
        assert self._frame is not None
        return self.train[: len(self._frame)]

    def encoded(self, column: str, encoder: Encoder) -> Column:
        """The encoded column [n, ...]; entities that the user's table lacks are missing."""
        known = encoder.encode(self.values(column))
        return np.concatenate([known, np.repeat(encoder.missing(), len(self) - len(known), axis=0)])


def _unique_ids(values: pl.Series, dtype: pl.DataType, table: Table, column: str) -> pl.Series:
    what = f"{table.role} '{table.path}', column '{column}'"
    ids = not_null(as_type(values, dtype, what), what)
    twice = ids.is_duplicated()
    if twice.any():
        first = ids[int(twice.arg_max() or 0)]
        raise DataError(f"{what}: must hold each id once, {first!r} occurs {int((ids == first).sum())} times")
    return ids
