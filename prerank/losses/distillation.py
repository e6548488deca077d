"""Learning from the ranking model's scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.lists import floored, kept, mean_over_lists
from prerank.losses.objective import Lists, Term
from prerank.losses.pairwise import ranknet
from prerank.losses.pointwise import logloss


def softmax_distillation(logits: Tensor, scores: Tensor, *, where: Tensor | None = None) -> Tensor:
    """- sum_i p_i log softmax(z)_i over a list's scored candidates; p is not normalised, so that a better list counts more.

    logits, scores [.., n], lists on the last axis; scores from 0 on; where False = left out. Lists with fewer than two scored
    candidates, or only scores of 0, say nothing; the loss is the mean over the others (our choice), and 0 where there is none.
    RankTower, eq. 14.

    >>> softmax_distillation(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 1.0]]))  # 1.5 log 2
    tensor(1.0397)
    """
    keep = kept(logits, where)
    mass = scores.masked_fill(~keep, 0.0)
    each = (-mass * torch.log_softmax(floored(logits, keep), dim=-1)).masked_fill(~keep, 0.0)
    return mean_over_lists(each.sum(dim=-1), (keep.sum(dim=-1) > 1) & (mass.sum(dim=-1) > 0))


def odds_distillation(logits: Tensor, scores: Tensor, *, where: Tensor | None = None) -> Tensor:
    """p log(1 + exp(-z)) + log(1 + exp(z)), averaged over candidates: exp(z) then estimates p, whatever its scale.

    logits, scores [..] of equal shape; scores from 0 on; where False = left out; an all-masked input gives 0.
    RankTower names "weighted logloss" without a formula. Weighted logistic regression (Covington et al., RecSys 2016, section 4.2)
    makes the odds estimate the mean label; this is what does so for a soft label (our choice).

    >>> odds_distillation(torch.tensor([0.0]), torch.tensor([2.0]))  # 3 log 2
    tensor(2.0794)
    """
    keep = kept(logits, where)
    each = scores * F.softplus(-logits) + F.softplus(logits)
    return each.masked_fill(~keep, 0.0).sum() / keep.sum().clamp(min=1)


# name: the loss of logits and scores, whether it compares the candidates of a list, the largest score that it takes (None: any)
KINDS: dict[str, tuple[Callable[..., Tensor], bool, float | None]] = {
    "softmax": (softmax_distillation, True, torch.inf),
    "logloss": (logloss, False, 1.0),
    "weighted_logloss": (odds_distillation, False, torch.inf),
    "pairwise": (ranknet, True, None),
}


class DistillationTerm(Term):
    """The ranking model's score of each candidate (`Batch.teacher`), as a soft label; candidates without one are left out.

    kind    softmax            list-wise, eq. 14 of RankTower; scores from 0 on
            logloss            cross-entropy with the score, a probability: the usual distillation of a classifier
            weighted_logloss   exp(z) learns the score; scores from 0 on
            pairwise           RankNet over the pairs that the scores order; scores of any kind
    lists   of softmax and pairwise: 'own' or 'batch', as in LossTerm
    """

    needs_teacher = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, kind: str = "softmax",
                 lists: str = "own") -> None:  # fmt: skip
        super().__init__("distillation", weight=weight, objective=objective, stages=stages)
        if kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}; got '{kind}'")
        self.kind = kind
        self.loss, compares, self.largest = KINDS[kind]
        if lists == "batch" and not compares:
            raise ValueError(f"lists: kind {kind} judges each candidate alone and has none")
        self.lists = Lists("distillation", lists) if compares else None
        self.compares = compares and lists == "own"

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        scores = self.given(batch, "teacher")
        where = self.seen(batch) & ~scores.isnan()
        scores = scores.masked_fill(~where, 0.0)
        self.check_scores(scores)
        logits = output.logits[..., self.objective]
        if self.lists is not None:
            logits, scores, seen = self.lists(logits, scores, where)
            assert seen is not None
            where = seen
        return self.loss(logits, scores, where=where)

    def check_scores(self, scores: Tensor) -> None:
        """Raise ValueError where the kind cannot take a score. NaN is a missing one."""
        if self.largest is None:
            return
        known = scores[~scores.isnan()]
        bad = known[(known < 0) | (known > self.largest)]
        if bad.numel():
            rule = "in [0, 1]" if self.largest == 1 else "of at least 0"
            raise ValueError(f"objective '{self.name}': kind {self.kind} needs scores {rule}; got {bad[0].item():g}; "
                             "take a probability, or kind pairwise, which looks at their order alone")  # fmt: skip
