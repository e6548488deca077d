"""InfoNCE, and IntTower's contrastive interaction regularisation (CIR) built on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.objective import Term
from prerank.losses.partition import log_partition


def info_nce(logits: Tensor, labels: Tensor, *, where: Tensor | None = None) -> Tensor:
    """-log softmax of the positives, averaged over positives:  - sum y_i log softmax(z)_i / sum y.

    logits, labels [.., n], lists on the last axis; where False = left out of both sums; a list without
    positives, or all masked, adds nothing, and a batch without positives gives 0.
    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018 (eq. 4).

    >>> info_nce(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    if where is not None:
        # A finite floor, not -inf: a fully masked list must stay free of NaN in its gradient too.
        logits = logits.masked_fill(~where, torch.finfo(logits.dtype).min / 4)
        labels = labels.masked_fill(~where, 0.0)
    each = -labels * torch.log_softmax(logits, dim=-1)
    return each.masked_fill(labels == 0, 0.0).sum() / labels.sum().clamp(min=1e-12)


class ContrastiveTerm(Term):
    """CIR (IntTower, CIKM 2022, eq. 10): a positive's user heads should be nearest its own item's heads.

        -1/|Q| sum_{(u,v) in Q} log  exp(sim(M_u^L, M_v)/t) / sum_{v'} exp(sim(M_u^L, M_v')/t)

    Q are the batch's positives, M_u^L the last user level's heads, v' the distinct items of the batch: an
    item that occurs in several rows is counted once and never as its own negative (our choice). sim is the
    cosine of the flattened heads; where the sides have different numbers of heads, the mean over user heads of the
    largest cosine with an item head (our choice). The released code computes it and never adds it; here it is added.

    temperature   t; .07 in the released code
    """

    needs_towers = True

    def __init__(
        self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, temperature: float = 0.07
    ) -> None:
        super().__init__("cir", weight=weight, objective=objective, stages=stages)
        if temperature <= 0:
            raise ValueError(f"temperature: must be positive; got {temperature}")
        self.temperature = temperature

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        positive = (batch.labels[..., self.objective] > 0) & self.seen(batch)  # [B, C]
        rows, columns = positive.nonzero(as_tuple=True)
        if rows.numel() == 0:
            return output.logits.new_zeros(())
        assert output.user is not None
        assert output.item is not None
        index = next(i for i, g in enumerate(output.groups) if g.objective == self.objective)
        group, users, items = output.groups[index], output.user.groups[index], output.item.groups[index]
        last = users[:, users.shape[1] - group.user_heads // group.levels :]  # M_u^L  [U, H, K]
        user, own = batch.user_index[rows], batch.item_index[rows, columns]  # [P]
        same = last.shape[1] == items.shape[1]
        u, v = (unit(t.flatten(1).unsqueeze(1) if same else t) for t in (last, items))  # [U, 1, H K], [N, 1, H K]; [U, Hu, K], [N, Hi, K]
        u = u / (self.temperature * u.shape[1])
        attracted = torch.einsum("phk,pjk->phj", u.index_select(0, user), v.index_select(0, own)).amax(dim=2).sum()
        positives = torch.bincount(user, minlength=len(u))  # a user's positives share one sum over the items
        return (log_partition(u.to(last.dtype), v.to(items.dtype), positives) - attracted) / rows.numel()


def unit(heads: Tensor) -> Tensor:
    """[rows, H, K] -> heads of length 1, at least in float32."""
    return F.normalize(heads.to(torch.promote_types(heads.dtype, torch.float32)), dim=2)
