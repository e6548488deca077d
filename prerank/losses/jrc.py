"""JRC: one pair of logits that is both calibrated and ranks, from a joint model of label and candidate."""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.lists import floored, kept
from prerank.losses.objective import Lists, Term
from prerank.losses.pointwise import logloss


def jrc(logits: Tensor, labels: Tensor, energy: Tensor, *, where: Tensor | None = None, alpha: float = 0.5) -> Tensor:
    """alpha calibration + (1 - alpha) ranking, where f_1 = z + e and f_0 = e are the logits of click and no click.

        calibration   -log p(y | x),     p(1 | x) = exp f_1 / (exp f_0 + exp f_1) = sigmoid(z)
        ranking       -log p(x | y, list) = -log( exp f_y(x) / sum over x' of the list of exp f_y(x') )

    logits z, labels in [0, 1] and energy e [.., n], lists on the last axis; where False = left out. Both parts are means over
    candidates; an all-masked input gives 0.
    Sheng et al., "Joint Optimization of Ranking and Calibration with Contextualized Hybrid Model", KDD 2023 (eq. 4, 7 and 9).

    >>> jrc(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
    tensor(0.6931)
    """
    keep = kept(logits, where)
    clicked = torch.log_softmax(floored(logits + energy, keep), dim=-1)
    passed = torch.log_softmax(floored(energy, keep), dim=-1)
    each = -(labels * clicked + (1 - labels) * passed).masked_fill(~keep, 0.0)
    ranking = each.sum() / keep.sum().clamp(min=1)
    return alpha * logloss(logits, labels, where=where) + (1 - alpha) * ranking


class JRCTerm(Term):
    """`jrc` over two of the model's logits.

    The paper's two logits f_1, f_0 are written here as z = f_1 - f_0, the logit of `label`, and e = f_0, that of `energy`. That is
    the same loss over the same pairs of numbers, and sigmoid(z) stays the click's probability wherever logits are read: in
    validation, calibration and serving (our choice). So the schema needs a second label, which may be made from the same column; its
    values are not looked at, and its own metrics say nothing.

    energy   name of that second label
    alpha    weight of the calibration part
    lists    'own' or 'batch', as in LossTerm
    """

    labels = ("energy",)  # options that name a label; build.py gives their index

    def __init__(self, *, energy: int | None = None, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None,
                 alpha: float = 0.5, lists: str = "own") -> None:  # fmt: skip
        super().__init__("jrc", weight=weight, objective=objective, stages=stages)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: must be in [0, 1]; got {alpha}")
        if energy is None:
            raise ValueError("energy: must name a second label; got none")
        if energy == objective:
            raise ValueError("energy: must be another label than the one that is learned")
        self.energy, self.alpha, self.lists = energy, alpha, Lists("jrc", lists)
        self.compares = lists == "own"

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        seen = self.seen(batch)
        logits, labels, where = self.lists(output.logits[..., self.objective], batch.labels[..., self.objective], seen)
        energy, _, _ = self.lists(output.logits[..., self.energy], batch.labels[..., self.objective], seen)
        return jrc(logits, labels, energy, where=where, alpha=self.alpha)
