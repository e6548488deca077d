"""Losses over a whole list: a distribution over its candidates, or a smooth NDCG.

logits, labels [.., n], lists on the last axis; where False = left out. The loss is the mean over lists that have something to
say; none at all gives 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prerank.losses.lists import chosen, floored, kept, mean_over_lists
from prerank.losses.parts import by_parts

GAINS = ("exponential", "linear")


def softmax(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """- sum_i y_i / sum_k y_k  log softmax(z)_i: each list's labels as a distribution; a list without positives says nothing.

    Bruch et al., "An Analysis of the Softmax Cost Function for Learning to Rank", ICTIR 2019 (eq. 4). Unlike `info_nce`, which averages
    over positives, every list counts the same.

    >>> softmax(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    tensor(1.3863)
    """
    keep = kept(logits, where)
    mass = labels.clamp(min=0).masked_fill(~keep, 0.0)
    total = mass.sum(dim=-1, keepdim=True)
    return _cross_entropy(mass / total.clamp(min=1e-12), logits, keep, total.squeeze(-1) > 0)


def listnet(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """- sum_i softmax(y)_i log softmax(z)_i: top-one probabilities of labels against those of logits.

    Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007 (eq. 3 and 4 with exp). A list of equal labels
    asks for equal logits.

    >>> listnet(torch.tensor([[0.0, 0.0]]), torch.tensor([[5.0, 5.0]]))
    tensor(0.6931)
    """
    keep = kept(logits, where)
    target = torch.softmax(floored(labels.to(logits.dtype), keep), dim=-1)
    return _cross_entropy(target, logits, keep, keep.any(dim=-1))


def approx_ndcg(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, temperature: float = 0.1,
                gain: str = "exponential") -> Tensor:  # fmt: skip
    """1 - NDCG with smooth ranks: rank_i = 1 + sum_{j != i} sigmoid((z_j - z_i) / temperature).

        NDCG = sum_i g(y_i) / log2(1 + rank_i)  /  the same in the best order

    Qin, Liu, Li, "A General Approximation Framework for Direct Optimization of Information Retrieval Measures", Information Retrieval
    2010 (eq. 12 and 20). A list without positives says nothing.

    temperature   smaller is nearer to true ranks, and flatter
    gain          g(y): 'exponential' 2^y - 1, or 'linear' y (labels beyond 10, such as seconds)
    """
    if temperature <= 0:
        raise ValueError(f"temperature: must be positive; got {temperature}")
    if gain not in GAINS:
        raise ValueError(f"gain: must be one of {', '.join(GAINS)}; got '{gain}'")
    keep = kept(logits, where)
    graded = labels.clamp(min=0).masked_fill(~keep, 0.0)
    gains = graded if gain == "linear" else torch.exp2(graded) - 1
    places = torch.arange(2, logits.shape[-1] + 2, device=logits.device, dtype=logits.dtype)
    best = (gains.sort(dim=-1, descending=True).values / torch.log2(places)).sum(dim=-1)

    def found(z: Tensor, kept: Tensor, g: Tensor) -> Tensor:
        index, real = chosen(g > 0)  # [lists, P]: ranks are needed of those that gain
        above = torch.sigmoid((z.unsqueeze(1) - z.gather(1, index).unsqueeze(2)) / temperature)  # [lists, P, n]: how much j stands above i
        ranks = 0.5 + above.masked_fill(~kept.unsqueeze(1), 0.0).sum(dim=2)  # i stands above itself by sigmoid(0)
        return (g.gather(1, index) / torch.log2(1 + ranks)).masked_fill(~real, 0.0).sum(dim=1)

    return mean_over_lists(1 - by_parts(found, logits, keep, gains) / best.clamp(min=1e-12), best > 0)


def _cross_entropy(target: Tensor, logits: Tensor, keep: Tensor, speaks: Tensor) -> Tensor:
    """- sum target log softmax(z), averaged over the lists that speak."""
    each = -target * torch.log_softmax(floored(logits, keep), dim=-1)
    return mean_over_lists(each.masked_fill(~keep, 0.0).sum(dim=-1), speaks)
