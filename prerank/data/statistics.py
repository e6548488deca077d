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

_SAMPLE = 1 << 20  # numbers kept for quantiles; logs up to this size have exact quantiles


class Counts:
    """How often each value occurred."""

    def __init__(self, dtype: pl.DataType) -> None:
        self.dtype = dtype
        self._parts: list[pl.DataFrame] = []
        self._rows, self._limit = 0, 1 << 20

    def update(self, values: pl.Series, weights: NDArray[np.int64] | None = None) -> None:
        """values [n] of the given type; weights [n]: how often each counts (default: once). Missing values are left out."""
        frame = pl.DataFrame({"value": values, "count": np.ones(len(values), np.int64) if weights is None else weights})
        self._parts.append(_sum(frame.filter(pl.col("value").is_not_null() & (pl.col("count") > 0))))
        self._rows += len(self._parts[-1])
        if self._rows > self._limit:
            self._parts = [self.get()]
            self._rows = len(self._parts[0])
            self._limit = max(self._limit, 2 * self._rows)

    def get(self) -> pl.DataFrame:
        """Columns value and count, most frequent first, ties by value."""
        empty = pl.DataFrame(schema={"value": self.dtype, "count": pl.Int64})
        return _sum(pl.concat([empty, *self._parts])).sort(["count", "value"], descending=[True, False])


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
        """values, weights [n]; values that are not finite are left out."""
        keep = np.isfinite(values)
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


def _sum(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("value").agg(pl.col("count").sum())
