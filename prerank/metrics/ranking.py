"""Metrics of ranked lists: each group (a request, a user) has its own value, then they are averaged.

    gauc(scores, labels, groups)               AUC of each group, weighted by its impressions
    recall, ndcg, hit_rate, mrr, mean_average_precision

Rows come flat with a group each, `f(scores [n], labels [n], k, groups=[n])`, or as padded lists,
`f(scores [B, C], labels [B, C], k, where=[B, C])`. No loop runs over groups: rows are sorted once by
group and score, and everything else is a sum over runs.

Equal scores count against the model: inside a tie the positives come last. The value then does not
depend on the order of the rows, and a model that says the same of everything earns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Floats, pair


@dataclass(frozen=True, slots=True)
class Grouped:
    """A metric's value in each group; their weighted mean is the metric.

    values   [G], NaN where the group has no value (one class only, no positive): skipped
    weights  [G], how much each group counts
    """

    values: Floats
    weights: Floats

    @property
    def skipped(self) -> int:
        """Groups without a value."""
        return int(np.isnan(self.values).sum())

    @property
    def value(self) -> float:
        """Weighted mean over the groups that have a value; NaN when none has."""
        return self.mean()

    def mean(self, count: NDArray | None = None) -> float:
        """The weighted mean when group g occurs count[g] times: what a bootstrap over groups asks."""
        known = ~np.isnan(self.values)
        weights = self.weights[known] if count is None else self.weights[known] * count[known]
        total = weights.sum()
        return float(weights @ self.values[known] / total) if total > 0 else float("nan")

    def __repr__(self) -> str:
        return f"<Grouped {self.value:.4f} over {len(self.values) - self.skipped} groups, {self.skipped} skipped>"


def gauc(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> Grouped:
    """Grouped AUC (Zhou et al. 2018, eq. 9 of DIN): per group, weighted by its rows; ties by average rank.

    Groups of one class only have no AUC: they are skipped and counted.

    >>> gauc([.2, .9, .3, .1], [0, 1, 0, 1], [7, 7, 8, 8]).value  # group 7: 1, group 8: 0
    0.5
    """
    s, y = pair("gauc", "scores", scores, labels)
    if not np.isin(y, (0.0, 1.0)).all():
        row = int((~np.isin(y, (0.0, 1.0))).argmax())
        raise ValueError(f"gauc: labels must be 0 or 1, first other at row {row}: {y[row]:g}")
    group = dense("gauc", groups, len(s))
    order = np.lexsort((s, group))
    s, y, group = s[order], y[order], group[order]
    size = np.bincount(group)  # [G]
    first = np.cumsum(size) - size  # [G]
    new_run = np.r_[True, (s[1:] != s[:-1]) | (group[1:] != group[:-1])]
    run_start = np.flatnonzero(new_run)
    run_size = np.diff(np.r_[run_start, len(s)])
    run_rank = run_start - first[group[run_start]] + (run_size + 1) / 2  # average rank inside the group, from 1
    rank_sum = np.bincount(group, y * np.repeat(run_rank, run_size))  # [G]
    positives = np.bincount(group, y)
    pairs = positives * (size - positives)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(pairs > 0, (rank_sum - positives * (positives + 1) / 2) / pairs, np.nan)
    return Grouped(values, size.astype(np.float64))


def recall(scores: ArrayLike, labels: ArrayLike, k: int, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Recall@K: positives among the first K over all positives of the list; lists without one are skipped."""
    r = _ranked("recall", scores, labels, k, where, groups)
    return r.per_list(r.sum(r.positive & (r.rank < k)) / r.or_nan(r.positives))


def hit_rate(scores: ArrayLike, labels: ArrayLike, k: int, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """HitRate@K: 1 when a positive is among the first K; lists without one are skipped."""
    r = _ranked("hit_rate", scores, labels, k, where, groups)
    return r.per_list((r.sum(r.positive & (r.rank < k)) > 0) / r.or_nan(r.positives > 0))


def mrr(
    scores: ArrayLike, labels: ArrayLike, k: int | None = None, *, where: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Grouped:
    """Mean reciprocal rank of the first positive, 0 when it lies beyond K; lists without one are skipped."""
    r = _ranked("mrr", scores, labels, k, where, groups)
    found = r.positive & (r.rank < r.depth)
    best = np.zeros(r.lists)
    np.maximum.at(best, r.group[found], 1.0 / (r.rank[found] + 1))
    return r.per_list(best / r.or_nan(r.positives > 0))


def mean_average_precision(
    scores: ArrayLike, labels: ArrayLike, k: int | None = None, *, where: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Grouped:
    """MAP@K: mean over the list's positives of precision at their rank, 0 beyond K, divided by min(positives, K)."""
    r = _ranked("mean_average_precision", scores, labels, k, where, groups)
    hits = np.cumsum(r.positive)
    hits = hits - (hits - r.positive)[r.first][r.group]  # positives up to and including this row, inside its list
    precision = np.where(r.positive & (r.rank < r.depth), hits / (r.rank + 1), 0.0)
    return r.per_list(r.sum(precision) / r.or_nan(np.minimum(r.positives, r.depth)))


def ndcg(
    scores: ArrayLike,
    labels: ArrayLike,
    k: int | None = None,
    *,
    exponential: bool = True,
    where: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Grouped:
    """NDCG@K with graded labels: sum of gain / log2(rank + 1) over the best possible (Jarvelin & Kekalainen 2002).

    The gain is 2**label - 1 (Burges et al. 2005), or the label itself when `exponential` is off; for
    binary labels the two are the same. Lists without gain are skipped.
    """
    r = _ranked("ndcg", scores, labels, k, where, groups)
    if (r.label < 0).any():
        raise ValueError(f"ndcg: labels must not be negative, got {r.label.min():g}")
    gain = np.exp2(r.label) - 1 if exponential else r.label
    discount = np.where(r.rank < r.depth, 1 / np.log2(r.rank + 2), 0.0)
    ideal = gain[np.lexsort((-gain, r.group))]  # the same groups in the same places, each sorted by gain
    return r.per_list(r.sum(gain * discount) / r.or_nan(r.sum(ideal * discount)))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Rows sorted by list, then by falling score: label, list and rank inside the list (from 0) of each [n]."""

    label: Floats
    group: NDArray[np.int64]
    rank: NDArray[np.int64]
    first: NDArray[np.int64]  # [G] first row of each list
    depth: int

    @property
    def lists(self) -> int:
        return len(self.first)

    @property
    def positive(self) -> NDArray[np.bool_]:
        return self.label > 0

    @property
    def positives(self) -> Floats:
        """[G]"""
        return self.sum(self.positive)

    def sum(self, values: NDArray) -> Floats:
        """Sum over each list [G]."""
        return np.bincount(self.group, values, minlength=self.lists).astype(np.float64)

    @staticmethod
    def or_nan(divisor: NDArray) -> Floats:
        """A divisor whose zeros are NaN: the list has no value."""
        return np.where(divisor > 0, divisor, np.nan)

    def per_list(self, values: Floats) -> Grouped:
        return Grouped(values, np.ones(self.lists))


def _ranked(metric: str, scores: ArrayLike, labels: ArrayLike, k: int | None, where: ArrayLike | None, groups: ArrayLike | None) -> _Ranked:
    if k is not None and k < 1:
        raise ValueError(f"{metric}: k must be at least 1, got {k}")
    s, y, group = flat(metric, scores, labels, where, groups)
    order = np.lexsort((y, -s, group))  # inside a tie the positives come last
    group = group[order]
    size = np.bincount(group)
    first = np.cumsum(size) - size
    rank = np.arange(len(group)) - first[group]
    return _Ranked(y[order], group, rank, first, k or int(size.max()))


def flat(
    metric: str, scores: ArrayLike, labels: ArrayLike, where: ArrayLike | None, groups: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Rows [n] and their dense list numbers, from padded lists or from groups."""
    shape = np.shape(scores)
    if groups is not None:
        if where is not None or len(shape) != 1:
            raise ValueError(f"{metric}: groups belong to flat rows, got scores of shape {shape}")
        s, y = pair(metric, "scores", scores, labels)
        return s, y, dense(metric, groups, len(s))
    if len(shape) != 2 or np.shape(labels) != shape:
        raise ValueError(f"{metric}: needs lists [B, C] or flat rows with groups, got scores {shape} and labels {np.shape(labels)}")
    keep = np.ones(shape, bool) if where is None else np.asarray(where, bool)
    if keep.shape != shape:
        raise ValueError(f"{metric}: where must have the scores' shape {shape}, got {keep.shape}")
    s, y = pair(metric, "scores", np.asarray(scores)[keep], np.asarray(labels)[keep])
    return s, y, dense(metric, np.nonzero(keep)[0], len(s))


def dense(metric: str, groups: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Any group names [n] -> numbers 0 .. G-1, in the order of the names."""
    names = np.asarray(groups).reshape(-1)
    if len(names) != rows:
        raise ValueError(f"{metric}: groups and scores must be equally long, got {len(names)} and {rows}")
    if names.dtype.kind in "iu" and (names[1:] >= names[:-1]).all():  # already in order: no sort
        return np.cumsum(np.r_[0, names[1:] != names[:-1]][: len(names)])
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
