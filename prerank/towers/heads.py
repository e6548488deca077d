"""The head that most models share: MaxSim over head groups, plus biases.

    logits_t = sum over groups of objective t of  sum_h max_h' <u_h, v_h'>   + user bias + item bias

DSSM is one group of one head a side (the dot product). IntTower is L*H user heads against H item
heads (CIKM 2022, eq. 8-9). An id head is one more group. What is stored is what `prepare_*`
returns: normalisation happens there, temperature goes into the user's vectors and the overall bias
into the user's, so that whoever scores needs nothing but products, maxima and sums. A guess of the other side is passed
on as it is: a loss compares it with directions, which preparing the other side does not change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from prerank.batch import Group, Representation


def maxsim(user: Tensor, item: Tensor) -> Tensor:
    """sum over user heads of max over item heads of the inner product.

    user [B, Hu, K], item [B, C, Hi, K] -> [B, C]

    >>> u = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> v = torch.tensor([[[[3.0, 0.0], [0.0, 1.0]]]])
    >>> maxsim(u, v)  # max(3, 0) + max(0, 2)
    tensor([[5.]])
    """
    b, c, hi, k = item.shape
    if user.shape[1] == hi == 1:
        return (user * item[:, :, 0]).sum(dim=2)
    products = torch.bmm(user, item.reshape(b, c * hi, k).transpose(1, 2))  # [B, Hu, C*Hi]
    return products.view(b, -1, c, hi).amax(dim=3).sum(dim=1)


class MaxSim(nn.Module):
    """See the module's first lines.

    groups        shape of every group, the objective it speaks for, and whether its heads are brought to length 1
    temperature   'learnable': each cosine group's products are multiplied by a learned positive scale, from
                  `scale` on (a dot product has its own); 'none': they are not
    bias          one learned bias an objective

    The bare cosine of IntTower's two-tower baseline is a cosine group, temperature='none', bias=False;
    its logits lie in [-1, 1], so that its LogLoss cannot be good (published: .4559).
    """

    maxsim = True

    def __init__(self, groups: Sequence[Group], objectives: int = 1, *, temperature: str = "none", scale: float = 5.0,
                 bias: bool = True) -> None:  # fmt: skip
        super().__init__()
        if temperature not in ("none", "learnable"):
            raise ValueError(f"temperature: must be none or learnable; got '{temperature}'")
        self.groups = tuple(groups)
        self.objectives = objectives
        cosines = sum(g.cosine for g in self.groups)
        self.log_scale = nn.Parameter(torch.full((cosines,), math.log(scale))) if temperature == "learnable" and cosines else None
        self.bias = nn.Parameter(torch.zeros(objectives)) if bias else None

    def prepare_user(self, representation: Representation) -> Representation:
        """Cosine heads normalised and scaled; the overall bias joins the user's.  # [U, H_g, K_g], [U, T]"""
        scales = None if self.log_scale is None else self.log_scale.exp().unbind()
        prepared = self._of_length(representation.groups, scales)
        bias = representation.bias
        if self.bias is not None:
            bias = self.bias.expand(prepared[0].shape[0], -1) if bias is None else bias + self.bias
        return Representation(tuple(prepared), bias, representation.guess)

    def prepare_items(self, representation: Representation) -> Representation:
        """Cosine heads normalised: the row that a generation stores.  # [N, H_g, K_g], [N, T]"""
        return Representation(tuple(self._of_length(representation.groups)), representation.bias, representation.guess)

    def forward(self, user: Representation, item: Representation, user_index: Tensor, item_index: Tensor) -> Tensor:
        """Prepared representations and indices [B], [B, C] -> logits [B, C, T]."""
        b, c = item_index.shape
        totals: list[Tensor | None] = [None] * self.objectives
        for group, u, v in zip(self.groups, user.groups, item.groups, strict=True):
            score = maxsim(u.index_select(0, user_index), v.index_select(0, item_index.flatten()).view(b, c, *v.shape[1:]))
            before = totals[group.objective]
            totals[group.objective] = score if before is None else before + score
        logits = torch.stack([t if t is not None else score.new_zeros(b, c) for t in totals], dim=2)  # [B, C, T]
        if user.bias is not None:
            logits = logits + user.bias.index_select(0, user_index).unsqueeze(1)
        if item.bias is not None:
            logits = logits + item.bias.index_select(0, item_index.flatten()).view(b, c, -1)
        return logits.float()

    def _of_length(self, groups: Sequence[Tensor], scales: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Cosine groups with heads of these lengths (default 1), the others as they are.

        The factor of a head is found first, so that the heads, which are large, are passed over once.
        """
        lengths: Iterator[Tensor | float] = itertools.repeat(1.0) if scales is None else iter(scales)
        return [g * (next(lengths) / _norm(g)) if group.cosine else g for g, group in zip(groups, self.groups, strict=True)]


def _norm(heads: Tensor) -> Tensor:
    """[rows, H, K] -> [rows, H, 1], not quite zero."""
    return torch.linalg.vector_norm(heads, dim=-1, keepdim=True).clamp_min(1e-12)
