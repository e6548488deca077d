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
from prerank.layers import Embeddings
from prerank.schema import Schema


class Network(Protocol):
    """Fields of pairs [rows, F, D], user's first, then item's -> logits [rows, T] and the penultimate vector [rows, K] or None."""

    def __call__(self, fields: Tensor) -> tuple[Tensor, Tensor | None]: ...


class Ranker(nn.Module):
    """Batch -> Output with hidden; embeddings are looked up once a distinct user and item, the network sees every pair.

    embeddings   makes the fields; None when no part reads any (LR)
    network      fields of a pair -> logits and penultimate vector; None when there is only the wide part
    wide         a weight for each feature value, added to the logits; None: no such part
    """

    def __init__(self, embeddings: Embeddings | None, network: nn.Module | None, wide: Wide | None = None) -> None:
        super().__init__()
        if (embeddings is None) != (network is None) or (network is None and wide is None):
            raise ValueError("ranker: needs a network with embeddings, or a wide part, or both")
        self.embeddings = embeddings
        self.network = network
        self.wide = wide

    def forward(self, batch: Batch) -> Output:
        """Logits [B, C, T] and hidden [B, C, K] (None for a purely wide ranker); padding never enters the network and gets 0."""
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
        logits = hidden = None
        if self.embeddings is not None and self.network is not None:
            fields = [self.embeddings("user", users)[user], self.embeddings("item", items)[item]]  # [P, Fu, D], [P, Fi, D]
            logits, hidden = self.network(torch.cat(fields, dim=1))
        if self.wide is not None:
            wide = self.wide(users, items, user, item)
            logits = wide if logits is None else logits + wide
        assert logits is not None
        return logits, hidden

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """Give the 'unknown' and 'missing' rows that training never saw the average row of their table."""
        for part in (self.embeddings, self.wide):
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


def _lists(values: Tensor, kept: Tensor | None, b: int, c: int) -> Tensor:
    """[P, n] back to lists [B, C, n], zeros where padded."""
    if kept is not None:
        values = values.new_zeros(b * c, values.shape[1]).index_copy(0, kept, values)
    return values.unflatten(0, (b, c))
