"""Batches from a prepared data set, by slices of columns and never row by row.

    loader = Loader(dataset, dataset.rows("train"), 8192, seed=0)
    for batch in loader.epoch(3): ...

The order is a function of (seed, epoch) alone, so that `epoch(n, start=k)` resumes at batch k with
the very same batches. Three orders:

    full     one permutation of all rows; columns are read at random places
    blocks   blocks of neighbouring rows in random order, permuted inside a window of some blocks: for logs larger
             than memory, as each window is read once, nearly in sequence, and then let go
    none     as the rows stand, in windows too
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from prerank.batch import Batch, Columns
from prerank.data.columns import release
from prerank.data.dataset import Dataset, Side
from prerank.data.errors import DataError

Shuffle = Literal["auto", "full", "blocks", "none"]
Array = NDArray[Any]

AUTO_FULL = 20_000_000  # rows up to which `auto` permutes them all
AUTO_FULL_BYTES = 4 << 30  # .. and the size of their columns
BLOCK = 1 << 15  # neighbouring rows that stay together in a window
WINDOW = 16  # blocks in memory at a time
WINDOW_BYTES = 64 << 20  # of a window: wide rows (given vectors) come in shorter blocks


class Distinct:
    """Distinct entity rows of a batch and where they stand, in O(B): no sort, a scatter into a table as long as the entities."""

    def __init__(self, entities: int) -> None:
        self._slot = np.zeros(entities, np.int64)

    def __call__(self, rows: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """rows [B] -> (positions [U] of one row of each kind, inverse [B] in [0, U))"""
        here = np.arange(len(rows))
        self._slot[rows] = here
        first = np.flatnonzero(self._slot[rows] == here)
        self._slot[rows[first]] = np.arange(len(first))
        return first, self._slot[rows]


@dataclass(frozen=True)
class _Rows:
    """Columns of some log rows, all indexed alike: of the whole log (mapped), or of one window (in memory)."""

    columns: dict[str, Array]
    features: dict[str, Array]  # by log row

    def row_bytes(self) -> int:
        """Bytes of one row over all columns."""
        return sum(v.itemsize * math.prod(v.shape[1:]) for v in (*self.columns.values(), *self.features.values()))

    def take(self, at: NDArray[np.int64]) -> _Rows:
        return _Rows({k: v[at] for k, v in self.columns.items()}, {k: v[at] for k, v in self.features.items()})


class Loader:
    """Click rows (C = 1) of a data set in batches."""

    def __init__(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        batch_size: int,
        *,
        shuffle: Shuffle = "full",
        seed: int = 0,
        dedup: bool = True,
    ) -> None:
        """rows   log rows [n];   dedup   hold each distinct user and item of a batch once, as towers encode them once."""
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        self.dataset, self.rows, self.batch_size, self.seed, self.dedup = dataset, rows, batch_size, seed, dedup
        names = ("user_row", "item_row", "user_key", "item_key", "labels", "ts", "request")
        self._log = _Rows({n: v for n in names if (v := getattr(dataset, n)) is not None}, dataset.log)
        row = self._log.row_bytes()
        small = len(rows) <= AUTO_FULL and len(rows) * row <= AUTO_FULL_BYTES
        self.shuffle = ("full" if small else "blocks") if shuffle == "auto" else shuffle
        self._block = max(1, min(BLOCK, WINDOW_BYTES // (WINDOW * row)))
        self._distinct = {"user": Distinct(len(dataset.user_ids)), "item": Distinct(len(dataset.item_ids))}

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        """Batches of epoch n from batch `start` on."""
        if self.shuffle == "full":
            order = np.random.default_rng([self.seed, n]).permutation(len(self.rows))
            for first in range(start * self.batch_size, len(order), self.batch_size):
                yield self._batch(self._log, self.rows[order[first : first + self.batch_size]])
        else:
            yield from self._windowed(n, start * self.batch_size)

    def between(self, first: int, end: int) -> Batch:
        """Rows first .. end of those given as one batch, whatever the order of epochs: what was gone through once is read again."""
        return self._batch(self._log, self.rows[first:end])

    def _windowed(self, n: int, skip: int) -> Iterator[Batch]:
        """Batches may reach over the edge of windows: the rest of one is carried into the next. One window is in memory at a time."""
        carried: _Rows | None = None
        window: _Rows | None = None
        for chosen, order in self._windows(n):
            if skip >= len(order):
                skip -= len(order)
                continue
            window = None  # before the next is read
            window = self._log.take(self.rows[chosen])
            self._release()
            order, skip = order[skip:], 0
            if carried is not None:
                missing = self.batch_size - _length(carried)
                carried, order = _joined(carried, window.take(order[:missing])), order[missing:]
                if _length(carried) < self.batch_size:
                    continue
                yield self._batch(carried, np.arange(self.batch_size))
            whole = len(order) - len(order) % self.batch_size
            for first in range(0, whole, self.batch_size):
                yield self._batch(window, order[first : first + self.batch_size])
            carried = window.take(order[whole:])
        if carried is not None and _length(carried):
            yield self._batch(carried, np.arange(_length(carried)))

    def _windows(self, n: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(positions in `rows`, the order among them) of every window."""
        block = self._block
        blocks = np.arange(-(-len(self.rows) // block))
        random = np.random.default_rng([self.seed, n])
        if self.shuffle == "blocks":
            random.shuffle(blocks)
        for first in range(0, len(blocks), WINDOW):
            starts = blocks[first : first + WINDOW] * block
            chosen = np.concatenate([np.arange(s, min(s + block, len(self.rows))) for s in starts])
            yield chosen, random.permutation(len(chosen)) if self.shuffle == "blocks" else np.arange(len(chosen))

    def _batch(self, source: _Rows, at: NDArray[np.int64]) -> Batch:
        """Rows `at` [B] of the source."""
        user, user_index = self._side("user", source, at)
        item, item_index = self._side("item", source, at)
        columns = source.columns
        ts, request = columns.get("ts"), columns.get("request")
        return Batch(
            user=user,
            item=item,
            user_index=torch.from_numpy(user_index),
            item_index=torch.from_numpy(item_index).unsqueeze(1),
            labels=torch.from_numpy(columns["labels"][at]).unsqueeze(1),
            where=torch.ones(len(at), 1, dtype=torch.bool),
            ts=None if ts is None else torch.from_numpy(ts[at]).unsqueeze(1),
            request=None if request is None else torch.from_numpy(request[at]),
        )

    def _side(self, side: Side, source: _Rows, at: NDArray[np.int64]) -> tuple[Columns, NDArray[np.int64]]:
        """Columns of the distinct rows [U, ...] and the index [B] into them."""
        entity = source.columns[f"{side}_row"][at]
        index = np.arange(len(at))
        if self.dedup:
            if f"{side}_key" in source.columns:
                _, first, index = np.unique(source.columns[f"{side}_key"][at], return_index=True, return_inverse=True)
            else:
                first, index = self._distinct[side](entity)
            entity, at = entity[first], at[first]
        table = self.dataset.entity(side)
        columns = {
            f.name: torch.from_numpy(source.features[f.name][at] if f.name in source.features else table[f.name][entity])
            for f in self.dataset.schema.on(side)
        }
        return columns, index

    def _release(self) -> None:
        """A window is a copy: the mapped pages it came from need not stay."""
        for column in (*self._log.columns.values(), *self._log.features.values(), self.rows):
            release(column)

    def __repr__(self) -> str:
        return f"<Loader {len(self.rows)} rows in {len(self)} batches of {self.batch_size}, shuffle {self.shuffle}>"


def _length(rows: _Rows) -> int:
    return len(rows.columns["labels"])


def _joined(a: _Rows, b: _Rows) -> _Rows:
    return _Rows(
        {k: np.concatenate([v, b.columns[k]]) for k, v in a.columns.items()},
        {k: np.concatenate([v, b.features[k]]) for k, v in a.features.items()},
    )
