"""Does a pre-ranker agree with the ranking model where it matters: scores s against the ranking model's t, request by request.

    overlap(s, t, k, groups=requests)            |best K of s & best K of t| / K
    hit_ratio_ecpm(s, t, bid, k, groups=...)     the same on s x bid and t x bid
    regret(s, t, k)                              share of the best K's t that choosing by s loses
    kendall(s, t)   weighted_tau(s, t)           rank correlation of all candidates; the first places count more in the second
    rbo(s, t, p)                                 rank-biased overlap: depth d counts p^d
    stage_recall(s, stage, k)                    of those that came so far in the logged cascade, how many are among the best K

Each returns a value a request (`Grouped`). Candidates come flat with a request each, `f(s [n], t [n], ..., groups=[n])`, or as padded
lists, `f(s [B, C], t [B, C], ..., where=[B, C])`. What several measures share is sorted once: `Agreement(s, t, groups=...)` has them
as methods.

Ties. Equal s count against the pre-ranker, as in metrics/ranking.py: inside a tie the candidate with the lowest t comes first. Equal t
say that the ranking model does not mind: inside such a tie the pre-ranker's own order holds, so s = t is perfect even with ties. No value
depends on the order of the rows.

A request with no more than K candidates has no value at K: everything is chosen, and any pre-ranker would look perfect. A request of
one candidate has no value at all, and a tau none where all s or all t are equal. Such requests are skipped and counted (`Grouped.skipped`).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Floats
from prerank.metrics.order import Ints, Requests
from prerank.metrics.ranking import Grouped
from prerank.metrics.tau import Concordance


class Agreement:
    """Two scores of the same candidates, sorted once, asked many times.

    >>> Agreement([[4., 3., 2., 1.]], [[.4, .1, .3, .2]]).overlap(2).value  # {0, 1} against {0, 2}
    0.5
    """

    def __init__(
        self, s: ArrayLike, t: ArrayLike, *, where: ArrayLike | None = None, groups: ArrayLike | None = None, metric: str = "agreement"
    ) -> None:
        """s, t: [n] with groups [n], or [B, C] with where [B, C]. Raises ValueError for shapes that do not fit, and for NaN."""
        self.pool = Requests(metric, np.shape(s), where, groups)
        self.s, self.t = self.pool.rows(s, "s"), self.pool.rows(t, "t")

    @cached_property
    def rank_s(self) -> Ints:
        """Place by s, in a tie the lowest t first.  # [n]"""
        return self.pool.ranks(self.s, -self.t)

    @cached_property
    def rank_t(self) -> Ints:
        """Place by t, in a tie the pre-ranker's order.  # [n]"""
        return self.pool.ranks(self.t, self.s)

    @cached_property
    def _concordance(self) -> Concordance:
        return Concordance(self.pool, self.s, self.t)

    def overlap(self, k: int) -> Grouped:
        """Share of the ranking model's best K that the pre-ranker's best K hold."""
        self._check(k)
        return self._above(k, self.pool.sum((self.rank_s < k) & (self.rank_t < k)) / k)

    def regret(self, k: int) -> Grouped:
        """(sum of t of its best K - sum of t of the pre-ranker's best K) / sum of t of its best K.

        Raises ValueError for a negative t: a share of a sum needs values that can be added up, probabilities rather than logits.
        """
        self._check(k)
        non_negative(self.pool.metric, "t", self.t)
        best = self.pool.sum(np.where(self.rank_t < k, self.t, 0.0))
        chosen = self.pool.sum(np.where(self.rank_s < k, self.t, 0.0))
        lost = np.maximum(best - chosen, 0.0)  # equal sets added in another order differ in the last bit
        return self._above(k, lost / np.where(best > 0, best, np.nan))

    def kendall(self) -> Grouped:
        """Kendall's tau_b; NaN where all s or all t are equal."""
        return self._of_two(self._concordance.kendall())

    def weighted_tau(self) -> Grouped:
        """Vigna's weighted tau (2015), additive hyperbolic, averaged over the ranks by s and by t; NaN where all s or all t are equal."""
        return self._of_two(self._concordance.weighted())

    def rbo(self, p: float = 0.9) -> Grouped:
        """Rank-biased overlap, extrapolated (Webber et al. 2010, eq. 30), of the two whole orders.

        p   how far down it looks: the expected depth is 1 / (1 - p)

        Both orders hold the same n candidates, so a candidate is shared from depth max(rank_s, rank_t) on:
        RBO = p^n + (1-p)/p sum_i sum_{d >= m_i} p^d / d.
        """
        if not 0 < p < 1:
            raise ValueError(f"{self.pool.metric}: p must lie between 0 and 1, got {p}")
        depth = np.arange(1, int(self.pool.size.max()) + 1)
        until = np.cumsum(np.r_[0.0, p**depth / depth])  # sum of p^d / d for d = 1 .. D
        deepest = np.maximum(self.rank_s, self.rank_t)
        shared = self.pool.sum(until[self.pool.size[self.pool.group]] - until[deepest])
        return self._of_two(np.minimum(p**self.pool.size + (1 - p) / p * shared, 1.0))

    def _check(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"{self.pool.metric}: k must be at least 1, got {k}")

    def _above(self, k: int, values: Floats) -> Grouped:
        return per_request(values, self.pool.more_than(k))

    def _of_two(self, values: Floats) -> Grouped:
        return self._above(1, values)


def overlap(s: ArrayLike, t: ArrayLike, k: int, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Overlap@K; see `Agreement.overlap`."""
    return Agreement(s, t, where=where, groups=groups, metric="overlap").overlap(k)


def hit_ratio_ecpm(
    s: ArrayLike, t: ArrayLike, bid: ArrayLike, k: int, *, where: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Grouped:
    """Overlap@K of s x bid and t x bid: does the pre-ranker keep what would earn most (COPR's HitRatio@K).

    s, t, bid   none negative: s and t are probabilities, since a negative logit times a bid turns the order round. Raises ValueError
    """
    return ecpm(s, t, bid, where=where, groups=groups).overlap(k)


def ecpm(s: ArrayLike, t: ArrayLike, bid: ArrayLike, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Agreement:
    """Agreement of s x bid and t x bid, none of the three negative. Raises ValueError."""
    values = {"s": np.asarray(s, np.float64), "t": np.asarray(t, np.float64), "bid": np.asarray(bid, np.float64)}
    for name, array in values.items():
        if array.shape != values["s"].shape:
            raise ValueError(f"ecpm: {name} must have the scores' shape {values['s'].shape}, got {array.shape}")
        non_negative("ecpm", name, array if where is None else array[np.asarray(where, bool)])
    return Agreement(values["s"] * values["bid"], values["t"] * values["bid"], where=where, groups=groups, metric="ecpm")


def regret(s: ArrayLike, t: ArrayLike, k: int, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Regret@K; see `Agreement.regret`."""
    return Agreement(s, t, where=where, groups=groups, metric="regret").regret(k)


def kendall(s: ArrayLike, t: ArrayLike, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Kendall's tau_b; see `Agreement.kendall`."""
    return Agreement(s, t, where=where, groups=groups, metric="kendall").kendall()


def weighted_tau(s: ArrayLike, t: ArrayLike, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Weighted tau; see `Agreement.weighted_tau`."""
    return Agreement(s, t, where=where, groups=groups, metric="weighted_tau").weighted_tau()


def rbo(s: ArrayLike, t: ArrayLike, p: float = 0.9, *, where: ArrayLike | None = None, groups: ArrayLike | None = None) -> Grouped:
    """Rank-biased overlap; see `Agreement.rbo`."""
    return Agreement(s, t, where=where, groups=groups, metric="rbo").rbo(p)


def stage_recall(
    s: ArrayLike, stage: ArrayLike, k: int, *, reached: int = 0, where: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Grouped:
    """Of the candidates that came at least to a stage of the logged cascade, the share among the pre-ranker's best K.

    stage     how far each came (batch.Stage: 0 impression, 1 ranking, 2 pre_ranking, 3 recall, 4 random)
    reached   the stage: 0 asks for what was shown, 1 for what the ranking model was given

    Requests where none or all came so far, or with no more than K candidates, have no value. Equal s count against the pre-ranker.
    """
    if k < 1:
        raise ValueError(f"stage_recall: k must be at least 1, got {k}")
    pool = Requests("stage_recall", np.shape(s), where, groups)
    came = pool.rows(stage, "stage") <= reached
    rank = pool.ranks(pool.rows(s, "s"), -came.astype(np.float64))
    there = pool.sum(came)
    with np.errstate(invalid="ignore", divide="ignore"):
        return per_request(pool.sum(came & (rank < k)) / there, pool.more_than(k) & (there > 0) & (there < pool.size))


def per_request(values: Floats, known: NDArray[np.bool_]) -> Grouped:
    """A value a request, NaN where it is not known; every request counts the same."""
    return Grouped(np.where(known, values, np.nan), np.ones(len(values)))


def non_negative(metric: str, name: str, values: Floats) -> None:
    """Raises ValueError naming the first row of a negative value."""
    bad = np.ravel(values < 0)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{metric}: {name} must not be negative (a probability, not a logit), {bad.sum()} are, "
                         f"first at row {row}: {np.ravel(values)[row]:g}")  # fmt: skip
