"""From a logit to a probability that can be multiplied with a bid: fitted on validation logits, stored as JSON.

    platt      p = sigmoid(a z + b)          Platt 1999; two numbers, the default
    isotonic   p = a non-decreasing staircase, straight lines between its steps; needs thousands of rows

Neither changes the order of candidates by probability; both change it by probability x bid, which is why ordering by
eCPM without a calibrator is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6  # isotonic: a probability of 0 or 1 from finitely many rows is not believed


class CalibrationError(ValueError):
    """The validation rows cannot fit a calibrator; the message says why."""


class Calibrator(Protocol):
    """logits [n] -> probabilities [n], non-decreasing."""

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float64]: ...

    def state(self) -> dict[str, Any]:
        """What JSON stores and `load` reads back."""
        ...


class Platt:
    """p = sigmoid(a z + b).

    >>> Platt(2.0, 0.0)(np.array([0.0, np.log(3) / 2])).round(2).tolist()
    [0.5, 0.75]
    """

    kind = "platt"

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    @classmethod
    def fit(cls, logits: NDArray[np.floating], labels: NDArray[np.floating]) -> Platt:
        """Newton's method on the log likelihood, with Platt's smoothed targets. Raises CalibrationError."""
        z, y = _checked(logits, labels)
        positives = y.sum()
        target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))
        center, spread = z.mean(), z.std() or 1.0
        x = np.stack([(z - center) / spread, np.ones_like(z)], 1)  # [n, 2]
        w = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
        for _ in range(100):
            p = sigmoid(x @ w)
            gradient = x.T @ (p - target)
            hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            step *= min(1.0, 4.0 / np.abs(step).max()) if step.any() else 1.0  # far from the optimum Newton overshoots
            w = w - step
            if np.abs(step).max() < 1e-10:
                break
        a = w[0] / spread
        if a <= 0:
            raise CalibrationError(f"calibration: the logits must rise with the labels, the fitted slope is {a:.3g}")
        return cls(float(a), float(w[1] - a * center))

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        z = np.multiply(logits, self.a, dtype=np.float64)
        z += self.b
        return _sigmoid(z)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "a": self.a, "b": self.b}

    def __repr__(self) -> str:
        return f"<Platt sigmoid({self.a:.4g} z {self.b:+.4g})>"


class Isotonic:
    """A non-decreasing piecewise linear function through `logits` [m] (ascending) and `probabilities` [m]."""

    kind = "isotonic"

    def __init__(self, logits: NDArray[np.float64], probabilities: NDArray[np.float64]) -> None:
        self.logits, self.probabilities = np.asarray(logits, np.float64), np.asarray(probabilities, np.float64)

    @classmethod
    def fit(cls, logits: NDArray[np.floating], labels: NDArray[np.floating]) -> Isotonic:
        """Pool adjacent violators; a block stands at its mean logit. Raises CalibrationError."""
        z, y = _checked(logits, labels)
        z, first = np.unique(z, return_inverse=True)
        weight = np.bincount(first).astype(np.float64)
        mean = np.bincount(first, y) / weight
        blocks: list[tuple[float, float, float]] = []  # weight, mean label, mean logit
        for w, m, x in zip(weight.tolist(), mean.tolist(), z.tolist(), strict=True):
            blocks.append((w, m, x))
            while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
                (w1, m1, x1), (w2, m2, x2) = blocks[-2:]
                blocks[-2:] = [(w1 + w2, (w1 * m1 + w2 * m2) / (w1 + w2), (w1 * x1 + w2 * x2) / (w1 + w2))]
        _, p, x = np.array(blocks).T
        return cls(x, np.clip(p, EPSILON, 1 - EPSILON))

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.interp(logits, self.logits, self.probabilities)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "logits": self.logits.tolist(), "probabilities": self.probabilities.tolist()}

    def __repr__(self) -> str:
        return f"<Isotonic {len(self.logits)} steps>"


CALIBRATORS: dict[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}


def load(state: dict[str, Any]) -> Calibrator:
    """What `state()` gave. Raises CalibrationError."""
    options = dict(state)
    kind = CALIBRATORS.get(options.pop("kind", ""))
    if kind is None:
        raise CalibrationError(f"calibrator: kind must be one of {', '.join(CALIBRATORS)}; got {state.get('kind')!r}")
    try:
        return kind(**options)
    except TypeError:
        raise CalibrationError(f"calibrator {state['kind']}: holds other keys than it should: {', '.join(options)}") from None


def sigmoid(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (1 + e^-z) without overflow."""
    return _sigmoid(np.array(z, np.float64))


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """In place: a request has a few hundred numbers, of which each new array costs as much as the arithmetic."""
    z *= 0.5
    np.tanh(z, out=z)
    z += 1.0
    z *= 0.5
    return z


def _checked(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Finite logits and 0/1 labels with both classes present."""
    z, y = np.asarray(logits, np.float64).ravel(), (np.asarray(labels).ravel() > 0).astype(np.float64)
    if z.shape != y.shape:
        raise CalibrationError(f"calibration: logits and labels must be equally many, got {len(z)} and {len(y)}")
    if not np.isfinite(z).all():
        raise CalibrationError(f"calibration: logits must be finite, {int((~np.isfinite(z)).sum())} of {len(z)} are not")
    if not 0 < y.sum() < len(y):
        raise CalibrationError(f"calibration: labels must have both classes, {int(y.sum())} of {len(y)} are positive")
    return z, y
