"""What the page draws: overlap, regret and joint recall over a range of K, and how overlap is spread over requests.

    curves(views, settings)   {"s": {"overlap": [[k, value, low, high], ...], "regret": ..., "joint_recall": ...}, "against": ...,
                               "histogram": {"k": 100, "bins": [...], "s": [...]}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prerank.consistency.measure import Settings, intervals
from prerank.consistency.view import View, Whose

POINTS = 12
LONG_ENOUGH = 0.9  # of the requests have a value at every point


def curves(views: Mapping[Whose, View], settings: Settings) -> dict[str, Any]:
    """Points of each pre-ranker, with intervals; plain values. Without a point where requests are too short."""
    sizes = np.unique(views["s"].scored.request, return_counts=True)[1]
    longest = int(np.quantile(sizes, 1 - LONG_ENOUGH, method="lower")) - 1
    found: dict[str, Any] = {whose: _points(view, settings, longest) for whose, view in views.items()}
    k = max((k for k in settings.at if k <= longest), default=None)
    if k is not None:
        bins = np.linspace(0, 1, 21)
        overlaps = {whose: view.both.overlap(k).values for whose, view in views.items()}
        counts = {whose: np.histogram(values[~np.isnan(values)], bins)[0].tolist() for whose, values in overlaps.items()}
        found["histogram"] = {"k": k, "bins": bins.tolist(), **counts}
    return found


def _points(view: View, settings: Settings, longest: int) -> dict[str, list[list[float]]]:
    ks, kept = _spaced(1, longest), _spaced(settings.shown, longest)
    asked = {f"overlap@{k}": view.both.overlap(k) for k in ks}
    asked |= {f"regret@{k}": view.shares.regret(k) for k in ks} if view.shares else {}
    asked |= {f"joint_recall@{m}": view.cascade.play(keep=m, show=settings.shown).joint_recall for m in kept}
    points: dict[str, list[list[float]]] = {}
    for name, at in intervals(asked, settings).items():
        kind, _, k = name.partition("@")
        if at["low"] is not None:
            points.setdefault(kind, []).append([int(k), at["value"], at["low"], at["high"]])
    return points


def _spaced(low: int, high: int) -> list[int]:
    """About POINTS whole numbers from low to high, each the same factor above the one before.

    >>> _spaced(1, 4)
    [1, 2, 3, 4]
    """
    if high < low:
        return []
    return sorted({round(low * (high / low) ** (i / (POINTS - 1))) for i in range(POINTS)})
