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
    resampled_means,
)
from prerank.metrics.cascade import Simulated, joint_recall, simulate
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
from prerank.metrics.consistency import (
    Agreement,
    ecpm,
    hit_ratio_ecpm,
    kendall,
    overlap,
    rbo,
    regret,
    stage_recall,
    weighted_tau,
)
from prerank.metrics.ranking import Grouped, gauc, hit_rate, mean_average_precision, mrr, ndcg, recall
from prerank.metrics.summary import Metrics, evaluate

__all__ = [
    "Agreement",
    "Auc",
    "Difference",
    "Grouped",
    "Interval",
    "Metrics",
    "Reliability",
    "Resampled",
    "Simulated",
    "auc",
    "auc_interval",
    "brier",
    "calibration_ratio",
    "ece",
    "ecpm",
    "evaluate",
    "gauc",
    "grouped_interval",
    "hit_rate",
    "hit_ratio_ecpm",
    "interval",
    "joint_recall",
    "kendall",
    "logloss",
    "logloss_interval",
    "mean_average_precision",
    "mean_interval",
    "mrr",
    "ndcg",
    "overlap",
    "paired",
    "rbo",
    "recall",
    "regret",
    "rela_impr",
    "reliability",
    "resampled",
    "resampled_means",
    "roc",
    "row_losses",
    "sigmoid",
    "simulate",
    "stage_recall",
    "weighted_tau",
]
