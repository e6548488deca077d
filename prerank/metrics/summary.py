"""All that is asked of a model's predictions on one set of rows, in one frozen record.

evaluate(logits, labels, groups=users)                     fast: after every epoch
evaluate(logits, labels, groups=users, resamples=200)      with confidence intervals: the last look
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from prerank.metrics.bootstrap import Interval, auc_interval, grouped_interval, mean_interval
from prerank.metrics.classification import Floats, auc, calibration_ratio, ece, pair, row_losses, sigmoid
from prerank.metrics.ranking import gauc


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one model says of one set of rows.

    calibration   sum predicted / number of positives
    gauc          None when no groups were given, NaN when no group has both classes
    *_ci          95 % bootstrap intervals, None when not asked for
    """

    rows: int
    positives: float
    auc: float
    logloss: float
    ece: float
    calibration: float
    gauc: float | None = None
    groups: int | None = None
    gauc_skipped: int | None = None
    auc_ci: Interval | None = None
    logloss_ci: Interval | None = None
    gauc_ci: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; what was not asked for is left out, intervals are [low, high]."""
        plain = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: [v["low"], v["high"]] if isinstance(v, dict) else v for k, v in plain.items()}

    def __str__(self) -> str:
        text = f"AUC {self.auc:.4f}  LogLoss {self.logloss:.4f}  ECE {self.ece:.4f}"
        return text if self.gauc is None else f"{text}  GAUC {self.gauc:.4f}"


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    kind: Literal["logits", "probabilities"] = "logits",
    groups: ArrayLike | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Metrics:
    """Measure predictions [n] against labels [n] of 0 and 1.

    kind        what the scores are; log loss is taken from logits directly, so that it is never clipped
    groups      user or request of each row [n]: gives GAUC, and whole groups are what a bootstrap draws
    resamples   0: no confidence intervals

    Raises ValueError when a class is missing or a score is NaN.
    """
    s, y = pair("evaluate", "scores", scores, labels)
    if kind == "probabilities":
        probabilities, losses = s, row_losses(s, y)
    else:
        probabilities, losses = sigmoid(s), _losses_of_logits(s, y)
    grouped = None if groups is None else gauc(s, y, groups)
    asked = resamples > 0
    return Metrics(
        rows=len(s),
        positives=float(y.sum()),
        auc=auc(s, y),
        logloss=float(losses.mean()),
        ece=ece(probabilities, y),
        calibration=calibration_ratio(probabilities, y),
        gauc=grouped.value if grouped else None,
        groups=len(grouped.values) if grouped else None,
        gauc_skipped=grouped.skipped if grouped else None,
        auc_ci=auc_interval(s, y, groups=groups, resamples=resamples, seed=seed) if asked else None,
        logloss_ci=mean_interval(losses, groups=groups, resamples=resamples, seed=seed) if asked else None,
        gauc_ci=grouped_interval(grouped, resamples=resamples, seed=seed)
        if asked and grouped and grouped.skipped < len(grouped.values)
        else None,
    )


def _losses_of_logits(logits: Floats, labels: Floats) -> Floats:
    """log(1 + e^x) - y x, which neither overflows nor loses the tails [n]."""
    return np.logaddexp(0.0, logits) - labels * logits
