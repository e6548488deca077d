"""A ranking model: it may look at user and item together, so it is never decoupled and never indexed.

Its place is behind the pre-ranker (the teacher it should agree with) or, kept small, in its stead (COLD).
A ranker is a recipe like a tower: a function (schema, sizes, options) -> Ranker, which puts a network
between the fields of a pair and its logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Columns, Output
from prerank.layers import Embeddings, Histories, id_tables
from prerank.schema import Schema


class Network(Protocol):
    """Fields of pairs [rows, F, D], user's first, then item's -> logits [rows, T] and the penultimate vector [rows, K] or None."""

    def __call__(self, fields: Tensor) -> tuple[Tensor, Tensor | None]: ...


class Ranker(nn.Module):
    """Batch -> Output with hidden; embeddings are looked up once a distinct user and item, the network sees every pair.

    embeddings   makes the fields; None when no part reads any (LR)
    network      fields of a pair -> logits and penultimate vector; None when there is only the wide part
    wide         a weight for each feature value, added to the logits; None: no such part
    product      the id head, added to the logits as well (`id_product`); None: no such part
    """

    def __init__(self, embeddings: Embeddings | None, network: nn.Module | None, wide: Wide | None = None,
                 product: IdProduct | None = None) -> None:  # fmt: skip
        super().__init__()
        if (embeddings is None) != (network is None) or (network is None and wide is None):
            raise ValueError("ranker: needs a network with embeddings, or a wide part, or both")
        self.embeddings = embeddings
        self.network = network
        self.wide = wide
        self.product = product
        self._histories = Histories(product and product.user_ids, product and product.item_ids, *(product.names if product else ("", "")))

    def forward(self, batch: Batch) -> Output:
        """Logits [B, C, T] and hidden [B, C, K] (None for a purely wide ranker); padding never enters the network and gets 0."""
        if self.training:
            self._histories.leave_out(batch)
        b, c = batch.item_index.shape
        user = batch.user_index.repeat_interleave(c)  # [B*C]
        item = batch.item_index.flatten()
        kept = None if c == 1 else batch.where.flatten().nonzero().squeeze(1)
        if kept is not None:
            user, item = user[kept], item[kept]
        logits, hidden = self.pairs(batch.user, batch.item, user, item)
        return Output(_lists(logits, kept, b, c), hidden=None if hidden is None else _lists(hidden, kept, b, c))

    def pairs(self, users: Columns, items: Columns, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor | None]:
        """Columns of distinct users and items, and the rows of each pair [P], [P] -> logits [P, T], hidden [P, K] or None."""
        logits: Tensor | None = None
        hidden: Tensor | None = None
        if self.embeddings is not None and self.network is not None:
            fields = [self.embeddings("user", users)[user], self.embeddings("item", items)[item]]  # [P, Fu, D], [P, Fi, D]
            logits, hidden = (_full(x) for x in self.network(torch.cat(fields, dim=1)))
        for part in (self.wide, self.product):
            if part is not None:
                beside = part(users, items, user, item)
                logits = beside if logits is None else logits + beside
        assert logits is not None
        return logits, hidden

    @property
    def remembers(self) -> bool:
        """Whether scores of train rows hold those rows' own labels: see layers/history.py."""
        return bool(self._histories)

    def remember(self, users: Tensor, items: Tensor, level: Tensor) -> None:
        """The train interactions, for an id head with histories; see `layers.Histories`."""
        self._histories.remember(users, items, level)

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """Give the 'unknown' and 'missing' rows that training never saw the average row of their table."""
        for part in (self.embeddings, self.wide, self.product):
            if part is not None:
                part.fill_cold_rows(counts)


class Wide(nn.Module):
    """The linear part w.x + b: one weight an objective for every feature value.  # [P, T]"""

    def __init__(self, schema: Schema, sizes: Mapping[str, int]) -> None:
        super().__init__()
        objectives = len(schema.objectives)
        narrow = [f.model_copy(update={"width": None, "pooling": "mean", "encoding": "learned"}) for f in schema.features]
        self.weights = Embeddings(schema.model_copy(update={"features": tuple(narrow), "width": objectives}), sizes, std=0.0)
        self.bias = nn.Parameter(torch.zeros(objectives))

    def forward(self, users: Columns, items: Columns, user: Tensor, item: Tensor) -> Tensor:
        """Sum of each side once a distinct row, then a sum a pair."""
        of_user = self.weights("user", users).sum(dim=1)  # [U, T]
        of_item = self.weights("item", items).sum(dim=1)  # [N, T]
        return of_user[user] + of_item[item] + self.bias

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """As `Embeddings.fill_cold_rows`."""
        self.weights.fill_cold_rows(counts)


class IdProduct(nn.Module):
    """The id head: matrix factorisation <p_u, q_i> + b_u + b_i beside the network, one product an objective.  # [P, T]

    Koren, Bell, Volinsky, IEEE Computer 2009 (eq. 4, without the overall bias: the network has one). It learns what
    an MLP between the ids cannot; it may want its own rate and decay (`training.optimizer.groups`, '*ids.table').
    """

    def __init__(self, schema: Schema, sizes: Mapping[str, int], width: int, std: float, history: bool) -> None:
        super().__init__()
        self.names = schema.user_id, schema.item_id
        self.shape = len(schema.objectives), width
        self.user_ids, self.item_ids = id_tables(schema, sizes, width, std, history)

    def forward(self, users: Columns, items: Columns, user: Tensor, item: Tensor) -> Tensor:
        """Tables are read once a distinct row; a product and two biases a pair."""
        p, of_user = self.user_ids(users[self.names[0]])  # [U, T*K], [U, T]
        q, of_item = self.item_ids(items[self.names[1]])
        return (p[user] * q[item]).unflatten(1, self.shape).sum(dim=2) + of_user[user] + of_item[item]

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """As `Embeddings.fill_cold_rows`."""
        self.user_ids.fill_cold_rows(counts)
        self.item_ids.fill_cold_rows(counts)


def id_product(schema: Schema, sizes: Mapping[str, int], width: int | None, std: float, history: bool = False) -> IdProduct | None:
    """What a recipe's options `id_head` and `id_history` mean: the width of the id head's vectors, or None: no id head; and whether
    it knows what the ids did (layers/history.py). Raises ValueError."""
    if width is not None and width < 1:
        raise ValueError(f"id_head: must be at least 1 or null; got {width}")
    return None if width is None else IdProduct(schema, sizes, width, std, history)


def pair_shape(schema: Schema) -> tuple[int, int]:
    """Fields of a pair and their width, F and D of what a network sees."""
    return sum(f.field for f in schema.features), schema.width


def _full(values: Tensor | None) -> Tensor | None:
    """What autocast made half, in fp32: losses and biases beside it want no less."""
    return values.float() if values is not None and values.dtype == torch.bfloat16 else values


def _lists(values: Tensor, kept: Tensor | None, b: int, c: int) -> Tensor:
    """[P, n] back to lists [B, C, n], zeros where padded."""
    if kept is not None:
        values = values.new_zeros(b * c, values.shape[1]).index_copy(0, kept, values)
    return values.unflatten(0, (b, c))
