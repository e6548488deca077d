"""What an id did, summed: each id's vector gains n^-1/2 times the sum of a factor for every train interaction it had.

    h_u = |R(u)|^-1/2  sum over (i, level) in R(u) of Y[i, level]          users;  items likewise, over their users

Koren, "Factorization Meets the Neighborhood", KDD 2008 (SVD++, eq. 15), on both sides and with a factor for each level of feedback
instead of implicit ones only (ours). In training a batch's own rows are left out of the sums, whichever id of the batch
they belong to (ours: leave-batch-out; as good as leaving out each row's own alone, and every id still has one vector a batch). So
no row sees its own label. Outside training the sums of all train rows are a table like any other: an item's vector is as precomputable, a
user's as quick, as without histories. For train rows themselves that table holds their own labels: metrics of the train split flatter.

R(u) are the rows that training was given (`remember`); a step costs time in proportion to the rows of the batch's ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.batch import Batch, Stage
from prerank.layers.embedding import IdTable, fill_cold
from prerank.schema import Schema

HISTORY_STD = 0.01  # of the factors' initialisation: hundreds of them are summed
WHOLE = 0.25  # of all interactions in the lists of a batch's ids: from here on summing everything is quicker


class Lists(NamedTuple):
    """Interactions in order of id and token (the other id and the level), and in order of token."""

    keys: Tensor  # [R] id * tokens + token, ascending
    tokens: Tensor  # [R]
    ids: Tensor  # [R] in order of token
    rank: Tensor  # [R] where the interaction of each key stands in that order
    start_of_id: Tensor  # [ids] where an id's interactions start
    start_of_token: Tensor  # [tokens]
    counts: Tensor  # [ids] float

    @classmethod
    def of(cls, ids: Tensor, tokens: Tensor, n_ids: int, n_tokens: int) -> Lists:
        keys = (ids * n_tokens + tokens).sort().values
        ids, tokens = keys // n_tokens, keys % n_tokens
        place = tokens.argsort(stable=True)
        per_id, per_token = torch.bincount(ids, minlength=n_ids), torch.bincount(tokens, minlength=n_tokens)
        rank = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))
        return cls(keys, tokens, ids[place], rank, per_id.cumsum(0) - per_id, per_token.cumsum(0) - per_token, per_id.float())

    def to(self, device: torch.device) -> Lists:
        return Lists(*(part.to(device) for part in self))

    def find(self, keys: Tensor) -> Tensor:
        """Places of interactions [P], each of equal ones its own; those that are not there are left out."""
        keys = keys.sort().values
        first = torch.searchsorted(keys, keys)  # of equal ones
        place = torch.searchsorted(self.keys, keys) + torch.arange(len(keys), device=keys.device) - first
        inside = place < len(self.keys)
        place, keys = place[inside], keys[inside]
        return place[self.keys[place] == keys]


class History(nn.Module):
    """The sums of one side's ids.

    rows, others   sizes of the id's vocabulary and of the other side's
    levels         kinds of interaction, each with its own factor
    """

    def __init__(self, rows: int, others: int, width: int, levels: int, std: float) -> None:
        super().__init__()
        self.levels = levels
        self.factors = nn.Parameter(torch.randn(others * levels, width) * std)
        self.register_buffer("sums", torch.zeros(rows, width))
        self.sums: Tensor
        self._lists: Lists | None = None
        self._left_out: Tensor | None = None

    def remember(self, ids: Tensor, others: Tensor, level: Tensor) -> None:
        """The train interactions [R]: ids of this side, of the other, and levels from 0 on."""
        self._lists = Lists.of(ids.long(), others.long() * self.levels + level.long(), len(self.sums), len(self.factors))

    def leave_out(self, ids: Tensor, others: Tensor, level: Tensor) -> None:
        """Interactions [P] that the next forward in training does not count."""
        self._left_out = ids.long() * len(self.factors) + others.long() * self.levels + level.long()

    def forward(self, ids: Tensor) -> Tensor:
        """[rows] -> [rows, width]."""
        if not self.training:
            return F.embedding(ids.long(), self.sums)
        if self._lists is None or self._left_out is None:
            raise ValueError("history: training needs the interactions (remember) and the batch's own (leave_out)")
        lists = self._lists = self._lists.to(ids.device)
        out, self._left_out = lists.find(self._left_out), None
        distinct, where = torch.unique(ids.long(), return_inverse=True)
        of_out = lists.keys[out] // len(self.factors)  # whose they are
        gone = torch.bincount(_places(distinct, of_out), minlength=len(distinct) + 1)[: len(distinct)]
        count = (lists.counts[distinct] - gone).clamp(min=1)
        # Left out is weighted by zero: what is added and taken away again could tell of a label by its rounding.
        if lists.counts[distinct].sum() >= WHOLE * len(lists.keys):
            total: Tensor = _Sum.apply(self.factors, lists, out).index_select(0, distinct)
        else:
            total = self._of_few(lists, distinct, out)
        return (total * count.rsqrt().unsqueeze(1)).index_select(0, where)

    def _of_few(self, lists: Lists, distinct: Tensor, out: Tensor) -> Tensor:
        """Sums of distinct ids [n] alone: their lists are gathered."""
        lengths = lists.counts[distinct].long()
        starts = lengths.cumsum(0) - lengths
        within = torch.arange(int(lengths.sum()), device=starts.device) - starts.repeat_interleave(lengths)
        place = lists.start_of_id[distinct].repeat_interleave(lengths) + within
        weights = (_places(out, place) == len(out)).to(self.factors.dtype)
        return F.embedding_bag(lists.tokens[place], self.factors, starts, mode="sum", per_sample_weights=weights)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the table of sums up to the factors; nothing without remembered interactions."""
        if self._lists is not None:
            lists = self._lists = self._lists.to(self.factors.device)
            total = F.embedding_bag(lists.tokens, self.factors, lists.start_of_id, mode="sum")
            self.sums.copy_(total * lists.counts.clamp(min=1).rsqrt().unsqueeze(1))


class HistoryTable(IdTable):
    """A vector and biases for every id, the vector with its history: `IdTable` and `History` in one.

    others   size of the other side's id vocabulary
    """

    def __init__(self, rows: int, vocabulary: str, width: int, objectives: int, std: float, others: int, history_std: float) -> None:
        super().__init__(rows, vocabulary, width, objectives, std)
        self.history = History(rows, others, objectives * width, objectives + 1, history_std)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """[rows] -> vectors [rows, T * K], biases [rows, T]."""
        vectors, bias = super().forward(ids)
        return vectors + self.history(ids), bias

    def row_counts(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the id's own table and biases; a factor's count is another's."""
        own = torch.as_tensor(counts[self.vocabulary]).float()
        return {"table": own, "bias": own}

    def held_rows(self) -> dict[str, list[tuple[str, int, int]]]:
        """Raises ValueError: sums over what an id did with others cannot be taken back when one of those goes."""
        raise ValueError("id_history: its sums are of the whole of train, and rows of a vocabulary that grows cannot be reset in them")

    @torch.no_grad()
    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """The sums are settled; ids that training never saw get the average vector, bias and sum."""
        self.history.settle()
        for table in (self.table, self.bias, self.history.sums):
            fill_cold(table, torch.as_tensor(counts[self.vocabulary]))


def id_tables(schema: Schema, sizes: Mapping[str, int], width: int, std: float, history: bool) -> tuple[IdTable, IdTable]:
    """The user's and the item's table of ids, one vector an objective, with histories or without."""
    objectives = len(schema.objectives)
    user, item = (schema.vocabulary_of(schema[i]) for i in (schema.user_id, schema.item_id))
    if not history:
        return IdTable(sizes[user], user, width, objectives, std), IdTable(sizes[item], item, width, objectives, std)
    return (HistoryTable(sizes[user], user, width, objectives, std, sizes[item], HISTORY_STD),
            HistoryTable(sizes[item], item, width, objectives, std, sizes[user], HISTORY_STD))  # fmt: skip


class Histories:
    """The histories on both sides of a model: told what training saw, and before every batch of it what to leave out.

    user, item         the parts of the model that hold each side's, if any does
    user_id, item_id   names of the id columns
    """

    def __init__(self, user: object, item: object, user_id: str, item_id: str) -> None:
        self.user = [m for m in user.modules() if isinstance(m, History)] if isinstance(user, nn.Module) else []
        self.item = [m for m in item.modules() if isinstance(m, History)] if isinstance(item, nn.Module) else []
        self.names = user_id, item_id

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.user or self.item)

    def remember(self, users: Tensor, items: Tensor, level: Tensor) -> None:
        """The train interactions [R]: rows of both id vocabularies, and how many of a row's labels are positive."""
        for history in self.user:
            history.remember(users, items, level)
        for history in self.item:
            history.remember(items, users, level)

    def leave_out(self, batch: Batch) -> None:
        """The batch's impressions are not counted in the next forward."""
        if not self:
            return
        seen = batch.where if batch.stage is None else batch.where & (batch.stage == Stage.IMPRESSION)
        rows, candidates = seen.nonzero(as_tuple=True)
        users = batch.user[self.names[0]][batch.user_index[rows]]
        items = batch.item[self.names[1]][batch.item_index[rows, candidates]]
        level = (batch.labels[rows, candidates] > 0).sum(dim=1)
        for history in self.user:
            history.leave_out(users, items, level)
        for history in self.item:
            history.leave_out(items, users, level)


def _places(among: Tensor, values: Tensor) -> Tensor:
    """Where each value stands in an ascending tensor [n]; n where it does not."""
    place = torch.searchsorted(among, values)
    inside = place.clamp(max=max(len(among) - 1, 0))
    return torch.where(among[inside] == values, inside, len(among)) if len(among) else torch.zeros_like(values)


class _Sum(torch.autograd.Function):
    """Sums of all ids, [ids, width], some interactions weighted by zero. Both ways it reads lists in order: torch's own backward takes
    ten times as long."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, lists: Lists, out: Tensor) -> Tensor:
        ctx.lists, ctx.out = lists, out
        weights = factors.new_ones(len(lists.keys)).index_fill_(0, out, 0.0)
        return F.embedding_bag(lists.tokens, factors, lists.start_of_id, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        lists: Lists = ctx.lists
        weights = gradient.new_ones(len(lists.keys)).index_fill_(0, lists.rank.index_select(0, ctx.out), 0.0)
        return F.embedding_bag(lists.ids, gradient.contiguous(), lists.start_of_token, mode="sum", per_sample_weights=weights), None, None
