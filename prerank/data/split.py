"""Which rows are for fitting (0), for choosing (1), and for the one last look (2).

random   by a hash of the row's number in the log under the seed: the same on every machine, in any batch size, and
         rows that are dropped move no other row
user     by a hash of the raw user id: all rows of a user are on one side
request  by a hash of the raw request: its rows stay together
time     by moments, or by fractions of the rows in order of time (rows of one instant stay together)
column   as a column of the log says: 0, 1 or 2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.config import Split
from prerank.data.errors import DataError
from prerank.data.hashing import of_values, uniform
from prerank.data.timestamps import Timestamps
from prerank.data.values import Place, as_type, not_null, row

TRAIN, VALIDATION, TEST = 0, 1, 2
NAMES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_CHUNKS = Callable[[], Iterator[NDArray[np.int64]]]  # a walk over all times, in chunks


class Splitter:
    """Assigns rows of a batch, knowing nothing of other batches (but for the two cuts in time)."""

    def __init__(self, split: Split, cuts: tuple[float, float] | None = None) -> None:
        """cuts   time: first ms of validation and of test; see `time_cuts`"""
        self.split, self.cuts = split, cuts

    def assign(self, numbers: NDArray[np.int64], users: pl.Series, ts: NDArray[np.int64] | None,
               requests: pl.Series | None = None) -> NDArray[np.uint8]:  # fmt: skip
        """Row numbers [n] in the log, raw user ids [n], times [n] in ms, raw requests [n] -> uint8 [n]."""
        if self.split.kind == "time":
            assert ts is not None
            assert self.cuts is not None
            first, second = self.cuts
            return np.where(ts >= second, TEST, np.where(ts >= first, VALIDATION, TRAIN)).astype(np.uint8)
        if self.split.kind == "request":
            assert requests is not None
            keys = of_values(requests)
        else:
            keys = numbers.view(np.uint64) if self.split.kind == "random" else of_values(users)
        u = uniform(keys, self.split.seed)
        test, validation = float(self.split.test), float(self.split.validation)
        return np.where(u < test, TEST, np.where(u < test + validation, VALIDATION, TRAIN)).astype(np.uint8)


def by_column(values: pl.Series, place: Place = row) -> NDArray[np.uint8]:
    """A split that the log itself holds: 0, 1 or 2 [n] -> uint8 [n]. Raises DataError at anything else."""
    what = f"split.column '{values.name}'"
    split = not_null(as_type(values, pl.Int64(), what, place), what, place).to_numpy()
    wrong = np.flatnonzero((split < TRAIN) | (split > TEST))
    if len(wrong):
        first = f"first at {place(int(wrong[0]))}: {split[wrong[0]]}"
        raise DataError(f"{what}: must be 0 (train), 1 (validation) or 2 (test); {len(wrong)} are not, {first}")
    return split.astype(np.uint8)


def check(split: Split, has_time: bool, has_request: bool = False) -> str | None:
    """A sentence when the settings cannot be followed."""
    if split.kind == "request" and not has_request:
        return "split.kind: request needs data.request, the column that names it"
    if split.kind == "time" and not has_time:
        return "split.kind: time needs data.time, the column of the event's time"
    fractions = [v for v in (split.validation, split.test) if isinstance(v, (int, float))]
    if sum(fractions) >= 1:
        return f"split: validation {split.validation} and test {split.test} leave no rows to train on"
    return None


def time_cuts(split: Split, clock: Timestamps, chunks: _CHUNKS) -> tuple[float, float]:
    """First ms of validation and of test. Raises DataError when they are in the wrong order.

    chunks   walks over the times of all kept rows; called a few times, and only when a fraction is asked for
    """
    rows = sum(len(c) for c in chunks()) if not all(isinstance(v, str) for v in (split.validation, split.test)) else 0

    def cut(value: float | str, what: str, end: float) -> float:
        """The moment, or the time of the first row after which `value` of all rows come before `end`."""
        if isinstance(value, str):
            return clock.moment(value, f"split.{what}")
        before = sum(int((c < end).sum()) for c in chunks())
        rank = before - round(value * rows)
        if value == 0 or rank >= before:
            return end
        return quantile(chunks, max(rank, 0))

    second = cut(split.test, "test", float("inf"))
    first = cut(split.validation, "validation", second)
    if first > second:
        raise DataError(f"split: validation ({split.validation}) must begin before test ({split.test})")
    return first, second


def quantile(chunks: _CHUNKS, rank: int) -> float:
    """The value at a rank (from 0) in sorted order, exactly, by narrowing histograms: memory does not grow with the rows."""
    low = min(int(c.min()) for c in chunks() if len(c))
    high = max(int(c.max()) for c in chunks() if len(c))
    while low < high:
        step = (high - low) // 65536 + 1
        histogram = np.zeros(65537, np.int64)
        for chunk in chunks():
            inside = chunk[(chunk >= low) & (chunk <= high)]
            histogram += np.bincount((inside - low) // step, minlength=65537)
        reach = np.cumsum(histogram)
        bin_ = int(np.searchsorted(reach, rank, side="right"))
        rank -= int(reach[bin_ - 1]) if bin_ else 0
        low, high = low + bin_ * step, min(low + bin_ * step + step - 1, high)
    return low
