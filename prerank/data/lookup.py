"""From raw values to their positions: the one lookup behind vocabularies and entity tables.

Built once, asked for whole columns. Dense integers use a table (5 ns a value), other numbers a
binary search, text a binary search over 64-bit hashes whose hits are compared with the text itself.
(A join or a Python dict would hash the known values again for every batch, or cost 0.5 us a value.)

    Lookup(pl.Series([30, 10])).find(pl.Series([10, 99, None, 30]))   ->  [1, -1, -1, 0]
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Lookup:
    """Positions of distinct, non-null values of type Int64, Float64 or String."""

    def __init__(self, values: pl.Series) -> None:
        self.values = values.rechunk()
        self._table: NDArray[np.int32] | None = None
        self._seed = 0
        keys = self._distinct_hashes() if values.dtype == pl.String else values.to_numpy()
        if values.dtype == pl.Int64 and len(keys):
            self._first, self._last = int(keys.min()), int(keys.max())
            if self._last - self._first < 8 * len(keys) + 1024:
                self._table = np.full(self._last - self._first + 1, -1, np.int32)
                self._table[keys - self._first] = np.arange(len(keys), dtype=np.int32)
                return
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self.values)

    def find(self, values: pl.Series) -> NDArray[np.int64]:
        """Position of each value, -1 where it is not known or missing.  # [n]

        values   [n], of the same type as the known ones
        """
        if not len(self) or not len(values):
            return np.full(len(values), -1, np.int64)
        if values.null_count():
            known = values.is_not_null().to_numpy()
            found = np.full(len(values), -1, np.int64)
            found[known] = self.find(values.drop_nulls())
            return found
        if self._table is not None:
            return self._find_dense(values.to_numpy())
        keys = values.hash(seed=self._seed).to_numpy() if values.dtype == pl.String else values.to_numpy()
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hit = self._keys[at] == keys
        position = self._order[at]
        if values.dtype == pl.String:
            hit &= (self.values.gather(position) == values).to_numpy()
        return np.where(hit, position, -1)

    def _find_dense(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self._table is not None
        inside = (keys >= self._first) & (keys <= self._last)
        found = self._table[np.where(inside, keys, self._first) - self._first].astype(np.int64)
        return np.where(inside, found, -1)

    def _distinct_hashes(self) -> NDArray[np.uint64]:
        """Hashes of the known values under the first seed for which no two agree."""
        while True:
            keys = self.values.hash(seed=self._seed).to_numpy()
            if len(np.unique(keys)) == len(keys):
                return keys
            self._seed += 1
