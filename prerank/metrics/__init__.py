"""Metrics in numpy alone: pooled rows, ranked lists, and how sure each number is.

from prerank.metrics import evaluate
evaluate(logits, labels, groups=users, resamples=200)
"""

from prerank.metrics.bootstrap import (
    Difference,
    Interval,
    Resampled,
    auc_interval,
    grouped_interval,
    interval,
    logloss_interval,
    mean_interval,
    paired,
    resampled,
)
from prerank.metrics.classification import (
    Auc,
    Reliability,
    auc,
    brier,
    calibration_ratio,
    ece,
    logloss,
    rela_impr,
    reliability,
    roc,
    row_losses,
    sigmoid,
)
from prerank.metrics.ranking import Grouped, gauc, hit_rate, mean_average_precision, mrr, ndcg, recall
from prerank.metrics.summary import Metrics, evaluate

__all__ = [
    "Auc",
    "Difference",
    "Grouped",
    "Interval",
    "Metrics",
    "Reliability",
    "Resampled",
    "auc",
    "auc_interval",
    "brier",
    "calibration_ratio",
    "ece",
    "evaluate",
    "gauc",
    "grouped_interval",
    "hit_rate",
    "interval",
    "logloss",
    "logloss_interval",
    "mean_average_precision",
    "mean_interval",
    "mrr",
    "ndcg",
    "paired",
    "recall",
    "rela_impr",
    "reliability",
    "resampled",
    "roc",
    "row_losses",
    "sigmoid",
]
