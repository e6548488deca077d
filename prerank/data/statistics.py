"""What is fitted on train rows, accumulated batch by batch: value counts, a sample for quantiles, mean and deviation.

Each has two verbs, `update` and a reading one, and holds memory for distinct values or a fixed
sample, never for rows.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.hashing import mix
from prerank.data.values import sane

_HELD = 1 << 20  # values that are grouped at once
_DENSE = 1 << 21  # span of integers that an array counts (16 MB)
_SAMPLE = 1 << 18  # numbers kept for quantiles; logs up to this size have exact quantiles


class Counts:
    """How often each value occurred.

    Integers close to each other (most ids) are counted in an array; others are held back until there
    are many and then grouped at once.
    """

    def __init__(self, dtype: pl.DataType) -> None:
        self.dtype = dtype
        self._array = np.zeros(0, np.int64)  # counts of the integers from _low on
        self._low = 0
        self._held: list[pl.DataFrame] = []
        self._rows, self._limit = 0, _HELD

    def update(self, values: pl.Series, weights: NDArray[np.int64] | None = None) -> None:
        """values [n] of the given type; weights [n]: how often each counts (default: once). Missing values are left out."""
        if values.null_count():
            known = values.is_not_null()
            values, weights = values.drop_nulls(), None if weights is None else weights[known.to_numpy()]
        if not len(values) or self._counted(values, weights):
            return
        self._held.append(pl.DataFrame({"value": values, "count": np.ones(len(values), np.int64) if weights is None else weights}))
        self._rows += len(values)
        if self._rows > self._limit:
            self._held = [_sum(self._held)]
            self._rows = len(self._held[0])
            self._limit = max(_HELD, 2 * self._rows)

    def get(self) -> pl.DataFrame:
        """Columns value and count (above 0), most frequent first, ties by value."""
        found = np.flatnonzero(self._array)
        counted = pl.DataFrame({"value": pl.Series(found + self._low, dtype=pl.Int64).cast(self.dtype), "count": self._array[found]})
        every = _sum([counted, *self._held]) if self._held else counted
        return every.filter(pl.col("count") > 0).sort(["count", "value"], descending=[True, False])

    def _counted(self, values: pl.Series, weights: NDArray[np.int64] | None) -> bool:
        """Whether the array could take the values."""
        if self.dtype != pl.Int64:
            return False
        numbers = values.to_numpy()
        low, high = int(numbers.min()), int(numbers.max())
        if len(self._array):
            low, high = min(low, self._low), max(high, self._low + len(self._array) - 1)
        if high - low >= _DENSE:
            return False
        if high - low >= len(self._array):
            wider = np.zeros(high - low + 1, np.int64)
            wider[self._low - low : self._low - low + len(self._array)] = self._array
            self._array, self._low = wider, low
        self._array += np.bincount(numbers - self._low, weights, minlength=len(self._array)).astype(np.int64)
        return True


class Sample:
    """Quantiles of numbers: exact up to `_SAMPLE` of them, from a uniform sample (the smallest hashes of row numbers) beyond."""

    def __init__(self) -> None:
        self._values: list[NDArray[np.float64]] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._weights: list[NDArray[np.float64]] = []
        self._rows = 0

    def update(self, values: NDArray[np.float64], numbers: NDArray[np.int64], weights: NDArray[np.int64] | None = None) -> None:
        """values, numbers (of the rows), weights [n]; values that are not finite are left out."""
        keep = np.isfinite(values)
        if weights is not None:
            keep &= weights > 0
        self._values.append(values[keep])
        self._keys.append(mix(numbers[keep]))
        self._weights.append(np.ones(int(keep.sum())) if weights is None else weights[keep].astype(np.float64))
        self._rows += len(self._values[-1])
        if self._rows > 2 * _SAMPLE:
            self._shrink()

    def get(self, parts: int) -> NDArray[np.float64]:
        """Inner edges of `parts` bins of equal weight, repeated edges once.  # [at most parts - 1]"""
        if not self._rows:
            return np.empty(0)
        self._shrink()
        values, weights = self._values[0], self._weights[0]
        order = np.argsort(values, kind="stable")
        values, reach = values[order], np.cumsum(weights[order])
        at = np.searchsorted(reach, reach[-1] * np.arange(1, parts) / parts, side="right")
        edges = np.unique(values[np.minimum(at, len(values) - 1)])
        return edges[edges > values[0]]  # a bin below the smallest value would stay empty

    def _shrink(self) -> None:
        values, keys, weights = np.concatenate(self._values), np.concatenate(self._keys), np.concatenate(self._weights)
        if len(values) > _SAMPLE:
            kept = np.sort(np.argpartition(keys, _SAMPLE)[:_SAMPLE])
            values, keys, weights = values[kept], keys[kept], weights[kept]
        self._values, self._keys, self._weights, self._rows = [values], [keys], [weights], len(values)


class Moments:
    """Mean and standard deviation of numbers (Chan, Golub, LeVeque 1983: means and squared deviations of parts are merged)."""

    def __init__(self) -> None:
        self._n = self._mean = self._squares = 0.0

    def update(self, values: NDArray[np.float64], weights: NDArray[np.int64] | None = None) -> None:
        """values, weights [n]; values that cannot be computed with are left out, as by `Standardise`."""
        keep = sane(values)
        w = np.ones(len(values)) if weights is None else weights.astype(np.float64)
        values, w = values[keep], w[keep]
        n = float(w.sum())
        if n == 0:
            return
        mean = float(values @ w) / n
        squares = float(((values - mean) ** 2) @ w)
        total, delta = self._n + n, mean - self._mean
        self._squares += squares + delta * delta * self._n * n / total
        self._mean += delta * n / total
        self._n = total

    def get(self) -> tuple[float, float]:
        """Mean and deviation; 0 and 1 without values, deviation 1 for a constant."""
        deviation = math.sqrt(self._squares / self._n) if self._n else 0.0
        return self._mean, deviation if deviation > 1e-12 * abs(self._mean) else 1.0


def _sum(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by("value").agg(pl.col("count").sum())
