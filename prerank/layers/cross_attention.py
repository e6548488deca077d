"""RankTower's gated cross-attention: the heads of one side read those of the other, pair by pair.

    GAU(Q, K, V):   Q = phi(X_Q W_Q)   K = phi(X_K W_K)   V = phi(X_V W_V)   U = sigmoid(X_Q W_U)
                    A = softmax(Q K' / sqrt d)            O = (U * (A V)) W_o                       (eq. 7-12)
    E_u' = LayerNorm(E_u + GAU(E_u, E_i, E_i))            E_i' = LayerNorm(E_i + GAU(E_i, E_u, E_u))  (eq. 5-6)

Yan and Li, "RankTower: A Synergistic Framework for Enhancing Two-Tower Pre-Ranking Model", 2024. All but A, O and the
norm is about one side alone, so it can be done once an item and once a request. Our choices: phi = SiLU, weights of its own
for each way, d = the heads' width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.layers.linear import Linear

PARTS = 5  # tensors that are prepared of a side: its heads, what it asks (Q, U), what it tells (K, V)


class GatedAttention(nn.Module):
    """One way: heads that ask read heads that tell; a LayerNorm(E + GAU) with its own weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asking = Linear(width, 2 * width, bias=False)  # W_Q, W_U
        self.telling = Linear(width, 2 * width, bias=False)  # W_K, W_V
        self.out = Linear(width, width, bias=False)  # W_o
        self.norm = nn.LayerNorm(width)

    def ask(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, P, d] -> Q / sqrt d and U, each [rows, P, d]."""
        query, gate = _each(self.asking, heads).chunk(2, dim=2)
        return F.silu(query) * (1 / math.sqrt(heads.shape[2])), torch.sigmoid(gate)

    def tell(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, Q, d] -> K and V, each [rows, Q, d]."""
        key, value = F.silu(_each(self.telling, heads)).chunk(2, dim=2)
        return key, value

    def answer(self, heads: Tensor, gate: Tensor, read: Tensor) -> Tensor:
        """E, U and A V, broadcast -> LayerNorm(E + (U * (A V)) W_o)  # [.., d]"""
        mixed: Tensor = self.norm(heads + self.out(gate * read))
        return mixed


class CrossAttention(nn.Module):
    """Both ways, in the two steps that make it servable: `user`, `item` look at one side, `forward` at pairs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_user = GatedAttention(width)
        self.of_item = GatedAttention(width)

    def user(self, heads: Tensor) -> tuple[Tensor, ...]:
        """E_u [rows, P, d] -> E, Q, U (it asks) and K, V (it tells the items), each [rows, P, d]."""
        return heads, *self.of_user.ask(heads), *self.of_item.tell(heads)

    def item(self, heads: Tensor) -> tuple[Tensor, ...]:
        """E_i [rows, Q, d] -> E, Q, U (it asks) and K, V (it tells the user), each [rows, Q, d]."""
        return heads, *self.of_item.ask(heads), *self.of_user.tell(heads)

    def forward(self, user: tuple[Tensor, ...], item: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """What `user` gave, for each list [B, P, d], and what `item` gave, for each candidate [B, C, Q, d].

        Returns E_u' [B, C, P, d] and E_i' [B, C, Q, d].
        """
        heads_u, query_u, gate_u, key_u, value_u = user
        heads_i, query_i, gate_i, key_i, value_i = item
        b, c, q, d = heads_i.shape
        # Each softmax runs over a dimension that is not the last: over four numbers side by side it takes ten times as long.
        scores = (query_u @ key_i.flatten(1, 2).mT).view(b, -1, c, q)  # [B, P, C, Q]
        weights = torch.softmax(scores.permute(0, 3, 1, 2), dim=1)  # [B, Q, P, C]
        read = weights.permute(0, 3, 2, 1).contiguous() @ value_i  # [B, C, P, d]; other strides make it C products
        of_user = self.of_user.answer(heads_u.unsqueeze(1), gate_u.unsqueeze(1), read)
        weights = torch.softmax(key_u @ query_i.flatten(1, 2).mT, dim=1)  # [B, P, C*Q]
        read = (weights.mT @ value_u).view(b, c, q, d)
        return of_user, self.of_item.answer(heads_i, gate_i, read)


def _each(layer: Linear, heads: Tensor) -> Tensor:
    """A layer on every head; as rows, which `Linear` rounds up."""
    return layer(heads.flatten(0, 1)).unflatten(0, heads.shape[:2])
