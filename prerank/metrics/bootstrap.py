"""How sure a number is: bootstrap confidence intervals, and paired ones for the difference of two models.

    interval(weighted_statistic, units, ...)     any statistic of row or group weights
    auc_interval / logloss_interval              rows resampled one by one, or whole users at a time
    grouped_interval(grouped)                    users or requests resampled
    paired(a, b, labels, groups=users)           is model a better than model b on the same rows?
    resampled(models, labels, ...)               the same for every pair of several models
    resampled_means({name: grouped, ...})        grouped metrics of the same groups, each with its interval

A resample is a vector of counts, Poisson(1) for each unit (the large-n limit of drawing n of n with
replacement; Chamandy et al. 2012), so nothing is copied or sorted again. Rows of one user are not
independent: give `groups` and whole users are drawn, which makes the interval honestly wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Auc, Floats, row_losses
from prerank.metrics.ranking import Grouped, gauc

Statistic = Callable[[NDArray], float]  # counts of units [units] -> value


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided percentile interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Metric of a minus metric of b on the same rows, its interval, and a two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Resampled:
    """One metric of several models on the same resamples.

    values   on the rows as they are
    drawn    in each resample [resamples]
    """

    values: dict[str, float]
    drawn: dict[str, Floats]

    def interval(self, name: str, level: float = 0.95) -> Interval:
        """Percentile interval of one model's metric. Raises ValueError when it has no value in any resample."""
        return _percentiles(self.drawn[name], level)

    def difference(self, a: str, b: str, level: float = 0.95) -> Difference:
        """Model a minus model b."""
        differences = self.drawn[a] - self.drawn[b]
        bounds = _percentiles(differences, level)
        known = differences[~np.isnan(differences)]
        side = min((known <= 0).sum(), (known >= 0).sum())
        p = min(1.0, 2 * (side + 1) / (len(known) + 1))  # never 0: a bootstrap of R resamples cannot say less than 1/R
        return Difference(self.values[a] - self.values[b], bounds.low, bounds.high, float(p))


def interval(statistic: Statistic, units: int, *, resamples: int = 200, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of a statistic that takes the counts of its units [units].

    Resamples in which the statistic is NaN (one class left) are not counted.
    """
    return _percentiles(_draw(lambda counts: (statistic(counts),), units, resamples, seed)[:, 0], level)


def auc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the AUC; `groups` draws whole groups of rows."""
    statistic, units = _over_units(Auc(scores, labels), groups, np.size(scores))
    return interval(statistic, units, resamples=resamples, level=level, seed=seed)


def logloss_interval(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the log loss; `groups` draws whole groups of rows."""
    return mean_interval(row_losses(probabilities, labels), groups=groups, resamples=resamples, level=level, seed=seed)


def mean_interval(values: Floats, *, groups: ArrayLike | None = None, resamples: int = 200, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean of one value a row."""
    statistic, units = _over_units(_mean_of(values), groups, len(values))
    return interval(statistic, units, resamples=resamples, level=level, seed=seed)


def grouped_interval(grouped: Grouped, *, resamples: int = 200, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of a grouped metric, over its groups."""
    return interval(grouped.mean, len(grouped.values), resamples=resamples, level=level, seed=seed)


def paired(
    a: ArrayLike,
    b: ArrayLike,
    labels: ArrayLike,
    *,
    metric: Literal["auc", "gauc", "logloss"] = "auc",
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """metric(a) - metric(b): both models see the same resamples, so what they share cancels.

    a, b     scores [n] of the two models; probabilities for logloss
    groups   users or requests [n]: drawn whole, and what GAUC averages over (gauc needs them)
    """
    return resampled({"a": a, "b": b}, labels, metric=metric, groups=groups, resamples=resamples, seed=seed).difference("a", "b", level)


def resampled(
    models: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    metric: Literal["auc", "gauc", "logloss"] = "auc",
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """A metric of several models on the same resamples, so that each is measured once however many pairs are compared.

    models   scores [n] of each; see `paired`
    """
    if metric == "gauc" and groups is None:
        raise ValueError("paired: gauc needs groups (a user or request for each row)")
    statistics, units = [], 0
    for scores in models.values():
        if metric == "gauc" and groups is not None:
            grouped = gauc(scores, labels, groups)
            statistic: Statistic = grouped.mean
            units = len(grouped.values)
        else:
            base = Auc(scores, labels) if metric == "auc" else _mean_of(row_losses(scores, labels))
            statistic, units = _over_units(base, groups, np.size(scores))
        statistics.append(statistic)
    ones = np.ones(units)
    drawn = _draw(lambda counts: tuple(s(counts) for s in statistics), units, resamples, seed)
    return Resampled({name: s(ones) for name, s in zip(models, statistics, strict=True)}, dict(zip(models, drawn.T, strict=True)))


def resampled_means(models: Mapping[str, Grouped], *, resamples: int = 1000, seed: int = 0) -> Resampled:
    """Grouped metrics on the same resamples of their groups: intervals of each, and of the difference of any two.

    All must have the same groups. One matrix product for all metrics and resamples, in blocks of bounded size.
    Raises ValueError when the numbers of groups differ, or there are fewer than two resamples.
    """
    if resamples < 2:
        raise ValueError(f"bootstrap: resamples must be at least 2, got {resamples}")
    sizes = {name: len(g.values) for name, g in models.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"bootstrap: metrics must have the same groups, got {sizes}")
    units = next(iter(sizes.values()), 0)
    weights = np.stack([np.where(np.isnan(g.values), 0.0, g.weights) for g in models.values()], axis=1)  # [G, metrics]
    values = np.stack([np.nan_to_num(g.values) for g in models.values()], axis=1)
    both = np.concatenate([weights * values, weights], axis=1)
    rng, drawn = np.random.default_rng(seed), []
    at_a_time = max(1, (1 << 23) // max(units, 1))
    for first in range(0, resamples, at_a_time):
        many = min(at_a_time, resamples - first)
        sums = _poisson(rng, many * units).reshape(many, units) @ both
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(sums[:, : len(models)] / sums[:, len(models) :])
    return Resampled({name: g.value for name, g in models.items()}, dict(zip(models, np.concatenate(drawn).T, strict=True)))


def _mean_of(values: Floats) -> Statistic:
    def mean(counts: NDArray) -> float:
        total = counts.sum()
        return float(counts @ values / total) if total > 0 else float("nan")

    return mean


def _over_units(statistic: Statistic, groups: ArrayLike | None, rows: int) -> tuple[Statistic, int]:
    """A statistic of row weights as one of group counts, and how many groups there are."""
    if groups is None:
        return statistic, rows
    names = np.asarray(groups).reshape(-1)
    if len(names) != rows:
        raise ValueError(f"bootstrap: groups and scores must be equally long, got {len(names)} and {rows}")
    distinct, group = np.unique(names, return_inverse=True)
    of_groups = statistic.of_groups(group) if isinstance(statistic, Auc) else lambda counts: statistic(counts[group])
    return of_groups, len(distinct)


def _draw(statistics: Callable[[NDArray], tuple[float, ...]], units: int, resamples: int, seed: int) -> Floats:
    """Values of the statistics in each resample [resamples, statistics]."""
    if resamples < 2:
        raise ValueError(f"bootstrap: resamples must be at least 2, got {resamples}")
    rng = np.random.default_rng(seed)
    return np.array([statistics(_poisson(rng, units)) for _ in range(resamples)])


def _poisson(rng: np.random.Generator, n: int) -> Floats:
    """Poisson(1) counts [n] by inversion of 16 random bits: ten times as fast as rng.poisson, 2e-5 from exact."""
    return _COUNTS[rng.integers(0, 1 << 16, n, dtype=np.uint16)]


def _percentiles(values: Floats, level: float) -> Interval:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        raise ValueError("bootstrap: the metric has no value in any resample; too few groups with both classes")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _counts_table() -> Floats:
    """The count for each value of 16 random bits: the inverse of Poisson(1)'s distribution function."""
    cumulative = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(9)])
    return np.searchsorted(cumulative, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float64)


_COUNTS = _counts_table()
