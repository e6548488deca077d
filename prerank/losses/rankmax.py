"""Rankmax and AM-Rankmax: a softmax whose threshold is the positive's own logit, so that candidates far below it cost nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.losses.lists import chosen, kept, mean_over_lists
from prerank.losses.parts import by_parts


def rankmax(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """log sum_i relu(z_i - z_j + 1) for each positive j, i running over the whole list with j itself (whose part is 1).

    logits, labels [.., n], lists on the last axis; where False = left out. A list's value is the mean over its positives, the loss
    the mean over lists that have one; none gives 0.
    Kong et al., "Rankmax: An Adaptive Projection Alternative to the Softmax Function", NeurIPS 2020 (section 4).

    >>> rankmax(torch.tensor([[0.0, 0.0, -9.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    tensor(0.6931)
    """
    keep = kept(logits, where)

    def values(z: Tensor, kept: Tensor, y: Tensor) -> Tensor:
        index, real = chosen((y > 0) & kept)  # [lists, P]
        parts = torch.relu(z.unsqueeze(1) - z.gather(1, index).unsqueeze(2) + 1).masked_fill(~kept.unsqueeze(1), 0.0)  # [lists, P, n]
        each = torch.log(parts.sum(dim=2).clamp(min=1.0)).masked_fill(~real, 0.0)  # below 1 only where j is padding
        return each.sum(dim=1) / real.sum(dim=1).clamp(min=1)

    return mean_over_lists(by_parts(values, logits, keep, labels), ((labels > 0) & keep).any(dim=-1))


def am_rankmax(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, alpha: float = 2.0, beta: float | None = None,
               power: float = 1.0) -> Tensor:  # fmt: skip
    """log(1 + sum_{i: y_i < y_j} relu(z_i - z_j + m_ij)) for each j with y_j > 0:  m_ij = alpha [y_i = 0] + delta(y_i, y_j).

        delta = 1, or beta |y_i - y_j|^power

    Every better candidate (graded labels) is to stand above every worse one by a margin, and above those of no value by alpha more.

    logits, labels [.., n], lists on the last axis; where False = left out. A list's value is the mean over its j that have a candidate
    below them, the loss the mean over lists that have one (our choice: eq. 18 sums); none gives 0.
    RankTower, eq. 18-19. As printed the logarithm's sum may be 0; the 1 is the part of j itself, which Rankmax has (our choice).

    alpha         additional margin over candidates whose label is 0: the easier they are, the larger; 2 to 5 in the paper
    beta, power   of delta; without beta it is 1, as in the paper's runs

    >>> am_rankmax(torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]]))  # (log(1 + 0 + 0) + log(1 + 1)) / 2
    tensor(0.3466)
    """
    if alpha < 0:
        raise ValueError(f"alpha: must be at least 0; got {alpha}")
    if beta is not None and beta < 0:
        raise ValueError(f"beta: must be at least 0; got {beta}")
    if power <= 0:
        raise ValueError(f"power: must be positive; got {power}")
    keep = kept(logits, where)

    def values(z: Tensor, kept: Tensor, y: Tensor) -> Tensor:
        lowest = y.masked_fill(~kept, torch.inf).amin(dim=1, keepdim=True)
        index, real = chosen((y > 0) & (y > lowest) & kept)  # [lists, P]
        above = y.gather(1, index).unsqueeze(2)
        margin = torch.ones_like(above) if beta is None else beta * (above - y.unsqueeze(1)).abs().pow(power)
        reach = z.unsqueeze(1) - z.gather(1, index).unsqueeze(2) + margin + (alpha * (y == 0)).unsqueeze(1)  # [lists, P, n]
        below = (y.unsqueeze(1) < above) & kept.unsqueeze(1)
        each = torch.log1p(torch.relu(reach).masked_fill(~below, 0.0).sum(dim=2)).masked_fill(~real, 0.0)
        return each.sum(dim=1) / real.sum(dim=1).clamp(min=1)

    return mean_over_lists(by_parts(values, logits, keep, labels), _has_better(labels, keep))


def _has_better(labels: Tensor, keep: Tensor) -> Tensor:
    """Lists in which a positive stands above another candidate.  # bool [..]"""
    top = labels.masked_fill(~keep, -torch.inf).amax(dim=-1)
    return (top > 0) & (top > labels.masked_fill(~keep, torch.inf).amin(dim=-1))
