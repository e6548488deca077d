"""Rankmax: a softmax whose threshold is the positive's own logit, so that candidates far below it cost nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.losses.lists import kept, mean_over_lists


def rankmax(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """log sum_i relu(z_i - z_j + 1) for each positive j, i running over the whole list with j itself (whose part is 1).

    logits, labels [.., n], lists on the last axis; where False = left out. A list's value is the mean over its positives, the loss
    the mean over lists that have one; none gives 0. Memory grows with the square of the list.
    Kong et al., "Rankmax: An Adaptive Projection Alternative to the Softmax Function", NeurIPS 2020 (section 4).

    >>> rankmax(torch.tensor([[0.0, 0.0, -9.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    tensor(0.6931)
    """
    keep = kept(logits, where)
    positive = (labels > 0) & keep
    parts = torch.relu(logits.unsqueeze(-2) - logits.unsqueeze(-1) + 1)  # [.., j, i]
    total = parts.masked_fill(~keep.unsqueeze(-2), 0.0).sum(dim=-1)
    each = torch.log(total.clamp(min=1.0)).masked_fill(~positive, 0.0).sum(dim=-1)  # below 1 only for a masked j
    number = positive.sum(dim=-1)
    return mean_over_lists(each / number.clamp(min=1), number > 0)
