"""A cascade played again: the pre-ranker keeps m of the recall pool, the ranking model shows k of those.

    play = simulate(s, t, keep=100, show=10, truth=utility, groups=requests)
    play.joint_recall.value      recall@10@100: of the k candidates worth most, how many are shown
    play.kept.value              ... how many outlive pre-ranking        play.shown.value   ... and, of those, ranking
    play.regret.value            share of the k best ones' worth that is lost;  play.regret_pre_ranking: by the pre-ranker alone

`truth` is what a candidate is worth: a click probability, an expected income, or a label. Without it the ranking model's own scores are
the truth, and only the pre-ranker can lose anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import Floats
from prerank.metrics.consistency import non_negative, per_request
from prerank.metrics.order import Ints, Pool
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
    """Play every request. Equal s and equal t count against the cascade: inside a tie the candidate worth least goes first.

    s, t    scores of the pre-ranker and of the ranking model, [n] with groups [n] or [B, C] with where [B, C]
    keep    m, candidates that the pre-ranker lets through;  show: k <= m, candidates shown
    truth   worth of each, not negative; default: t, which may be negative and then has no regret

    A request with no more than m candidates has no value: the pre-ranker has nothing to decide. Raises ValueError.
    """
    if not 1 <= show <= keep:
        raise ValueError(f"simulate: 1 <= show <= keep must hold, got show {show} and keep {keep}")
    pool = Pool("simulate", np.shape(s), where, groups)
    scores, ranking = pool.rows(s, "s"), pool.rows(t, "t")
    worth = ranking if truth is None else pool.rows(truth, "truth")
    if truth is not None:
        non_negative("simulate", "truth", worth)
    kept = pool.ranks(scores, -worth) < keep
    shown = _best_of(kept, pool.order(ranking, -worth), pool, show)
    # inside a tie of worth those who came furthest: the truth does not mind which of them is shown
    by_worth = pool.order(worth, kept.astype(np.float64) + shown)
    relevant = _best_of(np.ones_like(kept), by_worth, pool, show)
    if truth is not None:
        relevant &= worth > 0
    known = pool.more_than(keep)
    total, survived, arrived = (pool.sum(relevant & there) for there in (np.ones_like(kept), kept, shown))
    with np.errstate(invalid="ignore", divide="ignore"):
        joint, first, second = (per_request(part / whole, known & (whole > 0)) for part, whole in
                                ((arrived, total), (survived, total), (arrived, survived)))  # fmt: skip
    if (worth < 0).any():
        return Simulated(joint, first, second, None, None)
    best = pool.sum(np.where(relevant, worth, 0.0))
    got = pool.sum(np.where(shown, worth, 0.0))
    possible = pool.sum(np.where(_best_of(kept, by_worth, pool, show), worth, 0.0))
    return Simulated(joint, first, second, _regret(best, got, known), _regret(best, possible, known))


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
    """Joint recall@k@m through both stages; see `simulate`."""
    return simulate(s, t, keep=m, show=k, truth=truth, where=where, groups=groups).joint_recall


def _best_of(some: NDArray[np.bool_], order: Ints, pool: Pool, count: int) -> NDArray[np.bool_]:
    """The first `count` of some candidates in each request, in that order.  # [n]"""
    there = some[order].astype(np.int64)
    before = np.cumsum(there) - there
    found = np.zeros(len(some), bool)
    found[order] = (there > 0) & (before - before[pool.first[pool.group]] < count)
    return found


def _regret(best: Floats, got: Floats, known: NDArray[np.bool_]) -> Grouped:
    return per_request(np.maximum(best - got, 0.0) / np.where(best > 0, best, np.nan), known)
