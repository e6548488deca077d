"""Losses through a relaxed sort: the permutation matrix that sorts the logits should be the one that sorts the labels.

    loss = - (1/n) sum_i sum_j P(y)_ij log P(z)_ij        row i: which candidate stands at place i, best first

Labels and logits live on different scales, so each has a temperature. Lists whose labels are all equal say nothing of order and
are left out (our choice). Memory grows with the square of the list.

logits, labels [.., n], lists on the last axis; where False = left out; mean over lists; none that speaks gives 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.losses.lists import differ, floored, kept, mean_over_lists


def neuralsort(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, temperature: float = 1.0,
               label_temperature: float = 0.1) -> Tensor:  # fmt: skip
    """Cross entropy between NeuralSort's relaxed permutations of labels and logits.

        P(s)_i = softmax( ((n + 1 - 2i) s - A 1) / t ),   A_jk = |s_j - s_k|

    Grover et al., "Stochastic Optimization of Sorting Networks via Continuous Relaxations", ICLR 2019 (eq. 5). Candidates of equal
    labels share their places equally.

    temperature         t of the logits
    label_temperature   t of the labels: small against the gaps between labels
    """
    _positive(temperature, label_temperature)
    keep = kept(logits, where)
    target, _ = _neuralsort(labels.to(logits.dtype), keep, label_temperature)
    _, said = _neuralsort(logits, keep, temperature)
    return _cross_entropy(target, said, labels, keep)


def softsort(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, temperature: float = 1.0, label_temperature: float = 0.1,
             power: float = 2.0) -> Tensor:  # fmt: skip
    """Cross entropy between SoftSort's relaxed permutations of labels and logits.

        P(s)_i = softmax( - |s_[i] - s|^power / t ),   s_[i] the i-th largest

    Prillo and Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort Operator", ICML 2020 (eq. 4); RankTower eq. 15-16 with
    power 2.
    """
    _positive(temperature, label_temperature)
    if power < 1:
        raise ValueError(f"power: must be at least 1; got {power}")
    keep = kept(logits, where)
    target, _ = _softsort(labels.to(logits.dtype), keep, label_temperature, power)
    _, said = _softsort(logits, keep, temperature, power)
    return _cross_entropy(target, said, labels, keep)


def _neuralsort(s: Tensor, keep: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Relaxed permutation and its logarithm; masked columns hold 0 and the floor.  # [.., n, n]"""
    s = s.masked_fill(~keep, 0.0)
    number = keep.sum(dim=-1)[..., None, None]
    gaps = (s.unsqueeze(-1) - s.unsqueeze(-2)).abs().masked_fill(~keep.unsqueeze(-2), 0.0).sum(dim=-1)  # A 1  [.., n]
    places = torch.arange(1, s.shape[-1] + 1, device=s.device).unsqueeze(-1)  # [n, 1]
    scaled = ((number + 1 - 2 * places) * s.unsqueeze(-2) - gaps.unsqueeze(-2)) / temperature
    return _rows(scaled, keep)


def _softsort(s: Tensor, keep: Tensor, temperature: float, power: float) -> tuple[Tensor, Tensor]:
    """As `_neuralsort`."""
    ordered = floored(s, keep).sort(dim=-1, descending=True).values  # masked ones at the end, where no place is kept
    ordered = ordered.masked_fill(~_places(keep), 0.0)
    gaps = (ordered.unsqueeze(-1) - s.masked_fill(~keep, 0.0).unsqueeze(-2)).abs()
    return _rows(-gaps.pow(power) / temperature, keep)


def _rows(scaled: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    scaled = floored(scaled, keep.unsqueeze(-2).expand_as(scaled))
    return torch.softmax(scaled, dim=-1), torch.log_softmax(scaled, dim=-1)


def _cross_entropy(target: Tensor, said: Tensor, labels: Tensor, keep: Tensor) -> Tensor:
    """- P(y) log P(z): mean over the places that there are, then over lists."""
    inside = _places(keep).unsqueeze(-1) & keep.unsqueeze(-2)
    each = (-target * said).masked_fill(~inside, 0.0).sum(dim=(-2, -1))
    return mean_over_lists(each / keep.sum(dim=-1).clamp(min=1), differ(labels, keep))


def _places(keep: Tensor) -> Tensor:
    """Places 1..m of a list with m candidates left.  # bool [.., n]"""
    return torch.arange(keep.shape[-1], device=keep.device) < keep.sum(dim=-1, keepdim=True)


def _positive(temperature: float, label_temperature: float) -> None:
    for name, value in (("temperature", temperature), ("label_temperature", label_temperature)):
        if value <= 0:
            raise ValueError(f"{name}: must be positive; got {value}")
