"""COPR: what is paid for should be ordered as the ranking model orders it, after bids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.lists import chosen, differ, kept, mean_over_lists
from prerank.losses.objective import Lists, Term
from prerank.losses.parts import by_parts

STEEPEST = 20.0  # exp of more than this in the inner exponent: the outer one is 0 in any precision


def copr(logits: Tensor, values: Tensor, bids: Tensor, *, where: Tensor | None = None) -> Tensor:
    """sum over pairs v_i b_i > v_j b_j of  dNDCG_ij log(1 + exp(1 - (y_i b_i) / (y_j b_j)))  / sum of dNDCG_ij,  y = sigmoid(z).

        dNDCG_ij = |g_i - g_j| |1 / log2(1 + r_i) - 1 / log2(1 + r_j)|,   g = v b / max v b,   r the rank by v b

    logits z, values v (the ranking model's probability), bids b [.., n], lists on the last axis; where False = left out, and so is
    what has no bid (0): its expected revenue is 0 whatever the model says. A list without a pair says nothing; the loss is the mean
    over the others, and 0 where there is none.
    Zhao et al., "COPR: Consistency-Oriented Pre-Ranking for Online Advertising", CIKM 2023. Gains linear in revenue, ranks by the
    ranking model's order, and the division by the weights' sum, so that long lists weigh no more than short ones, are our choices.

    >>> one = torch.ones(1, 2)
    >>> copr(torch.zeros(1, 2), torch.tensor([[0.2, 0.1]]), one)  # equal revenue: log(1 + exp(0))
    tensor(0.6931)
    """
    keep = kept(logits, where) & (bids > 0)
    revenue = (values * bids).masked_fill(~keep, 0.0)

    def each(z: Tensor, keep: Tensor, wanted: Tensor, bid: Tensor) -> Tensor:
        lowest = wanted.masked_fill(~keep, torch.inf).amin(dim=1, keepdim=True)
        index, real = chosen((wanted > lowest) & keep)  # [lists, P]: those that are the better one of some pair
        above = wanted.gather(1, index).unsqueeze(2)
        pairs = (above > wanted.unsqueeze(1)) & real.unsqueeze(2) & keep.unsqueeze(1)  # [lists, P, n]
        discount = _discounts(wanted, keep)
        gain = wanted / wanted.amax(dim=1, keepdim=True).clamp(min=torch.finfo(wanted.dtype).tiny)
        weight = (gain.gather(1, index).unsqueeze(2) - gain.unsqueeze(1)) * (
            discount.gather(1, index).unsqueeze(2) - discount.unsqueeze(1)
        )
        weight = weight.masked_fill(~pairs, 0.0)
        paid = F.logsigmoid(z) + bid.masked_fill(~keep, 1.0).log()  # log y b
        ratio = (paid.gather(1, index).unsqueeze(2) - paid.unsqueeze(1)).clamp(max=STEEPEST).exp()
        cost = weight * F.softplus(1 - ratio)
        return cost.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=torch.finfo(weight.dtype).tiny)

    return mean_over_lists(by_parts(each, logits, keep, revenue, bids), differ(revenue, keep))


def _discounts(wanted: Tensor, keep: Tensor) -> Tensor:
    """1 / log2(1 + rank), equal revenues at the mean of the ranks they share.  # [lists, m]"""
    ordered = (-wanted.masked_fill(~keep, -torch.inf)).sort(dim=1).values
    y = -wanted
    first, last = torch.searchsorted(ordered, y), torch.searchsorted(ordered, y, right=True)
    return 1 / torch.log2(1 + (first + 1 + last).to(wanted.dtype) / 2)


class COPRTerm(Term):
    """`copr` with the batch's bids (`Batch.bid`).

    by      what the ranking model pays for: its score ('teacher', candidates without one are left out), or the 'label' itself
    lists   'own' or 'batch', as in LossTerm
    """

    needs_bid = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, by: str = "teacher",
                 lists: str = "own") -> None:  # fmt: skip
        super().__init__("copr", weight=weight, objective=objective, stages=stages)
        if by not in ("teacher", "label"):
            raise ValueError(f"by: must be teacher or label; got '{by}'")
        self.needs_teacher = by == "teacher"
        self.lists, self.compares = Lists("copr", lists), lists == "own"

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        bids = self.given(batch, "bid")
        values = self.given(batch, "teacher") if self.needs_teacher else batch.labels[..., self.objective]
        where = self.seen(batch) & ~values.isnan() & ~bids.isnan()
        logits, values, seen = self.lists(output.logits[..., self.objective], values.masked_fill(~where, 0.0), where)
        _, bids, _ = self.lists(output.logits[..., self.objective], bids.masked_fill(~where, 0.0), where)
        return copr(logits, values, bids, where=seen)
