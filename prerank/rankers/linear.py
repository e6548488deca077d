"""Logistic regression on feature values: the oldest ranker, and the floor of every table.

    logit = sum_f w_f[x_f] + b

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, trains it by FTRL-Proximal
(training.optimizer.name: ftrl).
"""

from __future__ import annotations

from collections.abc import Mapping

from prerank.rankers.ranker import Ranker, Wide, id_product
from prerank.schema import Schema


def lr(
    schema: Schema, sizes: Mapping[str, int], *, id_head: int | None = None, id_history: bool = False, embedding_std: float = 0.05
) -> Ranker:
    """Logistic regression; it has no hidden layer, so its `hidden` is None.

    id_head         width of an id head beside it (`IdProduct`); None: no id head
    id_history      the id head also knows what the ids did, see layers/history.py
    embedding_std   of the id head's vectors; weights start at 0
    """
    return Ranker(None, None, Wide(schema, sizes), id_product(schema, sizes, id_head, embedding_std, id_history))
