"""Kendall's tau_b and Vigna's weighted tau of two scores, request by request, in O(n log n) and without a loop over requests.

Both are one formula. With a weight w_i + w_j for each pair of candidates, sgn of the difference of their scores s and t,

    tau = sum_{i<j} sgn_s sgn_t (w_i + w_j) / sqrt( sum_{i<j} sgn_s^2 (w_i + w_j) * sum_{i<j} sgn_t^2 (w_i + w_j) )

w = 1/2 gives tau_b (Kendall 1945). w = 1 / (rank + 1), the rank once by (s, t) and once by (t, s), averaged, gives the weighted tau
(Vigna, WWW 2015, additive hyperbolic weights): a mistake among the first costs more than one among the last.
Because weights of a pair add up, it is enough to know with how many others each candidate is discordant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prerank.metrics.classification import Floats
from prerank.metrics.order import Ints, Requests


class Concordance:
    """How two scores of the same candidates order pairs; [n] in the order of the pool's rows.

    discordant      with how many others a candidate stands one way in s and the other way in t
    rank_s, rank_t  its place by (s, t) and by (t, s)
    ties_s, ties_t, ties_both   how many others have its score
    """

    def __init__(self, pool: Requests, s: Floats, t: Floats) -> None:
        self._pool = pool
        n = len(s)
        by_s, by_t = pool.order(s, t), pool.order(t, s)
        start = pool.first[pool.group]
        self.rank_s, self.rank_t = np.empty(n, np.int64), np.empty(n, np.int64)
        self.rank_s[by_s] = self.rank_t[by_t] = np.arange(n) - start
        new_s = np.r_[True, (s[by_s][1:] != s[by_s][:-1]) | (start[1:] != start[:-1])]
        new_t = np.r_[True, (t[by_t][1:] != t[by_t][:-1]) | (start[1:] != start[:-1])]
        new_both = new_s | np.r_[True, t[by_s][1:] != t[by_s][:-1]]
        self.ties_s, self.ties_t, self.ties_both = (_run_sizes(new, order) - 1 for new, order in
                                                    ((new_s, by_s), (new_t, by_t), (new_both, by_s)))  # fmt: skip
        level = np.empty(n, np.int64)  # of t: 0 is the request's highest, equal scores share one
        runs = np.cumsum(new_t)
        level[by_t] = runs - runs[start]
        self.discordant = np.empty(n, np.int64)
        for rows in pool.blocks():
            self.discordant[by_s[rows]] = inversions(level[by_s[rows]], start[rows] - rows.start)

    def tau(self, weight: Floats) -> Floats:
        """NaN where one of the scores is the same for all candidates.  # [n] -> [R]"""
        pool = self._pool
        total, s, t, both = (pool.sum(weight * ties) for ties in (pool.size[pool.group] - 1.0, self.ties_s, self.ties_t, self.ties_both))
        untied = (total - s) * (total - t)
        concordant = total - s - t + both - 2 * pool.sum(weight * self.discordant)
        some = pool.sum(self.ties_s < pool.size[pool.group] - 1) * pool.sum(self.ties_t < pool.size[pool.group] - 1) > 0
        return np.clip(np.where(some, concordant, np.nan) / np.sqrt(np.where(some, untied, 1.0)), -1.0, 1.0)

    def kendall(self) -> Floats:
        return self.tau(np.full(len(self.rank_s), 0.5))

    def weighted(self) -> Floats:
        return (self.tau(1 / (self.rank_s + 1.0)) + self.tau(1 / (self.rank_t + 1.0))) / 2


def inversions(values: Ints, start: Ints) -> Ints:
    """How many larger values stand before each value plus how many smaller ones after it, inside its list.  # [n], [n] -> [n]

    values   small integers from 0, lists one after another
    start    where each one's list begins

    From the highest bit to the lowest: of two values that agree in the higher bits, the one with the bit is the larger. A stable
    partition by the bit then brings equal values together, as a radix sort does; each level is a few passes.
    """
    n, small = len(values), np.int32  # half the memory to move
    values, start, at = values.astype(small), start.astype(small), np.arange(n, dtype=small)
    found, place = np.zeros(n, np.int64), at
    for bit in range(int(values.max()).bit_length() - 1, -1, -1):
        one = (values >> bit) & 1
        before = np.cumsum(one, dtype=small) - one
        ones_before = before - before[start]
        heads = np.flatnonzero(start == at)
        sizes = np.diff(np.r_[heads, n]).astype(small)
        zeros = np.repeat(sizes - np.add.reduceat(one, heads), sizes)
        zeros_before = at - start - ones_before
        is_one = one.astype(bool)
        found[place] += np.where(is_one, zeros - zeros_before, ones_before)
        middle = start + zeros
        to = np.where(is_one, middle + ones_before, start + zeros_before)
        values, start, place = _moved(values, to), _moved(np.where(is_one, middle, start), to), _moved(place, to)
    return found


def _moved(values: NDArray, to: NDArray) -> NDArray:
    found = np.empty_like(values)
    found[to] = values
    return found


def _run_sizes(new: NDArray[np.bool_], order: Ints) -> Ints:
    """Size of the run that each row lies in; `new` marks where runs begin among the rows in that order.  # [n]"""
    heads = np.flatnonzero(new)
    sizes = np.diff(np.r_[heads, len(new)])
    found = np.empty(len(new), np.int64)
    found[order] = np.repeat(sizes, sizes)
    return found
