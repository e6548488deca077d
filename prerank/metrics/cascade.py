"""A cascade played again: the pre-ranker keeps m of the recall pool, the ranking model shows k of those.

    play = Cascade(s, t, truth=utility, groups=requests).play(keep=100, show=10)
    play.joint_recall.value      recall@10@100: of the k candidates worth most, how many are shown
    play.kept.value              ... how many outlive pre-ranking        play.shown.value   ... and, of those, ranking
    play.regret.value            share of the k best ones' worth that is lost;  play.regret_pre_ranking: by the pre-ranker alone

`truth` is what a candidate is worth: a click probability, an expected income, or a label. Without it the ranking model's own scores are
the truth, and only the pre-ranker can lose anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Floats
from prerank.metrics.consistency import non_negative, per_request
from prerank.metrics.order import Ints, Requests
from prerank.metrics.ranking import Grouped


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came through the cascade, a value a request.

    joint_recall         relevant candidates shown / relevant candidates; relevant: the k worth most, never one worth nothing
    kept                 relevant ones that the pre-ranker kept / relevant: the recall of its stage
    shown                relevant ones shown / relevant ones kept: the recall of the ranking stage
    regret               (worth of the k best - worth of the k shown) / worth of the k best; None where the truth may be negative
    regret_pre_ranking   the part of it that no ranking model could have prevented: (k best of the pool - k best of the kept) / k best
    """

    joint_recall: Grouped
    kept: Grouped
    shown: Grouped
    regret: Grouped | None
    regret_pre_ranking: Grouped | None


class Cascade:
    """Requests sorted once by both models and by the truth, played as often as is asked.

    Equal s and equal t count against the cascade: inside a tie the candidate worth least goes first. Of candidates worth the same as the
    last of the k best the truth does not mind which are shown.
    """

    def __init__(
        self, s: ArrayLike, t: ArrayLike, *, truth: ArrayLike | None = None, where: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> None:
        """s, t, truth: [n] with groups [n], or [B, C] with where [B, C]. Raises ValueError, also for a truth below 0.

        truth   worth of each; default: t, which may be negative and then has no regret
        """
        self._pool = Requests("cascade", np.shape(s), where, groups)
        self._s, self._t = self._pool.rows(s, "s"), self._pool.rows(t, "t")
        self._worth = self._t if truth is None else self._pool.rows(truth, "truth")
        if truth is not None:
            non_negative("cascade", "truth", self._worth)
        self._nothing = truth is not None  # a worth of 0 is never relevant; of the ranking model's scores the order alone counts

    def play(self, *, keep: int, show: int) -> Simulated:
        """Every request: m = keep, k = show.

        A request with no more than m candidates has no value: the pre-ranker has nothing to decide.
        Raises ValueError unless 1 <= show <= keep.
        """
        if not 1 <= show <= keep:
            raise ValueError(f"cascade: 1 <= show <= keep must hold, got show {show} and keep {keep}")
        pool, worth = self._pool, self._worth
        everything = np.ones(len(worth), bool)
        kept = self._first(everything, self._by_s, keep)
        shown = self._first(kept, self._by_t, show)
        best = self._first(everything, self._by_worth, show)
        last = np.full(len(pool.size), np.inf)
        np.minimum.at(last, pool.group[best], worth[best])  # worth of the last of the best
        above, level = worth > last[pool.group], worth == last[pool.group]
        if self._nothing:
            level &= worth > 0
        places = pool.sum(best & level)

        def relevant(there: NDArray[np.bool_]) -> Floats:
            return pool.sum(above & there) + np.minimum(pool.sum(level & there), places)

        known = pool.more_than(keep)
        total, survived, arrived = (relevant(there) for there in (everything, kept, shown))
        with np.errstate(invalid="ignore", divide="ignore"):
            joint, first, second = (per_request(part / whole, known & (whole > 0)) for part, whole in
                                    ((arrived, total), (survived, total), (arrived, survived)))  # fmt: skip
        if self._negative:
            return Simulated(joint, first, second, None, None)
        most, got, possible = (pool.sum(np.where(some, worth, 0.0)) for some in (best, shown, self._first(kept, self._by_worth, show)))
        return Simulated(joint, first, second, _regret(most, got, known), _regret(most, possible, known))

    @cached_property
    def _by_s(self) -> Ints:
        return self._pool.order(self._s, -self._worth)

    @cached_property
    def _by_t(self) -> Ints:
        return self._pool.order(self._t, -self._worth)

    @cached_property
    def _by_worth(self) -> Ints:
        return self._by_t if self._worth is self._t else self._pool.order(self._worth)

    @cached_property
    def _negative(self) -> bool:
        return bool((self._worth < 0).any())

    def _first(self, some: NDArray[np.bool_], order: Ints, count: int) -> NDArray[np.bool_]:
        """The first `count` of some candidates in each request, in that order.  # [n]"""
        there = some[order]
        before: Ints = np.cumsum(there) - there
        found = np.zeros(len(some), bool)
        found[order] = there & (before - np.repeat(before[self._pool.first], self._pool.size) < count)
        return found


def simulate(
    s: ArrayLike,
    t: ArrayLike,
    *,
    keep: int,
    show: int,
    truth: ArrayLike | None = None,
    where: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Simulated:
    """Play every request once; see `Cascade`."""
    return Cascade(s, t, truth=truth, where=where, groups=groups).play(keep=keep, show=show)


def joint_recall(
    s: ArrayLike,
    t: ArrayLike,
    k: int,
    m: int,
    *,
    truth: ArrayLike | None = None,
    where: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Grouped:
    """Joint recall@k@m through both stages; see `Simulated`."""
    return simulate(s, t, keep=m, show=k, truth=truth, where=where, groups=groups).joint_recall


def _regret(best: Floats, got: Floats, known: NDArray[np.bool_]) -> Grouped:
    return per_request(np.maximum(best - got, 0.0) / np.where(best > 0, best, np.nan), known)
