"""Tables and pictures of results; matplotlib and rich are loaded only when one is made."""

from prerank.report.intervals import bands, counts, forest
from prerank.report.plots import bars, latency, reliability_curve, roc_curve, training_curve
from prerank.report.scatter import against, clouds, pareto
from prerank.report.tables import Column, Spread, Table, spread
from prerank.report.timeline import over_time

__all__ = [
    "Column",
    "Spread",
    "Table",
    "against",
    "bands",
    "bars",
    "clouds",
    "counts",
    "forest",
    "latency",
    "over_time",
    "pareto",
    "reliability_curve",
    "roc_curve",
    "spread",
    "training_curve",
]
