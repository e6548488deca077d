"""Matrix factorisation: a two-tower without layers, and the bar that every other tower must clear.

    logit = <p_u, q_i> + b_u + b_i + c

Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009
(eq. 4, with a logistic loss). `IdTower` is also the id head of other towers: one more head group
of one head a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prerank.batch import Group, Representation, TokenTower, Tower
from prerank.layers import IdTable, id_tables
from prerank.schema import Schema
from prerank.towers.heads import MaxSim
from prerank.towers.two_tower import TwoTower


class IdTower(nn.Module):
    """An id's own vector and bias; reads no field.  # groups T x [rows, 1, K], bias [rows, T]"""

    needs_fields = False

    def __init__(self, ids: IdTable, objectives: int) -> None:
        super().__init__()
        self.objectives = objectives
        self.ids = ids

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        vectors, bias = self.ids(ids)  # [rows, T*K], [rows, T]
        return Representation(tuple(v.unsqueeze(1) for v in vectors.chunk(self.objectives, dim=1)), bias)


class WithIdHead(nn.Module):
    """A tower, of fields or of tokens, and an id tower side by side: their groups joined, their biases added."""

    needs_fields = True

    def __init__(self, inner: Tower | TokenTower, ids: IdTower) -> None:
        super().__init__()
        self.inner: Any = inner
        self.ids = ids
        self.id_groups = ids.objectives  # they come last
        self.reads_tokens = getattr(inner, "reads_tokens", False)
        self.guesses = getattr(inner, "guesses", False)

    def forward(self, fields: Tensor | None, ids: Tensor, *mask: Tensor) -> Representation:
        inner, own = self.inner(fields, ids, *mask), self.ids(fields, ids)
        bias = own.bias if inner.bias is None else inner.bias + own.bias
        return Representation((*inner.groups, *own.groups), bias, inner.guess)


def id_groups(width: int, objectives: int) -> list[Group]:
    """The head groups that an id tower on both sides makes: one of one head a side an objective."""
    return [Group(1, 1, width, objective=t) for t in range(objectives)]


def id_towers(
    schema: Schema, sizes: Mapping[str, int], width: int, std: float = 0.05, history: bool = False
) -> tuple[IdTower, IdTower]:
    """The user's and the item's id tower; `history`: with what the ids did, see layers/history.py."""
    user, item = id_tables(schema, sizes, width, std, history)
    return IdTower(user, len(schema.objectives)), IdTower(item, len(schema.objectives))


def mf(schema: Schema, sizes: Mapping[str, int], *, width: int = 64, std: float = 0.05) -> TwoTower:
    """Matrix factorisation with biases, as a backbone.

    width   K of the id vectors; wider is better on MovieLens up to about 128
    std     of the vectors' initialisation; small, so that biases speak first

    >>> from prerank.schema import Schema
    >>> mf(Schema(features=(), user_id="u", item_id="i"), {"u": 10, "i": 20}, width=4).head.groups
    (Group(user_heads=1, item_heads=1, width=4, objective=0, levels=1, cosine=False),)
    """
    user, item = id_towers(schema, sizes, width, std)
    objectives = len(schema.objectives)
    return TwoTower(schema, None, user, item, MaxSim(id_groups(width, objectives), objectives))


def with_id_head(
    schema: Schema, sizes: Mapping[str, int], user: Tower | TokenTower, item: Tower | TokenTower, width: int, std: float,
    history: bool = False,
) -> tuple[WithIdHead, WithIdHead]:
    """Both towers with an id head beside them."""
    user_ids, item_ids = id_towers(schema, sizes, width, std, history)
    return WithIdHead(user, user_ids), WithIdHead(item, item_ids)
