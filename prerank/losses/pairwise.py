"""Losses over pairs of a list: the better candidate should have the higher logit.

A list's value is the mean over its pairs, the loss the mean over lists that have a pair (our choice: the papers sum). Memory
grows with the square of the list.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prerank.losses.lists import kept, mean_over_lists


def bpr(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """-log sigmoid(z_i - z_j) over the pairs of a positive i (y > 0) and a negative j.

    logits, labels [.., n], lists on the last axis; where False = left out; a list without a pair adds nothing, none at all gives 0.
    Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009 (BPR-Opt, section 4.1; its L2 is the optimiser's).

    >>> import torch
    >>> bpr(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    keep, positive = kept(logits, where), labels > 0
    pairs = (positive & keep).unsqueeze(-1) & (~positive & keep).unsqueeze(-2)  # [.., n, n]
    return _over(pairs, logits, 1.0)


def ranknet(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """log(1 + exp(-scale (z_i - z_j))) over all pairs with y_i > y_j, so that graded labels count by their order.

    Burges et al., "Learning to Rank using Gradient Descent", ICML 2005 (eq. 3 with target probability 1; ties are left out).

    scale   steepness of the sigmoid

    >>> import torch
    >>> ranknet(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]]))
    tensor(0.6931)
    """
    if scale <= 0:
        raise ValueError(f"scale: must be positive; got {scale}")
    keep = kept(logits, where)
    pairs = (labels.unsqueeze(-1) > labels.unsqueeze(-2)) & keep.unsqueeze(-1) & keep.unsqueeze(-2)
    return _over(pairs, logits, scale)


def _over(pairs: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Mean of softplus(-scale (z_i - z_j)) over a list's pairs [.., n, n], then over lists."""
    gaps = logits.unsqueeze(-1) - logits.unsqueeze(-2)
    each = F.softplus(-scale * gaps).masked_fill(~pairs, 0.0)
    number = pairs.sum(dim=(-2, -1))
    return mean_over_lists(each.sum(dim=(-2, -1)) / number.clamp(min=1), number > 0)
