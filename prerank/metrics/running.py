"""Metrics of a stream: over its last rows, and whether the loss has begun to rise.

    running = Running(("click",), window=20_000)
    running.add(logits, labels)                     # as each batch was predicted, before it was learned from
    running.measure()["click"]                      # {"auc": .., "logloss": .., "calibration": .., "rate": ..}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prerank.metrics.classification import auc, logloss, sigmoid


class Running:
    """The last `window` rows of each objective, in a ring.

    rows   seen since the beginning
    """

    def __init__(self, objectives: Sequence[str], window: int) -> None:
        """Raises ValueError for a window of fewer than two rows."""
        if window < 2:
            raise ValueError(f"window: must be at least 2 rows; got {window}")
        self.objectives, self.window, self.rows = tuple(objectives), window, 0
        self._logits = np.zeros((window, len(self.objectives)), np.float32)
        self._labels = np.zeros((window, len(self.objectives)), np.float32)

    def add(self, logits: ArrayLike, labels: ArrayLike) -> None:
        """Both [n, T]; a label above 0 is positive."""
        z, y = (np.asarray(a, np.float32).reshape(-1, len(self.objectives)) for a in (logits, labels))
        at = (self.rows + np.arange(len(z))) % self.window
        keep = slice(max(0, len(z) - self.window), None)  # of more rows than the window only the last ones stay
        self._logits[at[keep]], self._labels[at[keep]] = z[keep], y[keep] > 0
        self.rows += len(z)

    def measure(self) -> dict[str, dict[str, float]]:
        """By objective; NaN where one class is missing, or nothing came yet."""
        n = min(self.rows, self.window)
        found = {}
        for t, name in enumerate(self.objectives):
            z, y = self._logits[:n, t], self._labels[:n, t]
            both = 0 < y.sum() < n
            p = sigmoid(z)
            found[name] = {
                "auc": auc(z, y) if both else math.nan,
                "logloss": logloss(p, y) if n else math.nan,
                "calibration": float(p.sum() / y.sum()) if both else math.nan,
                "rate": float(y.mean()) if n else math.nan,
            }
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For a checkpoint."""
        return {"logits": self._logits, "labels": self._labels, "rows": np.array(self.rows)}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `arrays`. Raises ValueError for another window or other objectives."""
        if arrays["logits"].shape != self._logits.shape:
            raise ValueError(f"window: must be {list(self._logits.shape)} as before; the checkpoint's is {list(arrays['logits'].shape)}")
        self._logits[:], self._labels[:], self.rows = arrays["logits"], arrays["labels"], int(arrays["rows"])


class PageHinkley:
    """Whether a mean has risen: the sum of what exceeds the running mean by more than `slack` deviations, against `limit` of them.

    Page (Biometrika 1954). Values are told in running deviations, so that the settings have no unit (ours).

    >>> alarm = PageHinkley(slack=0.1, limit=5)
    >>> any(alarm.add(x) for x in [0.69, 0.70, 0.71, 0.70] * 20), any(alarm.add(0.9) for _ in range(20))
    (False, True)
    """

    WARM = 30  # values from which mean and deviation are known well enough

    def __init__(self, slack: float, limit: float) -> None:
        self.slack, self.limit = slack, limit
        self.n, self.mean, self.squares, self.above = 0, 0.0, 0.0, 0.0

    def add(self, value: float) -> bool:
        """True when the alarm is raised; it then begins anew."""
        deviation = math.sqrt(self.squares / self.n) if self.n >= self.WARM else 0.0
        if deviation > 0:
            self.above = max(0.0, self.above + (value - self.mean) / deviation - self.slack)
        self.n += 1
        apart = value - self.mean
        self.mean += apart / self.n
        self.squares += apart * (value - self.mean)
        if self.above <= self.limit:
            return False
        self.n, self.mean, self.squares, self.above = 0, 0.0, 0.0, 0.0
        return True

    def state(self) -> list[float]:
        return [float(self.n), self.mean, self.squares, self.above]

    def load(self, state: Sequence[float]) -> None:
        self.n, (self.mean, self.squares, self.above) = int(state[0]), state[1:]
