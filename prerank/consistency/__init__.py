"""Does a pre-ranker agree with the ranking model: requests in, metrics with intervals, slices, a gate and a page out.

    scored = read("scored.parquet", Columns(score="pre_score", ranking="rank_score"))
    record = report(scored, Settings(at=(10, 100)))
"""

from __future__ import annotations

from typing import Any

from prerank.consistency import measure, slices
from prerank.consistency.curves import curves
from prerank.consistency.file import Columns, read
from prerank.consistency.gate import Bound, Thresholds, broken, check, load
from prerank.consistency.measure import Settings
from prerank.consistency.scored import Scored, clean
from prerank.consistency.view import View, Whose

__all__ = ["Bound", "Columns", "Scored", "Settings", "Thresholds", "broken", "check", "clean", "load", "read", "report"]


def report(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Metrics, slices and curves, with intervals; plain values for a JSON file."""
    compared = scored.compared()
    views: dict[Whose, View] = {"s": View(compared, "s")}
    if scored.against is not None:
        views["against"] = View(compared, "against")
    record = measure.measure(scored, views, settings)
    return {**record, "slices": slices.measure(scored, views, settings), "curves": curves(views, settings)}
