"""A weighted ensemble: one logit out of several models', with weights that are fitted on rows none of them was trained on.

    z = sum_m w_m z_m,   w >= 0,  sum_m w_m = 1;   w = argmin of the log loss of z     (an objective each)

The linear pool of Breiman, "Stacked Regressions", Machine Learning 1996 (non-negative weights; that they sum to one is our choice: z is
then on the members' own scale, between the lowest and the highest of them). The problem is convex, and the log loss of z on the rows
it is fitted on is never above the best member's, which is one corner of the simplex. RankTower's teacher is such an ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from prerank.batch import Batch, Output

Floats = NDArray[np.float64]


class Ensemble(nn.Module):
    """Batch -> Output: logits are the members' weighted sum, hidden is theirs side by side.

    members   models Batch -> Output, of the same objectives; two-tower models too
    weights   [M], or [M, T] with weights of its own for each objective

    Members without a hidden vector (LR, towers) add nothing to hidden; where none has one it is None.
    """

    weights: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        if not members or weights.shape[0] != len(members):
            raise ValueError(f"weights: must be one a member; got {weights.shape[0] if weights.dim() else 1} for {len(members)} members")
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights.float())

    def forward(self, batch: Batch) -> Output:
        """Logits [B, C, T], hidden [B, C, sum of K] or None."""
        outputs: list[Output] = [member(batch) for member in self.members]
        logits = sum(w * o.logits for w, o in zip(self.weights, outputs, strict=True))
        assert isinstance(logits, Tensor)
        hidden = [o.hidden for o in outputs if o.hidden is not None]
        return Output(logits, hidden=torch.cat(hidden, dim=2) if hidden else None)

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """Each member's."""
        member: Any
        for member in self.members:
            if hasattr(member, "fill_cold_rows"):
                member.fill_cold_rows(counts)


def fit_weights(logits: ArrayLike, labels: ArrayLike, *, steps: int = 50) -> Floats:
    """Weights [M] of logits [M, n] that minimise the log loss against labels [n] in [0, 1]: non-negative, and summing to one.

    Newton steps on the simplex with a line search: each solves min g.(v - w) + .5 (v - w)'H(v - w) over the simplex. Raises ValueError.

    >>> fit_weights([[2., -2., 2.], [0., 0., 0.]], [1, 0, 1])
    array([1., 0.])
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    _check(z, y)
    m, n = z.shape
    w = np.full(m, 1 / m)
    ridge = np.eye(m) * max(1e-9 * float(np.mean(z * z)), 1e-15)  # where members are equal, or all certain, the curvature is 0
    loss = _loss(w @ z, y)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(w @ z, -500, 500)))
        gradient = z @ (p - y) / n
        hessian = (z * (p * (1 - p))) @ z.T / n + ridge
        direction = _simplex_minimum(hessian, gradient - hessian @ w, w) - w
        slope = gradient @ direction
        if slope > -1e-12:
            break
        step = 1.0
        while (new := _loss((w + step * direction) @ z, y)) > loss + 1e-4 * step * slope and step > 1e-10:
            step /= 2
        if new >= loss:
            break
        w, loss = w + step * direction, new
    w = np.where(w < 1e-9, 0.0, w)
    return w / w.sum()


def _check(z: Floats, y: Floats) -> None:
    if z.ndim != 2 or z.shape[0] == 0 or y.shape != z.shape[1:]:
        raise ValueError(f"fit_weights: logits must be [models, rows] and labels [rows]; got {list(z.shape)} and {list(y.shape)}")
    if z.shape[1] == 0:
        raise ValueError("fit_weights: needs at least one row; got none")
    if not np.isfinite(z).all():
        raise ValueError(f"fit_weights: logits must be finite; those of model {int(np.argmin(np.isfinite(z).all(axis=1)))} are not")
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"fit_weights: labels must lie in [0, 1]; they go from {y.min():g} to {y.max():g}")


def _loss(z: Floats, y: Floats) -> float:
    return float(np.mean(np.logaddexp(0.0, z) - y * z))


def _simplex_minimum(a: Floats, b: Floats, start: Floats) -> Floats:
    """argmin .5 v'Av + b.v over the simplex, from a point of it: a primal active-set method, as A is tiny, [M, M]."""
    v, free = start, start > 0
    for _ in range(50 * len(a)):
        inside = np.flatnonzero(free)
        target = np.zeros_like(v)
        target[inside] = _on_plane(a[np.ix_(inside, inside)], b[inside])
        blocking = inside[target[inside] < 0]
        if len(blocking):  # as far as the first weight that would become negative; it is held at 0 from now on
            shares = v[blocking] / (v[blocking] - target[blocking])
            first = int(np.argmin(shares))
            v = np.maximum(v + shares[first] * (target - v), 0.0)
            v[blocking[first]], free[blocking[first]] = 0.0, False
            continue
        v, pull = target, a @ target + b
        gains = np.where(free, 0.0, pull - pull[inside].mean())  # a held weight that would lower the sum is let go
        if gains.min() > -1e-13:
            break
        free[int(np.argmin(gains))] = True
    return v


def _on_plane(a: Floats, b: Floats) -> Floats:
    """argmin .5 v'Av + b.v where sum v = 1:  v = A^-1 (lambda - b)."""
    towards, back = np.linalg.solve(a, np.stack([np.ones(len(b)), b], axis=1)).T
    return towards * (1 + back.sum()) / towards.sum() - back
