"""Losses over pairs of a list: the better candidate should have the higher logit.

A list's value is the mean over its pairs, the loss the mean over lists that have a pair (our choice: the papers sum). Memory
does not grow with the batch: pairs are made a few lists at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.losses.lists import chosen, differ, kept, mean_over_lists
from prerank.losses.parts import by_parts


def bpr(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """-log sigmoid(z_i - z_j) over the pairs of a positive i (y > 0) and a negative j.

    logits, labels [.., n], lists on the last axis; where False = left out; a list without a pair adds nothing, none at all gives 0.
    Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009 (BPR-Opt, section 4.1; its L2 is the optimiser's).

    >>> bpr(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    return _over(logits, (labels > 0).to(logits.dtype), kept(logits, where), 1.0)


def ranknet(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """log(1 + exp(-scale (z_i - z_j))) over all pairs with y_i > y_j, so that graded labels count by their order.

    Burges et al., "Learning to Rank using Gradient Descent", ICML 2005 (eq. 3 with target probability 1; ties are left out).

    scale   steepness of the sigmoid

    >>> ranknet(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]]))
    tensor(0.6931)
    """
    if scale <= 0:
        raise ValueError(f"scale: must be positive; got {scale}")
    return _over(logits, labels, kept(logits, where), scale)


def _over(logits: Tensor, labels: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Mean of softplus(-scale (z_i - z_j)) over a list's pairs y_i > y_j, then over lists that have one."""

    def values(z: Tensor, kept: Tensor, y: Tensor) -> Tensor:
        lowest = y.masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
        index, real = chosen((y > lowest) & kept)
        pairs = (y.gather(1, index).unsqueeze(2) > y.unsqueeze(1)) & real.unsqueeze(2) & kept.unsqueeze(1)  # [lists, P, n]
        gaps = z.gather(1, index).unsqueeze(2) - z.unsqueeze(1)
        each = F.softplus(-scale * gaps).masked_fill(~pairs, 0.0)
        return each.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)

    return mean_over_lists(by_parts(values, logits, keep, labels), differ(labels, keep))
