"""DFTopK: a soft mask of the k best logits, and the loss that asks it to be the positives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.losses.lists import differ, floored, kept, mean_over_lists


def dftopk(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, top: int | None = None, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy between the soft mask of the `top` best logits and y > 0, averaged over a list's candidates.

        mask_i = sigmoid( (z_i - (z_[k] + z_[k+1]) / 2) / t ),   z_[k] the k-th largest

    The mask tends to the hard one as t tends to 0. Unlike a relaxed permutation it takes no [n, n] matrix: O(n), by selection, with
    `top`, and one sort without.

    logits, labels [.., n], lists on the last axis; where False = left out. Lists of `top` candidates or fewer, without positives, or
    of positives alone say nothing; the loss is the mean over the others, and 0 where there is none.
    Zhu et al., "Differentiable Fast Top-K Selection for Large-Scale Recommendation", arXiv 2510.11472 (2025); mask and mean over
    candidates as in the released code, where k is the number of ground-truth items.

    top           k, the places that there are; default: as many as the list has positives (our choice)
    temperature   t

    >>> dftopk(torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([[1.0, 0.0, 0.0]]))  # threshold 1: softplus(-1), (-1), (-3), / 3
    tensor(0.2250)
    """
    if top is not None and top < 1:
        raise ValueError(f"top: must be at least 1; got {top}")
    if temperature <= 0:
        raise ValueError(f"temperature: must be positive; got {temperature}")
    keep = kept(logits, where)
    positive = (labels > 0) & keep
    places = positive.sum(dim=-1) if top is None else torch.full_like(keep[..., 0], top, dtype=torch.long)
    speaks = (keep.sum(dim=-1) > places) & differ(positive.to(logits.dtype), keep)
    raised = (logits - threshold(floored(logits, keep), places, top).unsqueeze(-1)) / temperature
    each = F.binary_cross_entropy_with_logits(raised.masked_fill(~(keep & speaks.unsqueeze(-1)), 0.0), positive.to(logits.dtype),
                                              reduction="none")  # fmt: skip
    return mean_over_lists(each.masked_fill(~keep, 0.0).sum(dim=-1) / keep.sum(dim=-1).clamp(min=1), speaks)


def threshold(logits: Tensor, places: Tensor, top: int | None) -> Tensor:
    """(z_[k] + z_[k+1]) / 2 of lists; a list of k or fewer gets a number without meaning.  # [.., n], [..] -> [..]"""
    n = logits.shape[-1]
    if top is not None and n > top:
        return (logits.kthvalue(n - top + 1, dim=-1).values + logits.kthvalue(n - top, dim=-1).values) / 2
    ordered = logits.sort(dim=-1, descending=True).values
    around = torch.stack([places - 1, places], dim=-1).clamp(0, n - 1)
    return ordered.gather(-1, around).mean(dim=-1)
