"""RankTower's head: both sides' heads read each other before the best match of each user head is summed.

    E_u', E_i' = cross attention of E_u, E_i                                     (eq. 5-12)  layers/cross_attention.py
    s = ( sum_p max_q cos(E_u'^p, E_i'^q) ) / t,   t learnable                    (eq. 13)

Unlike MaxSim it must see the pair, so `maxsim` is False and whoever serves it calls it for the candidates given: fine for
10^2..10^4 of them, no index. What is about one side alone is stored: E, Q, U, K, V, five groups of one shape an objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prerank.batch import Group, Representation
from prerank.layers.cross_attention import PARTS, CrossAttention
from prerank.towers.heads import maxsim


class CrossMaxSim(nn.Module):
    """See the module's first lines. Our choices: a cross attention an objective, an overall bias, products of id heads added.

    heads, item_heads, width   P, Q, K: each objective's E_u is [rows, P, K], its E_i [rows, Q, K]
    scale                      1 / t before training
    bias                       one learned bias an objective
    ids                        groups of one head a side that come behind the E of all objectives: their products join the logits
    """

    maxsim = False

    def __init__(self, heads: int, item_heads: int, width: int, objectives: int = 1, *, scale: float = 5.0, bias: bool = True,
                 ids: Sequence[Group] = ()) -> None:  # fmt: skip
        super().__init__()
        self.objectives = objectives
        pairs = [Group(heads, item_heads, width, objective=t) for t in range(objectives) for _ in range(PARTS)]
        self.groups = (*pairs, *ids)
        self.attention = nn.ModuleList(CrossAttention(width) for _ in range(objectives))
        self.log_scale = nn.Parameter(torch.full((objectives,), math.log(scale)))
        self.bias = nn.Parameter(torch.zeros(objectives)) if bias else None

    def prepare_user(self, representation: Representation) -> Representation:
        """E_u an objective -> E, Q, U, K, V of each, [U, P, K]; id groups as they are; the overall bias joins the user's [U, T]."""
        prepared = self._projected(representation, [a.user for a in self.attention])  # type: ignore[misc]
        bias = representation.bias
        if self.bias is not None:
            bias = self.bias.expand(prepared[0].shape[0], -1) if bias is None else bias + self.bias
        return Representation(prepared, bias)

    def prepare_items(self, representation: Representation) -> Representation:
        """E_i an objective -> E, Q, U, K, V of each, [N, Q, K]: the row that a generation stores."""
        return Representation(self._projected(representation, [a.item for a in self.attention]), representation.bias)  # type: ignore[misc]

    def forward(self, user: Representation, item: Representation, user_index: Tensor, item_index: Tensor) -> Tensor:
        """Prepared representations and indices [B], [B, C] -> logits [B, C, T]."""
        b, c = item_index.shape
        flat = item_index.flatten()
        users = [g.index_select(0, user_index) for g in user.groups]  # [B, P, K]
        items = [g.index_select(0, flat).unflatten(0, (b, c)) for g in item.groups]  # [B, C, Q, K]
        scores = []
        for t, attention in enumerate(self.attention):
            own = slice(t * PARTS, (t + 1) * PARTS)
            told_u, told_i = attention(tuple(users[own]), tuple(items[own]))  # [B, C, P, K], [B, C, Q, K]
            scores.append(_cosines(told_u.flatten(0, 1), told_i.flatten(0, 1)).view(b, c) * self.log_scale[t].exp())
        for group, u, v in zip(self.groups[PARTS * self.objectives :], users[PARTS * self.objectives :], items[PARTS * self.objectives :],
                               strict=True):  # fmt: skip
            scores[group.objective] = scores[group.objective] + maxsim(u, v)
        logits = torch.stack(scores, dim=2)  # [B, C, T]
        if user.bias is not None:
            logits = logits + user.bias.index_select(0, user_index).unsqueeze(1)
        if item.bias is not None:
            logits = logits + item.bias.index_select(0, flat).view(b, c, -1)
        return logits.float()

    def _projected(self, representation: Representation, project: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        heads, ids = representation.groups[: self.objectives], representation.groups[self.objectives :]
        return (*(part for p, e in zip(project, heads, strict=True) for part in p(e)), *ids)


def _cosines(user: Tensor, item: Tensor) -> Tensor:
    """sum_p max_q cos(u_p, i_q) of pairs: [n, P, K], [n, Q, K] -> [n]. Products first, lengths after: they are fewer."""
    products = torch.bmm(user, item.mT)  # [n, P, Q]
    lengths = torch.linalg.vector_norm(user, dim=2).unsqueeze(2), torch.linalg.vector_norm(item, dim=2).unsqueeze(1)
    return (products / (lengths[0] * lengths[1]).clamp_min(1e-12)).amax(dim=2).sum(dim=1)
