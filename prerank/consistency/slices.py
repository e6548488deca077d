"""Where a pre-ranker agrees less: cold users and items, head and tail, and each stage's negatives by themselves.

Slices of requests (cold users, others) have all metrics of ranks, averaged over their requests. Slices of candidates have

    overlap@K       of the ranking model's best K of the whole request that belong to the slice, the share among the pre-ranker's best K
    wanted@K        share of the slice in the ranking model's best K;   chosen@K   in the pre-ranker's: does it favour or starve the slice
    kendall, weighted_tau    among the slice's own candidates

and a stage's negatives, compared with the impressions alone,

    auc             does the pre-ranker put what was shown above what the stage dropped
    overlap@K, regret@K, kendall, weighted_tau, rbo    of requests cut down to these candidates
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.consistency.measure import Settings, differences, intervals
from prerank.consistency.scored import COLD, HEAD, Scored
from prerank.consistency.view import View, Whose
from prerank.metrics import Grouped, gauc

Measure = Callable[[Whose], dict[str, Grouped]]  # whose -> metrics


def measure(scored: Scored, views: Mapping[Whose, View], settings: Settings) -> dict[str, dict[str, Any]]:
    """{slice: requests, candidates, metrics, and against and difference where there is another pre-ranker}; empty slices are left out."""
    compared = views["s"].scored
    found: dict[str, dict[str, Any]] = {}
    if compared.user_events is not None:
        cold = compared.user_events <= COLD
        for name, rows in ((f"cold users (<= {COLD} train events)", cold), ("other users", ~cold)):
            _add(found, name, compared, rows, settings, _cut(compared, rows, settings))
    of_items = []
    if compared.item_events is not None:
        cold = compared.item_events <= COLD
        of_items += [(f"cold items (<= {COLD} train events)", cold), ("other items", ~cold)]
    if compared.head is not None:
        of_items += [(f"head items (top {HEAD:.0%})", compared.head), ("tail items", ~compared.head)]
    for name, rows in of_items:
        _add(found, name, compared, rows, settings, _inside(views, rows, settings))
    if scored.stage is not None:
        for stage in Stage:
            dropped = scored.stage == stage
            if stage != Stage.IMPRESSION and dropped.any():
                rows = dropped | (scored.stage == Stage.IMPRESSION)
                _add(found, f"impressions and {stage.name.lower()}", scored, rows, settings, _against_negatives(scored, rows, settings))
    return found


def _add(
    found: dict[str, dict[str, Any]], name: str, scored: Scored, rows: NDArray[np.bool_], settings: Settings, metrics: Measure
) -> None:
    if not rows.any():
        return
    first = metrics("s")
    found[name] = {"requests": len(np.unique(scored.request[rows])), "candidates": int(rows.sum()), "metrics": intervals(first, settings)}
    if scored.against is not None:
        other = metrics("against")
        found[name] |= {"against": intervals(other, settings), "difference": differences(first, other, settings)}


def _cut(scored: Scored, rows: NDArray[np.bool_], settings: Settings) -> Measure:
    """All metrics of ranks, of these candidates alone."""
    cut = scored.only(rows)
    return lambda whose: View(cut, whose).ranks(settings.at, settings.p)


def _inside(views: Mapping[Whose, View], rows: NDArray[np.bool_], settings: Settings) -> Measure:
    """A slice of candidates inside whole requests."""
    cut = views["s"].scored.only(rows)

    def metrics(whose: Whose) -> dict[str, Grouped]:
        whole, own = views[whose].both, View(cut, whose).both
        inside = whole.pool.rows(rows, "slice") > 0
        found = {}
        for k in settings.at:
            wanted, chosen = inside & (whole.rank_t < k), inside & (whole.rank_s < k)
            there, kept = whole.pool.sum(wanted), whole.pool.sum(wanted & chosen)
            long = whole.pool.more_than(k)
            ones = np.ones(len(long))
            found[f"overlap@{k}"] = Grouped(np.where(long & (there > 0), kept / np.maximum(there, 1), np.nan), ones)
            found[f"wanted@{k}"] = Grouped(np.where(long, there / k, np.nan), ones)
            found[f"chosen@{k}"] = Grouped(np.where(long, whole.pool.sum(chosen) / k, np.nan), ones)
        return found | {"kendall": own.kendall(), "weighted_tau": own.weighted_tau()}

    return metrics


def _against_negatives(scored: Scored, rows: NDArray[np.bool_], settings: Settings) -> Measure:
    """Impressions beside the candidates of one stage."""
    cut = scored.only(rows)
    assert cut.stage is not None
    shown = (cut.stage == Stage.IMPRESSION).astype(np.float64)
    both = cut.compared()

    def metrics(whose: Whose) -> dict[str, Grouped]:
        auc = gauc(getattr(cut, whose), shown, cut.request)
        found = {"auc": Grouped(auc.values, np.ones(len(auc.values)))}  # every request counts the same, as in all others here
        return found | (View(both, whose).ranks(settings.at, settings.p) if len(both.s) else {})

    return metrics
