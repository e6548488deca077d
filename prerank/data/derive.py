"""Columns made from the log itself without looking into the future.

    target_mean   (sum of the label over train rows of the key + smoothing * overall mean) / (their number + smoothing); of the train rows,
                  and for the overall mean alike, a train row may know

                      out_of_fold     those of the other folds (5, by a hash of the row's position)
                      as_of           those before its time; other rows' means, too, are as of their time
                      leave_one_out   all but itself

    count         number of other train rows of the key
    history       the key's earlier values, strictly before the row's time, most recent last

Where a history may look: rows of a random split and train rows see train rows only; validation and test rows of
a time or user split see every earlier row, as they would when serving. An entity's value for serving
is that of the whole train part.

NOTE leave_one_out is no shield: among the rows of ONE key the positives have the slightly lower mean, and a model that also knows the
key reads the label off it. On labels drawn by lot a deepfm with the item's id and its mean came to a train loss of .07, without the mean
to .66; smoothing and bins do not hide it. No other split is touched, but what is learned is no use there: `prerank validate` warns.
Out of fold the rows of a key and fold have one value, which tells the mean of their labels and nothing of any of them: little for a key
of many rows, all of it for one of a handful. As of the row's time nothing is told: labels of earlier rows alone are in it.

NOTE memory: these look across the whole log, so keys, labels, times and collected values of all kept rows are held in
memory while preparing (about 50 bytes a row and derived column); the other parts of preparation never do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prerank.config import Derived, Split
from prerank.data.hashing import uniform
from prerank.data.lookup import Lookup

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
How = Literal["out_of_fold", "as_of", "leave_one_out"]
FOLDS, FOLD_SEED = 5, 20_221


@dataclass(frozen=True)
class Statistic:
    """A number a row (target_mean, count).

    rows      [R] as each row may know it
    final     [keys] from the whole train part;  unknown   the value of a key that train does not have
    """

    rows: Floats
    final: Floats
    unknown: float
    keys: Lookup
    dtype = pl.Float64()

    def part(self, first: int, count: int) -> pl.Series:
        """Values of kept rows [first, first + count)."""
        return pl.Series(self.rows[first : first + count])

    def never(self) -> pl.Series:
        """The value of a key that train does not have.  # [1]"""
        return self.serving(pl.Series([None], dtype=self.keys.values.dtype))

    def serving(self, keys: pl.Series) -> pl.Series:
        """Values of raw keys [n] after all of train."""
        found = self.keys.find(keys)
        return pl.Series(np.where(found >= 0, np.append(self.final, self.unknown)[found], self.unknown))


@dataclass(frozen=True)
class History:
    """A list a row: windows into the values of all sources, sorted by key and time.

    low, high             [R] window of each row;  final_low, final_high   [keys]
    values                of the sources in that order
    """

    values: pl.Series
    low: Ints
    high: Ints
    final_low: Ints
    final_high: Ints
    keys: Lookup

    @property
    def dtype(self) -> pl.DataType:
        return pl.List(self.values.dtype)

    def part(self, first: int, count: int) -> pl.Series:
        """Lists of kept rows [first, first + count)."""
        return self._lists(self.low[first : first + count], self.high[first : first + count])

    def never(self) -> pl.Series:
        """The value of a key that train does not have.  # [1]"""
        return self.serving(pl.Series([None], dtype=self.keys.values.dtype))

    def serving(self, keys: pl.Series) -> pl.Series:
        """Lists of raw keys [n] after all of train."""
        found = self.keys.find(keys)
        low, high = (np.append(x, 0)[found] for x in (self.final_low, self.final_high))
        return self._lists(np.where(found >= 0, low, 0), np.where(found >= 0, high, 0))

    def _lists(self, low: Ints, high: Ints) -> pl.Series:
        lengths = high - low
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - low, lengths)
        return pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets), self.values.gather(at).to_arrow()))


def how_of(setting: Derived, split: Split) -> How:
    """How a target_mean is made where the settings do not say: as of the row's time when time decides the split, else out of fold."""
    return setting.how or ("as_of" if split.kind == "time" else "out_of_fold")


def count(keys: pl.Series, train: NDArray[np.bool_]) -> Statistic:
    """Number of other rows where `train` [R] of each row's raw key [R]."""
    lookup, code, use = _coded(keys, train)
    n = np.bincount(code[use], minlength=len(lookup)).astype(np.float64)
    return Statistic(np.append(n, 0.0)[code] - use, n, 0.0, lookup)


def target_mean(setting: Derived, how: How, keys: pl.Series, train: NDArray[np.bool_], labels: Floats, ts: Ints) -> Statistic:
    """Mean of labels [R] by raw key [R], from rows where `train` [R]; ts [R] in ms is looked at by as_of alone."""
    lookup, code, use = _coded(keys, train)
    size, rows = len(lookup), int(train.sum())
    n = np.bincount(code[use], minlength=size).astype(np.float64)
    sums = np.bincount(code[use], weights=labels[use], minlength=size).astype(np.float64)
    total = float(labels[train].sum())
    mean = total / rows if rows else 0.0
    final = _smooth(sums, n, np.full(size, mean), setting.smoothing)
    if how == "as_of":
        seen, all_ = _before(code, ts, use, labels, size), _before(np.zeros(len(code), np.int64), ts, train, labels, 1)
        prior = np.where(all_[1] > 0, all_[0] / np.maximum(all_[1], 1), 0.0)
    else:  # of the whole train part, what belongs with the row is taken away again: of its key, and of the overall mean
        groups = np.arange(len(code)) if how == "leave_one_out" else _folds(len(code))
        key = np.where(code >= 0, code, size)  # missing keys are one of their own, of which nothing is known
        own, everything = _with(key, groups, use, labels), _with(np.zeros(len(code), np.int64), groups, train, labels)
        known = np.append(sums, 0.0)[code], np.append(n, 0.0)[code]
        seen = known[0] - np.where(train, own[0], 0.0), known[1] - np.where(train, own[1], 0.0)
        left = rows - everything[1]
        others = np.where(left > 0, (total - everything[0]) / np.maximum(left, 1), 0.0)
        prior = np.where(train, others, mean)
    return Statistic(_smooth(seen[0], seen[1], prior, setting.smoothing), final, mean, lookup)


def history(
    setting: Derived,
    keys: pl.Series,
    values: pl.Series,
    ts: Ints,
    train: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    beyond_train: bool,
) -> History:
    """Windows of earlier values.

    keys, values, ts   [R] raw keys, what is collected, time in ms
    train, positive    [R] rows of the train part; rows that may be collected at all (the label is > 0)
    beyond_train       rows that are not train see every earlier row (time and user splits)
    """
    lookup = Lookup(keys.drop_nulls().unique(maintain_order=True))
    code = lookup.find(keys)
    instants, rank = np.unique(ts, return_inverse=True)
    stride = len(instants) + 1
    moment = code * stride + rank  # one number that sorts by key, then time  # [R]
    source = positive & (code >= 0) & values.is_not_null().to_numpy()
    size = len(lookup)

    def windows(sources: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        at = np.flatnonzero(sources)
        order = at[np.argsort(moment[at], kind="stable")]
        sorted_ = moment[order]
        starts = np.searchsorted(sorted_, np.arange(size + 1) * stride)  # first source of each key
        high = np.searchsorted(sorted_, moment)  # sources strictly before
        high = np.where(code >= 0, high, 0)
        low = np.maximum(np.where(code >= 0, starts[np.maximum(code, 0)] if size else 0, 0), high - setting.max_length)
        return order, low, high, np.maximum(starts[:-1], starts[1:] - setting.max_length), starts[1:]

    order, low, high, final_low, final_high = windows(source & train)
    if beyond_train:
        wide, low_, high_, _, _ = windows(source)
        low, high = np.where(train, low, low_ + len(order)), np.where(train, high, high_ + len(order))
        order = np.concatenate([order, wide])
    return History(values.gather(order), low, high, final_low, final_high, lookup)


def _coded(keys: pl.Series, train: NDArray[np.bool_]) -> tuple[Lookup, Ints, NDArray[np.bool_]]:
    """The distinct keys, each row's number among them (-1: missing), and the rows that are counted."""
    lookup = Lookup(keys.drop_nulls().unique(maintain_order=True))
    code = lookup.find(keys).astype(np.int64)
    return lookup, code, train & (code >= 0)


def _folds(rows: int) -> Ints:
    """The fold of each row: the same on every machine, and of nothing but its position."""
    return (uniform(np.arange(rows), FOLD_SEED) * FOLDS).astype(np.int64)


def _with(code: Ints, group: Ints, use: NDArray[np.bool_], labels: Floats) -> tuple[Floats, Floats]:
    """Sum and number of the labels of rows in `use` that share a row's code and group.  # [R], [R]"""
    _, at = np.unique(code * (int(group.max(initial=0)) + 1) + group, return_inverse=True)
    size = int(at.max(initial=-1)) + 1
    sums = np.bincount(at[use], weights=labels[use], minlength=size).astype(np.float64)
    return sums[at], np.bincount(at[use], minlength=size).astype(np.float64)[at]


def _before(code: Ints, ts: Ints, use: NDArray[np.bool_], labels: Floats, size: int) -> tuple[Floats, Floats]:
    """Sum and number of the labels of rows in `use` with a row's code (-1: none) and an earlier time.  # [R], [R]"""
    instants, rank = np.unique(ts, return_inverse=True)
    moment = code * (len(instants) + 1) + rank
    at = np.flatnonzero(use)
    order = at[np.argsort(moment[at], kind="stable")]
    total = np.concatenate([[0.0], np.cumsum(labels[order])])
    first = np.searchsorted(moment[order], np.arange(size) * (len(instants) + 1))
    known = np.maximum(code, 0)
    low, high = (first[known] if size else known), np.searchsorted(moment[order], moment)
    there = code >= 0
    return np.where(there, total[high] - total[np.where(there, low, 0)], 0.0), np.where(there, high - low, 0).astype(np.float64)


def _smooth(sums: Floats, n: Floats, mean: Floats, smoothing: float) -> Floats:
    weight = n + smoothing
    return np.where(weight > 0, (sums + smoothing * mean) / np.where(weight > 0, weight, 1.0), mean)
