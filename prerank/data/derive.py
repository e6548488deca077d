"""Columns made from the log itself without looking into the future.

    target_mean   (sum of the label over other train rows of the key + smoothing * overall mean) / (their number + smoothing);
                  a train row's own label is left out, of the overall mean too
    count         number of other train rows of the key
    history       the key's earlier values, strictly before the row's time, most recent last

Where a history may look: rows of a random split and train rows see train rows only; validation and test rows of
a time or user split see every earlier row, as they would when serving. An entity's value for serving
is that of the whole train part.

NOTE leave-one-out is no shield: among the rows of ONE key the positives have the slightly lower mean, and a model that also knows the
key reads the label off it. On labels drawn by lot a deepfm with the item's id and its mean came to a train loss of .07, without the mean
to .66; smoothing and bins do not hide it. No other split is touched, but what is learned is no use there: `prerank validate` warns.

NOTE memory: these look across the whole log, so keys, labels, times and collected values of all kept rows are held in
memory while preparing (about 50 bytes a row and derived column); the other parts of preparation never do that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prerank.config import Derived
from prerank.data.lookup import Lookup

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


def statistic(setting: Derived, keys: pl.Series, train: NDArray[np.bool_], labels: Floats | None) -> Statistic:
    """target_mean (labels [R]) or count (labels None) of raw keys [R], from rows where `train` [R]."""
    lookup = Lookup(keys.drop_nulls().unique(maintain_order=True))
    code = lookup.find(keys)  # [R], -1: missing
    size = len(lookup)
    use = train & (code >= 0)
    own = use.astype(np.float64)  # a row that was counted leaves itself out
    n = np.bincount(code[use], minlength=size).astype(np.float64)
    others = np.where(code >= 0, np.append(n, 0.0)[code], 0.0) - own
    if labels is None:
        return Statistic(others, n, 0.0, lookup)
    total, rows = float(labels[train].sum()), int(train.sum())
    mean = total / rows if rows else 0.0
    sums = np.bincount(code[use], weights=labels[use], minlength=size)
    # leaving the row out of the overall mean too: with it, a rare key's value would still move with the row's own label
    without = np.where(train, (total - labels) / max(rows - 1, 1), mean)
    left = np.where(code >= 0, np.append(sums, 0.0)[code], 0.0) - own * labels
    by_row = _smooth(left, others, without, setting.smoothing)
    final = _smooth(sums.astype(np.float64), n, np.full(size, mean), setting.smoothing)
    return Statistic(by_row, final, mean, lookup)


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


def _smooth(sums: Floats, n: Floats, mean: Floats, smoothing: float) -> Floats:
    weight = n + smoothing
    return np.where(weight > 0, (sums + smoothing * mean) / np.where(weight > 0, weight, 1.0), mean)
