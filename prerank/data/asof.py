"""Running statistics of keys (a user, an author, a user and a tab), as of the moment of each row.

    weight   sum of 2^(-(t - t_i) / half-life) over the key's impressions i with t_i < t      (without a half-life: their number)
    total    the same sum of label_i * 2^(..), over those whose label is known: t_i + delay < t

    with a label   log odds of (total + smoothing p) / (weight + smoothing),  p the running mean of all impressions, begun at 1/2
    without        log(1 + weight);   since_last   log(1 + seconds since the key's last impression), missing before the first

Read before written: a row sees nothing of its own moment, of a later one, or of another row of the same moment. Sums run inside a key
(`scan`), so that what happens to one key cannot move another's by as much as a rounding, and a row's values are the same bits
whatever its own label is. For the same reason values with a label are no further standardised: mean and deviation of a column hold
labels that were unknown when its rows were (`fit`); counts and times hold none.

Preparation holds keys, labels and times of all kept rows in memory, as `derive` does, and sorts them by key and time. `asof_state`
answers the same questions one moment after the other, for serving.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.config import AsOf, Data, milliseconds, nearest
from prerank.data.derive import Floats, Ints

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """What was known of each row's key when the row came.  # each [R]

    total, weight   of labels and of impressions, decayed
    age             ms since the key's last impression, NaN before the first
    """

    total: Floats
    weight: Floats
    age: Floats


@dataclass(frozen=True)
class Running:
    """A statistic as each row knows it, ready to be encoded.

    rows      [R] as of the row's time
    frozen    [R] of what was known when the test rows began; before them the same as `rows`
    final     [R] of the row's key, when all of train is known, at its last moment
    unknown   of a key that was never seen, at that moment
    labelled  made of labels: encoded as it is, see the module's first lines
    edges     {key column: inner edges of its bins}
    """

    rows: Floats
    frozen: Floats
    final: Floats
    unknown: float
    labelled: bool = False
    edges: dict[str, list[float]] = field(default_factory=dict)
    dtype = pl.Float64()

    def part(self, first: int, count: int) -> pl.Series:
        """Values of kept rows [first, first + count)."""
        return pl.Series(self.rows[first : first + count])

    def frozen_part(self, first: int, count: int) -> pl.Series:
        return pl.Series(self.frozen[first : first + count])

    def after(self, first: int, count: int) -> pl.Series:
        """Values after train of the keys of kept rows [first, first + count)."""
        return pl.Series(self.final[first : first + count])

    def never(self) -> pl.Series:
        """The value of a key that was never seen.  # [1]"""
        return pl.Series([self.unknown])


class Log:
    """The kept rows of a log, in order of time.

    ts       int64 [R] ms, ascending
    shown    [R] impressions: they alone are counted
    train    [R];   test   [R]
    labels   {name: [R] in [0, 1]}
    delay    ms after which a label is known
    """

    def __init__(self, ts: Ints, shown: Bools, train: Bools, test: Bools, labels: dict[str, Floats], delay: int = 0) -> None:
        self.ts, self.shown, self.train, self.test, self.labels, self.delay = ts, shown, train, test, labels, delay
        self.instant = np.cumsum(np.diff(ts, prepend=ts[:1]) > 0)  # number of each row's moment  # [R]
        self.instants = ts[np.flatnonzero(np.diff(self.instant, prepend=-1))]  # the moments themselves


class Keys:
    """The rows of each key, in order of time.

    code   [R] number of each row's key, -1 where a key column is missing
    """

    def __init__(self, code: Ints) -> None:
        self.code, self.count = code, int(code.max(initial=-1)) + 1
        self.order = np.argsort(code, kind="stable")[int((code < 0).sum()) :]


def problems(data: Data, tables: Collection[str]) -> list[str]:
    """What is wrong with the settings: a sentence each.

    tables   columns of the log and of both tables
    """
    found = []
    made = {d.name for d in data.derive}
    for n, s in enumerate(data.asof):
        what = f"statistic '{s.name}'"
        if not data.time:
            found.append(f"{what}: needs data.time, the column of the event's time")
        if s.name in tables or s.name in made or s.name in (o.name for o in data.asof[:n]):
            found.append(f"{what}: there is a column of this name already")
        if s.label is not None and s.label not in data.labels:
            found.append(f"{what}: label must be one of the labels, got '{s.label}'{nearest(s.label, data.labels)}")
        found += [f"{what}: neither the log nor a table has a column '{c}'{nearest(c, tables)}" for c in s.by if c not in tables]
        for f in data.features:
            if f.source == s.name and (f.kind != "numeric" or (s.label is not None and f.bins is not None)):
                why = "bins of a statistic with a label would be cut by labels to come" if f.bins else f"this is {f.kind}"
                found.append(f"feature '{f.name}': a running statistic is a feature of kind numeric; {why}")
    return found


def running(setting: AsOf, keys: Keys, log: Log) -> Running:
    """Rows without a key are told of one that was never seen."""
    code = keys.code
    now = as_of(setting, keys, log.shown, log, code, log.ts)
    frozen = now
    if log.test.any():
        frozen = now.copy()
        frozen[log.test] = as_of(setting, keys, log.shown & ~log.test, log, code[log.test], log.ts[log.test])
    known = log.shown & log.train
    last = int(log.ts[known][-1]) + log.delay + 1 if known.any() else 0
    final = as_of(setting, keys, known, log, np.append(np.arange(keys.count), -1), np.full(keys.count + 1, last))
    return Running(now, frozen, final[code], float(final[-1]))


def as_of(setting: AsOf, keys: Keys, use: Bools, log: Log, asked: Ints, at: Ints) -> Floats:
    """The statistic of keys `asked` [Q] at moments `at` [Q], from the rows in `use` [R]."""
    half_life = None if setting.half_life is None else float(milliseconds(setting.half_life))
    if setting.label is None:
        found = seen(keys, log, use, np.zeros(len(use)), asked, at, at, half_life)
        return np.log1p(found.age / 1000) if setting.since_last else np.log1p(found.weight)
    labels, known = log.labels[setting.label], at - log.delay
    found = seen(keys, log, use, labels, asked, known, at, half_life)
    return log_odds(found, _everyone(log, use, labels, known), setting.smoothing)


def _everyone(log: Log, use: Bools, labels: Floats, before: Ints) -> Seen:
    """What the rows in `use` [R] tell of all keys together, those strictly before `before` [Q]."""
    total, weight = (np.append(0.0, np.cumsum(np.where(use, x, 0.0))) for x in (labels, 1.0))
    high = np.searchsorted(log.ts, before)
    return Seen(total[high], weight[high], np.full(len(before), np.nan))


def log_odds(key: Seen, everyone: Seen, smoothing: float) -> Floats:
    """Log odds of a key's mean, drawn to everyone's by `smoothing` rows."""
    prior = (everyone.total + 0.5) / (everyone.weight + 1.0)
    yes, no = key.total + smoothing * prior, key.weight - key.total + smoothing * (1.0 - prior)
    return np.log(yes / np.maximum(no, 1e-12))


def seen(keys: Keys, log: Log, use: Bools, labels: Floats, asked: Ints, before: Ints, now: Ints, half_life: float | None) -> Seen:
    """What rows in `use` [R] tell of keys `asked` [Q] (-1: no key): those strictly before `before` [Q], decayed to `now` [Q]."""
    at = keys.order[use[keys.order]]
    stride = len(log.instants) + 1
    moment = keys.code[at] * stride + log.instant[at]  # one number that sorts by key, then time
    at = np.append(at, 0)  # one more, for keys of which there is nothing
    times, fresh = log.ts[at], np.append(True, keys.code[at[1:]] != keys.code[at[:-1]])
    gaps = np.where(fresh, 0, np.diff(times, prepend=times[:1]))
    decay = np.where(fresh, 0.0, 1.0 if half_life is None else np.exp2(-gaps / half_life))
    total, weight = scan(labels[at].astype(np.float64), decay), scan(np.ones(len(at)), decay)
    low = np.searchsorted(moment, np.arange(-1, keys.count) * stride)[asked + 1]
    high = np.searchsorted(moment, asked * stride + np.searchsorted(log.instants, before))
    there = (high > low) & (asked >= 0)
    last = np.where(there, high - 1, 0)
    age = np.where(there, now - times[last], 0).astype(np.float64)
    left = np.where(there, 1.0 if half_life is None else np.exp2(-age / half_life), 0.0)
    return Seen(total[last] * left, weight[last] * left, np.where(there, age, np.nan))


def scan(x: Floats, decay: Floats) -> Floats:
    """s_i = x_i + decay_i s_{i-1} for all i, decay in [0, 1]; a zero begins a new segment.  # [n], [n] -> [n]

    In sqrt(n) vectorised steps: blocks side by side, then what each block hands to the next. Nothing is subtracted and nothing grows,
    so that it is as exact as the plain loop.

    >>> scan(np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.0, 0.5, 0.5, 0.0]))
    array([1.  , 1.5 , 1.75, 1.  ])
    """
    n = len(x)
    width = math.isqrt(n) + 1
    blocks = -(-n // width)
    steps = np.zeros((2, blocks * width))
    steps[:, :n] = x, decay
    by_step = steps.reshape(2, blocks, width).transpose(0, 2, 1).copy()  # step j of every block is one row
    s, p = by_step
    for j in range(1, width):
        s[j] += p[j] * s[j - 1]
        p[j] *= p[j - 1]
    s, p = by_step.transpose(0, 2, 1).copy()
    for b in range(1, blocks):
        s[b] += p[b] * s[b - 1, -1]
    return s.reshape(-1)[:n]
