"""Scored requests: candidates that a pre-ranker and the ranking model both have an opinion of, cleaned at the border.

    scored = clean(Given(request=..., s=..., t=...))
    <Scored 10000 requests, 5000000 candidates>      scored.said tells what was left out, one line a reason

What cannot be compared is left out, counted and said: candidates without a score of the pre-ranker; candidates that the ranking model never
scored (the recall of logged stages does read those); the second of a candidate that stands twice in a request; requests in which
fewer than two candidates are left, or in which the ranking model says the same of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.data import DataError

HEAD = 0.2  # of the distinct items, by train events: the head; the others are the tail
COLD = 3  # train events at most


@dataclass(frozen=True, slots=True)
class Scored:
    """n candidates; all arrays [n], None where nobody said.

    request      which request a candidate is of, any integers
    s, t         scores of the pre-ranker and of the ranking model, higher is better; NaN: none
    against      scores of another pre-ranker
    s_worth, against_worth, t_worth   the same as probabilities, for regret and eCPM; None: the scores are
    bid          what a click or the like pays, not negative
    truth        what a candidate is worth (utility as a probability, a label), not negative
    stage        how far it came in the logged cascade (batch.Stage)
    user_events, item_events   train events of its user and of its item
    head         its item is one of the most popular
    item         any integers, equal for equal items
    names        of the pre-ranker, of the ranking model, of the other pre-ranker
    said         what was left out
    """

    request: NDArray[np.int64]
    s: NDArray[np.float64]
    t: NDArray[np.float64]
    against: NDArray[np.float64] | None = None
    s_worth: NDArray[np.float64] | None = None
    against_worth: NDArray[np.float64] | None = None
    t_worth: NDArray[np.float64] | None = None
    bid: NDArray[np.float64] | None = None
    truth: NDArray[np.float64] | None = None
    stage: NDArray[np.int64] | None = None
    user_events: NDArray[np.int64] | None = None
    item_events: NDArray[np.int64] | None = None
    head: NDArray[np.bool_] | None = None
    item: NDArray[np.int64] | None = None
    names: tuple[str, str, str] = ("pre-ranker", "ranking model", "other pre-ranker")
    said: tuple[str, ...] = field(default=())

    @property
    def requests(self) -> int:
        return len(np.unique(self.request))

    def only(self, rows: NDArray[Any], *said: str) -> Scored:
        """The candidates at these rows, or where a mask [n] holds; with more said."""
        columns = {n: v[rows] for n in self.__slots__ if isinstance(v := getattr(self, n), np.ndarray)}
        return replace(self, **columns, said=(*self.said, *said))

    def compared(self) -> Scored:
        """The candidates that the ranking model has scored."""
        there = np.isfinite(self.t)
        return self if there.all() else self.only(there)

    def __repr__(self) -> str:
        return f"<Scored {self.requests} requests, {len(self.s)} candidates>"


def clean(scored: Scored) -> Scored:
    """What can be compared, requests one after another. Raises DataError: a negative bid or truth, nothing left."""
    for name in ("bid", "truth"):
        _not_negative(name, getattr(scored, name))
    scored = _without_score(scored)
    scored = _once(scored)
    scored = scored.only(np.argsort(scored.request, kind="stable"))
    unscored = int((~np.isfinite(scored.t)).sum())
    if unscored:
        scored = replace(scored, said=(*scored.said, f"{unscored:,} of {len(scored.t):,} candidates have no score of the ranking model: "
                                       "left out, but for the recall of logged stages"))  # fmt: skip
    return _with_something_to_compare(scored)


def head(item: NDArray[np.int64], events: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for candidates whose item is among the HEAD share of the distinct items with most train events; ties are all head.  # [n]"""
    _, first = np.unique(item, return_index=True)
    distinct = np.sort(events[first])[::-1]
    return events >= distinct[max(int(np.ceil(HEAD * len(distinct))) - 1, 0)]


def _not_negative(name: str, values: NDArray[np.float64] | None) -> None:
    if values is None:
        return
    bad = ~(values >= 0)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{name}: must be numbers from 0 on, {int(bad.sum()):,} are not, first at row {row + 1}: {values[row]:g}")


def _without_score(scored: Scored) -> Scored:
    """Every pre-ranker must have scored a candidate, or they are not compared on the same ones."""
    for name, values in ((scored.names[0], scored.s), (scored.names[2], scored.against)):
        missing = 0 if values is None else int((~np.isfinite(values)).sum())
        if missing:
            said = f"{missing:,} of {len(scored.s):,} candidates have no finite score of {name}: left out"
            scored = replace(scored, said=(*scored.said, said))
    keep = np.isfinite(scored.s) if scored.against is None else np.isfinite(scored.s) & np.isfinite(scored.against)
    if not keep.any():
        raise DataError(f"{scored.names[0]}: none of {len(keep):,} candidates has a score")
    return scored if keep.all() else scored.only(keep)


def _once(scored: Scored) -> Scored:
    """Of an item that stands twice in a request the one furthest in the cascade stays, else the first."""
    if scored.item is None:
        return scored
    stage = np.zeros(len(scored.s), np.int64) if scored.stage is None else scored.stage
    order = np.lexsort((stage, scored.item, scored.request))
    request, item = scored.request[order], scored.item[order]
    again = order[np.r_[False, (request[1:] == request[:-1]) & (item[1:] == item[:-1])]]
    if not len(again):
        return scored
    keep = np.ones(len(scored.s), bool)
    keep[again] = False
    return scored.only(keep, f"{len(again):,} candidates stand in their request already: left out, the one furthest in the cascade stays")


def _with_something_to_compare(scored: Scored) -> Scored:
    _, group = np.unique(scored.request, return_inverse=True)
    total = int(group.max()) + 1
    there = np.isfinite(scored.t)
    many = np.bincount(group, there, total)
    low, high = np.full(total, np.inf), np.full(total, -np.inf)
    np.minimum.at(low, group[there], scored.t[there])
    np.maximum.at(high, group[there], scored.t[there])
    none, alone, same = many == 0, many == 1, (many > 1) & (low == high)
    said = [f"{int(which.sum()):,} of {total:,} requests {why}: left out" for which, why in
            ((none, "have no candidate with a score of the ranking model"), (alone, "have one candidate to compare"),
             (same, "have the same ranking score for all candidates")) if which.any()]  # fmt: skip
    keep = ~(none | alone | same)
    if not keep.any():
        raise DataError("scored requests: no request has two candidates that the ranking model tells apart"
                        + "".join(f"\nscored requests: {line}" for line in (*scored.said, *said)))  # fmt: skip
    return scored.only(keep[group], *said) if said else scored


def stages(values: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """Numbers that are stages. Raises DataError naming the first that is none."""
    bad = (values < 0) | (values > max(Stage))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{what}: must be 0 to {max(Stage):d} or one of {', '.join(s.name.lower() for s in Stage)}; "
                        f"got {values[row]} at row {row + 1}")  # fmt: skip
    return values
