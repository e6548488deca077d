"""Candidates of requests put in order: what every measure of agreement between two scores starts from.

    pool = Requests("overlap", shape, None, groups)   # flat rows, or padded lists with `where`
    rank = pool.ranks(scores, -other)                 # place of each row in its request, from 0, highest first; the second key breaks ties
    pool.sum(rank < 10)                               # a sum a request

Rows are brought into contiguous requests once; everything else is a sort and sums over runs, no loop runs over requests.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Floats
from prerank.metrics.ranking import dense

Ints = NDArray[np.int64]
BLOCK = 1 << 16  # rows sorted at a time: their columns stay in the processor's cache


class Requests:
    """R requests and the rows that are their candidates.

    size, first   [R] candidates of each request, and where they begin among the sorted rows
    group         [n] request of each sorted row, 0 .. R-1 in the order of the requests' names
    """

    def __init__(self, metric: str, shape: tuple[int, ...], where: ArrayLike | None, groups: ArrayLike | None) -> None:
        """shape: of the scores, [n] with groups [n] or [B, C] with where [B, C]. Raises ValueError naming the metric."""
        self.metric, self.shape = metric, shape
        self._keep: NDArray[np.bool_] | None = None
        if groups is not None:
            if where is not None or len(shape) != 1:
                raise ValueError(f"{metric}: groups belong to flat rows, got scores of shape {shape}")
            group = dense(metric, groups, shape[0])
        else:
            if len(shape) != 2:
                raise ValueError(f"{metric}: needs lists [B, C] or flat rows with groups, got scores {shape}")
            self._keep = np.ones(shape, bool) if where is None else np.asarray(where, bool)
            if self._keep.shape != shape:
                raise ValueError(f"{metric}: where must have the scores' shape {shape}, got {self._keep.shape}")
            group = dense(metric, np.nonzero(self._keep)[0], int(self._keep.sum()))
        if not len(group):
            raise ValueError(f"{metric}: needs at least one row, got none")
        self._order = None if (group[1:] >= group[:-1]).all() else np.argsort(group, kind="stable")
        self.group = group if self._order is None else group[self._order]
        self.size = np.bincount(self.group)
        self.first = np.cumsum(self.size) - self.size

    def rows(self, values: ArrayLike, name: str) -> Floats:
        """Values in the shape of the scores -> sorted rows [n]. Raises ValueError for another shape or a NaN."""
        array = np.asarray(values, np.float64)
        if array.shape != self.shape:
            raise ValueError(f"{self.metric}: {name} must have the scores' shape {self.shape}, got {array.shape}")
        flat = array if self._keep is None else array[self._keep]
        bad = ~np.isfinite(flat)
        if bad.any():
            raise ValueError(f"{self.metric}: {name} must be finite numbers, {bad.sum()} are not, first at row {bad.argmax()}")
        return flat if self._order is None else flat[self._order]

    def blocks(self) -> Iterator[slice]:
        """Whole requests, about BLOCK rows at a time."""
        ends, start = self.first + self.size, 0
        while start < len(self.group):
            last = max(int(np.searchsorted(ends, start + BLOCK, side="right")), int(self.group[start]) + 1)
            yield slice(start, int(ends[last - 1]))
            start = int(ends[last - 1])

    def order(self, *keys: Floats) -> Ints:
        """Rows sorted by request, then by the keys, each highest first; what is equal in all stays in its order.  # [n]"""
        found = np.empty(len(self.group), np.int64)
        for rows in self.blocks():
            found[rows] = rows.start + self._ordered(rows, [-key[rows] for key in keys])
        return found

    def _ordered(self, rows: slice, keys: list[Floats]) -> Ints:
        """Order of a block's rows by request, then by the keys, lowest first.

        Requests side by side, sorted by the first key alone: many times as fast as a sort of several keys, which is left for those
        with ties, and for a block where padding would be most of the work.
        """
        group = self.group[rows] - self.group[rows.start]
        size = self.size[self.group[rows.start] : self.group[rows.stop - 1] + 1]
        if len(size) * size.max() > 4 * len(group):
            return np.lexsort([*reversed(keys), group])  # the last one counts most
        there = np.arange(size.max()) < size[:, None]
        grid = np.full(there.shape, np.inf)
        grid[there] = keys[0]
        by_key = np.argsort(grid, axis=1)
        found = (by_key + (np.cumsum(size) - size)[:, None])[there]
        ordered = keys[0][found]
        tied = np.zeros(len(size), bool)
        tied[group[1:][(ordered[1:] == ordered[:-1]) & (group[1:] == group[:-1])]] = True
        again = np.flatnonzero(tied[group])
        found[again] = again[np.lexsort([*(key[again] for key in reversed(keys)), group[again]])]
        return found

    def ranks(self, *keys: Floats) -> Ints:
        """Place of each row in its request, from 0, by the keys, each highest first.  # [n]"""
        found = np.empty(len(self.group), np.int64)
        found[self.order(*keys)] = np.arange(len(found))
        return found - self.first[self.group]

    def sum(self, values: NDArray) -> Floats:
        """Sum over each request.  # [R]"""
        return np.add.reduceat(values, self.first, dtype=np.float64)

    def more_than(self, count: int) -> NDArray[np.bool_]:
        """Requests with more than `count` candidates.  # [R]"""
        return self.size > count
