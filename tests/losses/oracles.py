"""Relaxed permutations and what is made of them, in numpy float64, element by element from the papers' equations."""

from __future__ import annotations

import numpy as np

Numbers = list[float]


def rows(scaled: np.ndarray) -> np.ndarray:
    """softmax of each row."""
    e = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def neural(s: Numbers, t: float) -> np.ndarray:
    """NeuralSort, eq. 5."""
    n = len(s)
    scaled = np.array([[((n + 1 - 2 * (i + 1)) * s[j] - sum(abs(s[j] - s[k]) for k in range(n))) / t for j in range(n)] for i in range(n)])
    return rows(scaled)


def soft(s: Numbers, t: float, power: float = 2.0) -> np.ndarray:
    """SoftSort, eq. 4."""
    ordered = sorted(s, reverse=True)
    return rows(np.array([[-(abs(a - b) ** power) / t for b in s] for a in ordered]))


def passes(p: np.ndarray, q: int) -> np.ndarray:
    """P^q of LCRON: each column's share in the first q rows."""
    return np.array([sum(p[i, j] for i in range(q)) / sum(p[i, j] for i in range(len(p))) for j in range(len(p))])


def cross_entropy(p: np.ndarray, y: Numbers) -> float:
    """Binary cross-entropy, a mean over candidates."""
    return float(np.mean([-np.log(a) if b > 0 else -np.log(1 - a) for a, b in zip(p, y, strict=True)]))
