"""FTRL-Proximal: the optimiser of logistic regression on clicks; each coordinate has its own rate, rare and useless ones stay 0.

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1. For every coordinate that has a gradient g:

    s = (sqrt(n + g^2) - sqrt(n)) / alpha;   z += g - s w;   n += g^2
    w = 0 where |z| <= l1,   else  -(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Ftrl(torch.optim.Optimizer):
    """See the module's first lines; a group's `lr` is alpha, its `weight_decay` l2.

    rows   of how many rows a gradient is the mean. The paper has a gradient a row; one that is n times smaller gives the same
           weights with beta, l1 and l2 n times smaller, so they are divided by it (ours): their size, l1 and l2 against the
           sum of all rows' gradients so far, does not depend on the batch.

    The paper starts at w = 0. Weights that do not are kept (ours): z starts where the formula gives them.
    A sparse gradient costs its own rows only, and the result is the same: a coordinate without a gradient does not move.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, beta: float = 1.0, l1: float = 0.0, weight_decay: float = 0.0,
                 rows: int = 1) -> None:  # fmt: skip
        for name, value in (("lr", lr), ("beta", beta), ("rows", rows)):
            if value <= 0:
                raise ValueError(f"{name}: must be above 0; got {value}")
        for name, value in (("l1", l1), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"{name}: must be at least 0; got {value}")
        super().__init__(params, {"lr": lr, "beta": beta, "l1": l1, "weight_decay": weight_decay, "rows": rows})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update what has a gradient. With a closure, call it first and return its value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    @torch.no_grad()
    def forget(self, p: Tensor, rows: Tensor) -> None:
        """Rows [n] of a parameter begin anew from the weights that they have now."""
        if state := self.state.get(p):
            group = next(g for g in self.param_groups if any(q is p for q in g["params"]))
            state["z"][rows] = _start(p[rows], group["lr"], *_per_row(group))
            state["n"][rows] = 0

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        alpha = group["lr"]
        beta, l1, l2 = _per_row(group)
        state = self.state[p]
        if not state:
            state["z"] = _start(p, alpha, beta, l1, l2)
            state["n"] = torch.zeros_like(p)
        assert p.grad is not None
        if not p.grad.is_sparse:
            z, n, w = _next(state["z"], state["n"], p, p.grad, alpha, beta, l1, l2)
            state["z"], state["n"] = z, n
            p.copy_(w)
            return
        gradient = p.grad.coalesce()
        rows = gradient.indices()[0]
        z, n, w = _next(state["z"][rows], state["n"][rows], p[rows], gradient.values(), alpha, beta, l1, l2)
        for into, value in ((state["z"], z), (state["n"], n), (p, w)):
            into.index_copy_(0, rows, value)


def _per_row(group: dict[str, Any]) -> tuple[float, float, float]:
    """beta, l1 and l2 for a gradient that is a mean of rows."""
    beta, l1, l2 = (group[name] / group["rows"] for name in ("beta", "l1", "weight_decay"))
    return beta, l1, l2


def _start(w: Tensor, alpha: float, beta: float, l1: float, l2: float) -> Tensor:
    """z of weights that have met no gradient."""
    return -w * (beta / alpha + l2) - w.sign() * l1


def _next(z: Tensor, n: Tensor, w: Tensor, g: Tensor, alpha: float, beta: float, l1: float, l2: float) -> tuple[Tensor, Tensor, Tensor]:
    """z, n, w of some coordinates after a gradient g of theirs; where g is 0, as before."""
    more = n + g.square()
    root = more.sqrt()
    z = z + g - (root - n.sqrt()) / alpha * w
    moved = -(z - z.sign() * l1) / ((beta + root) / alpha + l2)
    return z, more, torch.where(g == 0, w, moved.masked_fill(z.abs() <= l1, 0.0))
