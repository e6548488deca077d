"""Metrics of pooled rows: does a higher score mean a positive, and does a probability mean what it says.

    auc(scores, labels)                       P(a positive scores above a negative), ties count half
    logloss(probabilities, labels)            mean of -log P(the label)
    rela_impr(auc, base)                      how much more than a base a model adds to a coin
    ece(probabilities, labels)                how far predicted and observed rates lie apart, over bins
    calibration_ratio(probabilities, labels)  sum predicted / sum observed; 1 is right on average

Everything takes arrays [n] and returns a float; weights, where taken, are non-negative [n].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Binning = Literal["width", "frequency"]


class Auc:
    """AUC of fixed scores and labels as a function of row weights: sorted once, asked many times.

    A bootstrap re-weights the same rows hundreds of times; sorting them again each time would be
    nearly all of its cost.

    >>> Auc([.1, .4, .35, .8], [0, 0, 1, 1])()
    0.75
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        s, y = pair("auc", "scores", scores, labels)
        positive = binary("auc", y)
        self._order = np.argsort(s, kind="stable")  # [n]
        ranked = s[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # first row of each run of ties
        self._tied = len(self._starts) < len(s)
        self._positive = positive[self._order].astype(np.float64)

    def __call__(self, weight: NDArray | None = None) -> float:
        """Weighted AUC in O(n); NaN when the weights leave only one class.

        sum over runs of ties of P_run * (N_below + N_run / 2), divided by P * N
        """
        if weight is None:
            positive, negative = self._positive, 1.0 - self._positive
        else:
            w = np.asarray(weight, np.float64)[self._order]
            positive = w * self._positive
            negative = w - positive
        if self._tied:
            positive = np.add.reduceat(positive, self._starts)
            negative = np.add.reduceat(negative, self._starts)
        total_positive, total_negative = positive.sum(), negative.sum()
        if total_positive <= 0 or total_negative <= 0:
            return float("nan")
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / (total_positive * total_negative))

    def of_groups(self, group: NDArray) -> Callable[[NDArray], float]:
        """AUC as a function of the groups' weights, a row's being its group's; group [n] are integers from 0 on.

        A bootstrap over users asks thousands of times. Here a weight is gathered once a row, already in order of score, and all that is
        written is written where it was before: a fifth of the time of gathering, sorting and summing in arrays that come and go.
        """
        ranked, positive = np.asarray(group)[self._order], self._positive > 0
        of_positive, of_negative = ranked[positive], ranked[~positive]
        run = np.repeat(np.arange(len(self._starts)), np.diff(np.r_[self._starts, len(ranked)]))  # of ties
        lower, upper = (np.searchsorted(run[~positive], run[positive], side) for side in ("left", "right"))  # negatives below; not above
        tied = np.flatnonzero(lower != upper)
        p, n, at = np.empty(len(of_positive)), np.zeros(len(of_negative) + 1), np.empty(len(of_positive))

        def weighted(weights: NDArray) -> float:
            weights = np.asarray(weights, np.float64)
            np.take(weights, of_positive, out=p, mode="clip")
            np.take(weights, of_negative, out=n[1:], mode="clip")
            np.cumsum(n, out=n)
            total = p.sum() * n[-1]
            if total <= 0:
                return float("nan")
            np.take(n, lower, out=at, mode="clip")
            at[tied] = (at[tied] + n[upper[tied]]) / 2
            return float(p @ at / total)

        return weighted


def auc(scores: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve, O(n log n), tied scores by average rank.

    Raises ValueError when a class is missing, a score is NaN or a label is not 0 or 1.

    >>> auc([1., 2., 2., 3.], [0, 0, 1, 1])  # (1 + 1/2 + 1 + 1) / 4
    0.875
    """
    return Auc(scores, labels)(None if weight is None else np.asarray(weight))


def logloss(probabilities: ArrayLike, labels: ArrayLike, *, clip: float = 1e-7) -> float:
    """Mean of -(y log p + (1-y) log(1-p)); p is kept `clip` away from 0 and 1 so that one row cannot be infinite.

    Labels may be soft, anywhere in [0, 1].
    """
    return float(row_losses(probabilities, labels, clip=clip).mean())


def row_losses(probabilities: ArrayLike, labels: ArrayLike, *, clip: float = 1e-7) -> Floats:
    """The log loss of each row [n]: what a bootstrap averages."""
    p, y = pair("logloss", "probabilities", probabilities, labels)
    _unit("logloss", "probabilities", p)
    _unit("logloss", "labels", y)
    p = np.clip(p, clip, 1 - clip)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def rela_impr(auc: float, base: float) -> float:
    """RelaImpr (Yan et al. 2014): (AUC - 1/2) / (AUC_base - 1/2) - 1; a coin, at 1/2, is worth nothing.

    >>> round(rela_impr(.80, .75), 6)
    0.2
    """
    if base == 0.5:
        raise ValueError("rela_impr: a base AUC of 0.5 has nothing to improve upon")
    return (auc - 0.5) / (base - 0.5) - 1


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier 1950)."""
    p, y = pair("brier", "probabilities", probabilities, labels)
    _unit("brier", "probabilities", p)
    return float(np.mean((p - y) ** 2))


def calibration_ratio(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Sum of predictions over number of positives: 1.1 predicts 10 % too many; infinite without a positive."""
    p, y = pair("calibration_ratio", "probabilities", probabilities, labels)
    observed = y.sum()
    return float(p.sum() / observed) if observed > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of predictions that hold a row: mean prediction, mean label and number of rows of each [bins]."""

    predicted: Floats
    observed: Floats
    count: NDArray[np.int64]


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15, by: Binning = "width") -> Reliability:
    """Predicted against observed rate in bins of equal width on [0, 1], or of equal frequency.

    Bins of equal frequency never split equal predictions, so there may be fewer of them.
    """
    p, y = pair("reliability", "probabilities", probabilities, labels)
    _unit("reliability", "probabilities", p)
    if bins < 1:
        raise ValueError(f"reliability: bins must be at least 1, got {bins}")
    if by == "width":
        bin_of = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)  # (lower, upper], as Guo et al. 2017
    else:
        edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
        bin_of = np.searchsorted(edges, p, side="left")
    count = np.bincount(bin_of)
    full = count > 0
    n = count[full]
    return Reliability(np.bincount(bin_of, p)[full] / n, np.bincount(bin_of, y)[full] / n, n)


def ece(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15, by: Binning = "width") -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): mean over rows of |predicted - observed| of their bin."""
    r = reliability(probabilities, labels, bins=bins, by=by)
    return float(np.average(np.abs(r.predicted - r.observed), weights=r.count))


def roc(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """The ROC curve's corners, from (0, 0) to (1, 1): false and true positive rates, one point per distinct score."""
    s, y = pair("roc", "scores", scores, labels)
    positive = binary("roc", y)
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])  # last row of each run of ties
    hits = np.cumsum(positive[order])[last]
    misses = last + 1 - hits
    return np.r_[0.0, misses / misses[-1]], np.r_[0.0, hits / hits[-1]]


def sigmoid(logits: ArrayLike) -> Floats:
    """Logits [n] -> probabilities [n] in float64, without overflow at either end."""
    x = np.asarray(logits, np.float64)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def pair(metric: str, name: str, values: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 [n], same length, not empty, no NaN; raises ValueError naming the metric otherwise."""
    v, y = np.asarray(values, np.float64).reshape(-1), np.asarray(labels, np.float64).reshape(-1)
    if len(v) != len(y):
        raise ValueError(f"{metric}: {name} and labels must be equally long, got {len(v)} and {len(y)}")
    if len(v) == 0:
        raise ValueError(f"{metric}: needs at least one row, got none")
    for what, array in ((name, v), ("labels", y)):
        bad = np.isnan(array)
        if bad.any():
            raise ValueError(f"{metric}: {what} must be numbers, {bad.sum()} are NaN, first at row {bad.argmax()}")
    return v, y


def binary(metric: str, labels: Floats) -> NDArray[np.bool_]:
    """Labels as booleans; raises ValueError unless they are 0 and 1 and both occur."""
    positive = labels == 1
    bad = ~positive & (labels != 0)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{metric}: labels must be 0 or 1, {bad.sum()} are not, first at row {row}: {labels[row]:g}")
    if positive.all() or not positive.any():
        raise ValueError(f"{metric}: needs both classes, got only {int(positive[0])}s (n={len(labels)})")
    return positive


def _unit(metric: str, name: str, values: Floats) -> None:
    bad = (values < 0) | (values > 1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{metric}: {name} must lie in [0, 1], {bad.sum()} do not, first at row {row}: {values[row]:g}")
