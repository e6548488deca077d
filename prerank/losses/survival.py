"""What a relaxed permutation says of the first places: who passes a stage that keeps the best of a list."""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.losses.lists import differ, floored, top_share
from prerank.losses.relaxation import in_places

Passes = int | float
NOTHING = -60.0  # logarithm of what a sum does not notice


def check_passes(name: str, passes: Passes) -> None:
    """Raise ValueError unless it is a count from 1 on, or a share between 0 and 1."""
    if (isinstance(passes, int) and passes < 1) or (isinstance(passes, float) and not 0 < passes < 1):
        raise ValueError(f"{name}: must be a count from 1 on, or a share between 0 and 1; got {passes}")


def places_of(passes: Passes, keep: Tensor) -> Tensor:
    """How many candidates of each list pass: the count, or the share of the list, at least 1.  # int64 [..]"""
    number = keep.sum(dim=-1)
    return torch.full_like(number, passes) if isinstance(passes, int) else (number.double() * passes).round().long().clamp(min=1)


def truth(labels: Tensor, keep: Tensor, top: int | None) -> tuple[Tensor, Tensor]:
    """How much of each candidate is ground truth, and how many of a list are: positives, or the `top` largest labels.  # [l, m], [l]"""
    positive = (labels > 0) & keep
    if top is None:
        return positive.to(labels.dtype), positive.sum(dim=1)
    number = keep.sum(dim=1).clamp(max=top)
    return top_share(labels, keep, number), number


def speak(labels: Tensor, keep: Tensor, top: int | None) -> Tensor:
    """Lists with ground truth, and with something else.  # bool [..]"""
    if top is not None:
        return differ(labels, keep) & (keep.sum(dim=-1) > top)
    positive = (labels > 0) & keep
    return positive.any(dim=-1) & (keep & ~positive).any(dim=-1)


def first_places(rows: Tensor, places: Tensor) -> Tensor:
    """log of each candidate's mass in the first places.  # log P [l, m, m], [l] -> [l, m]"""
    return _log_sum(rows, _before(rows, places))


def survival(rows: Tensor, keep: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """log of the chance to be among the first places, and of the chance not to be: shares of each candidate's mass in all places.

    A relaxed permutation's rows sum to 1, its columns only about: they are divided by their sum, as in LCRON's released code.
    rows log P [l, m, m], places [l] -> [l, m], [l, m]
    """
    inside, first = in_places(keep).unsqueeze(2), _before(rows, places)
    passes, fails = _log_sum(rows, inside & first), _log_sum(rows, inside & ~first)
    total = torch.logaddexp(passes, fails)
    return passes - total, fails - total


def _log_sum(rows: Tensor, mask: Tensor) -> Tensor:
    """logsumexp over the places; what is far below the largest is cut off before exp, which is slow where it underflows.  # [l, m]"""
    rows = floored(rows, mask.expand_as(rows))
    top = rows.detach().amax(dim=1, keepdim=True)
    return (rows - top).clamp(min=NOTHING).exp().sum(dim=1).log() + top.squeeze(1)


def _before(rows: Tensor, places: Tensor) -> Tensor:
    """bool [l, m, 1]"""
    return (torch.arange(rows.shape[1], device=rows.device) < places.unsqueeze(1)).unsqueeze(2)
