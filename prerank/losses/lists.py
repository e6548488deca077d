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
