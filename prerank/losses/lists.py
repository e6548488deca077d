"""What every list-wise loss does with its lists: leave out what is masked, and average over those that have something to say."""

from __future__ import annotations

import torch
from torch import Tensor


def kept(logits: Tensor, where: Tensor | None) -> Tensor:
    """`where`, or all True.  # bool [.., n]"""
    return torch.ones_like(logits, dtype=torch.bool) if where is None else where


def floored(logits: Tensor, keep: Tensor) -> Tensor:
    """Masked logits at a finite floor, not -inf: a fully masked list must stay free of NaN in its gradient too."""
    return logits.masked_fill(~keep, torch.finfo(logits.dtype).min / 4)


def mean_over_lists(values: Tensor, speaks: Tensor) -> Tensor:
    """Mean of the lists' values where they speak; 0 when none does.

    values [..]; speaks bool [..], False for a list that says nothing (empty, without positives, all labels equal)

    >>> mean_over_lists(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([True, False, True]))
    tensor(2.)
    """
    return values.masked_fill(~speaks, 0.0).sum() / speaks.sum().clamp(min=1)


def differ(labels: Tensor, keep: Tensor) -> Tensor:
    """Lists whose labels are not all equal: only they speak of an order.  # bool [..]"""
    top = labels.masked_fill(~keep, -torch.inf).amax(dim=-1)
    return top > labels.masked_fill(~keep, torch.inf).amin(dim=-1)


def chosen(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where a list's True candidates stand, padded to the most of any list: pairs need a row for these only, not for all n.

    mask bool [lists, n] -> index int64 [lists, P], real bool [lists, P] (False = padding); P is at least 1

    >>> chosen(torch.tensor([[False, True, True], [False, False, True]]))
    (tensor([[1, 2],
            [2, 0]]), tensor([[ True,  True],
            [ True, False]]))
    """
    number = mask.sum(dim=-1)
    most = max(int(number.max()), 1) if len(mask) else 1
    index = mask.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :most]
    return index, torch.arange(most, device=mask.device) < number.unsqueeze(-1)


def top_share(labels: Tensor, keep: Tensor, top: Tensor) -> Tensor:
    """How much of each candidate is among its list's `top` largest labels: 1, 0, or what equal labels at the border share.

    labels, keep [lists, n]; top int64 [lists] -> [lists, n], a list's sum is its top where it has so many

    >>> top_share(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool), torch.tensor([2]))
    tensor([[1.0000, 0.5000, 0.5000, 0.0000]])
    """
    y = floored(labels, keep)
    ordered = (-y).sort(dim=-1).values  # ascending, so that searchsorted can count
    above = torch.searchsorted(ordered, -y)  # how many are larger
    equal = torch.searchsorted(ordered, -y, right=True) - above
    return ((top.unsqueeze(-1) - above).to(labels.dtype) / equal).clamp(0, 1).masked_fill(~keep, 0.0)
