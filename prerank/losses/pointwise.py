"""Losses that judge each candidate alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.losses.lists import kept


def logloss(
    logits: Tensor, labels: Tensor, *, where: Tensor | None = None, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of logits: log(1 + exp(-z)) for y = 1, log(1 + exp(z)) for y = 0.

    logits, labels [..] of equal shape; labels in [0, 1]; where False = left out; an all-masked input gives 0.
    reduction 'mean' over what is left (weighted mean with `weight`), or 'sum' (the released IntTower code).

    >>> logloss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.6931)
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: must be mean or sum; got '{reduction}'")
    if where is None and weight is None:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction=reduction)
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    mass = each.new_ones(each.shape) if weight is None else weight.expand_as(each)
    if where is not None:
        each, mass = each.masked_fill(~where, 0.0), mass.masked_fill(~where, 0.0)
    total = (each * mass).sum()
    # All weights zero: the total is 0 too, and dividing it by the smallest number keeps it 0.
    return total if reduction == "sum" else total / mass.sum().clamp(min=1e-12)


def weighted_logloss(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in which a positive (y > 0) weighs its label's value and a negative 1: exp(z) then estimates the mean label.

        ( sum_{y > 0} y log(1 + exp(-z)) + sum_{y <= 0} log(1 + exp(z)) ) / n

    logits, labels [..] of equal shape, labels from 0 on (watch time, price, a sum of feedbacks); where False = left out of both sums.
    Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016 (section 4.2). The mean is over
    candidates, not over weights (our choice), so that a heavier label is a larger step.

    >>> weighted_logloss(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 0.0]))
    tensor(1.3863)
    """
    each = torch.where(labels > 0, labels * F.softplus(-logits), F.softplus(logits))
    keep = kept(logits, where)
    return each.masked_fill(~keep, 0.0).sum() / keep.sum().clamp(min=1)
