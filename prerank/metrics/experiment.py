"""Arms of an experiment compared: rates whose unit is the user, and whether the arms got the users they should have got.

    ratio(clicks, impressions)                 sum of one over sum of the other, users being independent and rows of one user not
    difference(treatment, control, level)      of two such rates, absolute and relative, with a normal interval and a p-value
    quantile(values, 0.99, level)              a quantile and its interval from order statistics
    sample_ratio(users, shares)                p-value of a chi-square test: small when the split is not what was configured

The variance of a ratio is the delta method's (Deng, Knoblich and Lu, KDD 2018): var(R) = sum (n_u - R d_u)^2 / (U - 1) * U / (sum d)^2.
All of it is for one look at the end: whoever looks every day and stops when p is small is wrong more often than p says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.bootstrap import Difference


@dataclass(frozen=True, slots=True)
class Ratio:
    """value = sum numerator / sum denominator; variance of it; units it is of."""

    value: float
    variance: float
    units: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided, normal."""
        half = normal_quantile(level) * math.sqrt(self.variance)
        return self.value - half, self.value + half


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Ratio:
    """Sums of each unit [units] -> their ratio. NaN where the denominators sum to 0, without a variance for fewer than two units.

    >>> ratio([1, 0, 2], [4, 4, 4])
    Ratio(value=0.25, variance=0.020833333333333332, units=3)
    """
    n, d = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    total, units = float(d.sum()), len(d)
    if total == 0:
        return Ratio(math.nan, math.nan, units)
    value = float(n.sum()) / total
    variance = math.nan if units < 2 else float(((n - value * d) ** 2).sum()) / (units - 1) * units / total**2
    return Ratio(value, variance, units)


def difference(treatment: Ratio, control: Ratio, level: float = 0.95) -> tuple[Difference, Difference]:
    """Treatment minus control, and treatment / control - 1 (NaN for a control of 0).

    >>> absolute, relative = difference(Ratio(0.11, 1e-6, 100), Ratio(0.10, 1e-6, 100))
    >>> round(absolute.value, 4), round(relative.value, 4), absolute.p < 1e-9
    (0.01, 0.1, True)
    """
    apart = treatment.value - control.value
    absolute = _normal(apart, treatment.variance + control.variance, level)
    if control.value == 0 or math.isnan(control.value):
        return absolute, Difference(math.nan, math.nan, math.nan, math.nan)
    share = treatment.value / control.value
    spread = (treatment.variance + share**2 * control.variance) / control.value**2
    relative = _normal(share - 1, spread, level)
    return absolute, Difference(relative.value, relative.low, relative.high, absolute.p)


def quantile(values: ArrayLike, q: float, level: float = 0.95) -> tuple[float, float, float]:
    """The q-quantile of values [n] and its interval: the order statistics that a binomial's normal bounds name. NaN of nothing.

    >>> quantile(np.arange(1, 1002), 0.5)
    (501.0, 470.0, 533.0)
    """
    found: NDArray[np.float64] = np.sort(np.asarray(values, np.float64))
    n = len(found)
    if n == 0:
        return math.nan, math.nan, math.nan
    half = normal_quantile(level) * math.sqrt(n * q * (1 - q))
    low, high = max(math.floor(n * q - half), 0), min(math.ceil(n * q + half), n - 1)
    return float(np.quantile(found, q)), float(found[low]), float(found[high])


def sample_ratio(users: Sequence[int], shares: Sequence[float]) -> float:
    """P-value of the users of each arm [arms] against the shares they should have. Raises ValueError for shares that are not positive.

    >>> sample_ratio([500, 500], [1, 1]), sample_ratio([560, 440], [1, 1]) < 0.001
    (1.0, True)
    """
    if len(users) != len(shares) or min(shares, default=0) <= 0:
        raise ValueError(f"sample_ratio: needs a positive share for each of {len(users)} arms; got {list(shares)}")
    expected = np.asarray(shares, np.float64) / sum(shares) * sum(users)
    if len(users) < 2 or sum(users) == 0:
        return 1.0
    return chi_square_tail(float(((np.asarray(users) - expected) ** 2 / expected).sum()), len(users) - 1)


def chi_square_tail(x: float, freedom: int) -> float:
    """P(chi-square with so many degrees of freedom > x), in closed form."""
    half = x / 2
    if freedom % 2:
        tail, term = math.erfc(math.sqrt(half)), math.sqrt(half) * math.exp(-half) / math.gamma(1.5)
        powers = range(3, freedom + 1, 2)
    else:
        tail, term = math.exp(-half), math.exp(-half) * half
        powers = range(4, freedom + 1, 2)
    for degrees in powers:
        tail += term
        term *= half / (degrees / 2)
    return min(tail, 1.0)


def normal_quantile(level: float) -> float:
    """z such that a normal variable lies within +-z with this probability. Raises ValueError outside (0, 1).

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    if not 0 < level < 1:
        raise ValueError(f"level: must lie between 0 and 1; got {level}")
    return statistics.NormalDist().inv_cdf((1 + level) / 2)


def _normal(value: float, variance: float, level: float) -> Difference:
    if math.isnan(variance):
        return Difference(value, math.nan, math.nan, math.nan)
    half = normal_quantile(level) * math.sqrt(variance)
    p = math.erfc(abs(value) / math.sqrt(2 * variance)) if variance > 0 else float(value == 0)
    return Difference(value, value - half, value + half, p)
