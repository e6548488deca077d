"""Logistic regression on feature values: the oldest ranker, and the floor of every table.

    logit = sum_f w_f[x_f] + b

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, trains it by FTRL-Proximal
(training.optimizer.name: ftrl).
"""

from __future__ import annotations

from collections.abc import Mapping

from prerank.rankers.ranker import Ranker, Wide
from prerank.schema import Schema


def lr(schema: Schema, sizes: Mapping[str, int]) -> Ranker:
    """Logistic regression; it has no hidden layer, so its `hidden` is None."""
    return Ranker(None, None, Wide(schema, sizes))
