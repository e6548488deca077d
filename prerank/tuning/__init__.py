"""Tuning: settings searched on validation, within a latency budget, in a folder that a killed search goes on from."""

from prerank.tuning.latency import p50
from prerank.tuning.search import Tuned, tune
from prerank.tuning.space import Latency, Range, Tune, load

__all__ = ["Latency", "Range", "Tune", "Tuned", "load", "p50", "tune"]
