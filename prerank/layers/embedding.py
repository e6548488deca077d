"""Columns -> fields: one fused embedding table per width, and a table of vectors by id.

One table for all features of a width means one gather for all categorical fields of a side, and
one parameter for the optimiser. A feature's rows start at the offset of its vocabulary, so that
features which share a vocabulary share rows, on either side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.batch import Columns
from prerank.layers.numeric import dense
from prerank.schema import FIRST, PADDING, Feature, Schema

_TAKEN = frozenset(dir(nn.ModuleDict()))


class Embeddings(nn.Module):
    """Turns the columns of a side into its fields [rows, F, D], in the schema's order.

    Categorical and binned values are rows of a table; multi-valued and sequence features are the
    masked mean of theirs (or a learned attention over them); a standardised number x is x w + b, or
    a mixture of meta-embeddings (AutoDis), and a given vector is W x + b. A table of another width than D is followed by a linear layer
    to D, so that gates see equal fields (our choice).

    schema   which features
    sizes    rows of each vocabulary, the three reserved ones included
    std      of the tables' normal initialisation
    unpooled sides that are read by `tokens`: their lists need no pooling

    A field may be made from ids by a module that somebody else gives, see `attach`: whoever reads the fields cannot tell.
    """

    def __init__(self, schema: Schema, sizes: Mapping[str, int], std: float = 0.05, unpooled: Collection[str] = ()) -> None:
        super().__init__()
        self.width = schema.width
        self.features: dict[str, list[Feature]] = {"user": schema.fields("user"), "item": schema.fields("item")}
        self.sparse: frozenset[str] = frozenset()  # set by the optimiser: names of tables that are updated row by row
        fields = [*self.features["user"], *self.features["item"]]
        self.vocabulary = {f.name: schema.vocabulary_of(f) for f in fields if f.embedded}
        self.table_of: dict[str, str] = {}
        self.offset: dict[str, int] = {}
        self.spans: dict[str, list[tuple[str, int, int]]] = {}  # table -> (vocabulary, first row, rows)
        rows: dict[str, int] = {}
        for f in fields:
            if not f.embedded:
                continue
            vocabulary, table = self.vocabulary[f.name], str(schema.width_of(f))
            spans = self.spans.setdefault(table, [])
            if vocabulary not in (v for v, _, _ in spans):
                spans.append((vocabulary, rows.get(table, 0), sizes[vocabulary]))
                rows[table] = rows.get(table, 0) + sizes[vocabulary]
            self.table_of[f.name] = table
            self.offset[f.name] = next(first for v, first, _ in spans if v == vocabulary)
        self.tables = nn.ParameterDict({width: nn.Parameter(torch.randn(n, int(width)) * std) for width, n in rows.items()})
        self.resize = nn.ModuleDict(
            {_key(f): nn.Linear(int(self.table_of[f.name]), self.width, bias=False)
             for f in fields if f.embedded and int(self.table_of[f.name]) != self.width}
        )
        self.dense = nn.ModuleDict(
            {_key(f): dense(f, self.width, std) for f in fields if not f.embedded and f.encoding != "raw"}
        )
        self.attached = nn.ModuleDict()
        self._ids_of: dict[str, str] = {}  # feature that is attached -> column of the ids that it is made from
        self.attention = nn.ModuleDict(
            {
                _key(f): AttentionPooling(int(self.table_of[f.name]))
                for side, features in self.features.items()
                for f in features
                if f.many and f.pooling == "attention" and side not in unpooled
            }
        )

    def attach(self, feature: str, ids: str, module: nn.Module) -> None:
        """Let a module (ids [rows] -> [rows, D]) make the field of a feature that has no column, from the column `ids`."""
        self.attached[feature] = module
        self._ids_of[feature] = ids

    def forward(self, side: Literal["user", "item"], columns: Columns) -> Tensor:
        """Columns of one side -> [rows, F, D]."""
        features = self.features[side]
        fields: dict[str, Tensor] = {}
        plain = [f for f in features if f.embedded and not f.many and _key(f) not in self.resize]
        if plain:  # the common case: all of width D in one gather
            ids = torch.stack([columns[f.name].long() + self.offset[f.name] for f in plain], dim=1)  # [rows, n]
            gathered = self._gather(str(self.width), ids)  # [rows, n, D]
            if len(plain) == len(features):
                return gathered
            fields = {f.name: gathered[:, i] for i, f in enumerate(plain)}
        for f in features:
            if f.name not in fields:
                fields[f.name] = self._field(f, columns)
        return torch.stack([fields[f.name] for f in features], dim=1)

    def tokens(self, side: Literal["user", "item"], columns: Columns) -> tuple[Tensor, Tensor]:
        """Columns of one side -> [rows, L, D] and a mask [rows, L], False where a list is padded.

        One token for every field that is no list, max_length for every list, in the schema's order.
        """
        vectors, masks = [], []
        for f in self.features[side]:
            vectors.append(self._values(f, columns[f.name]) if f.many else self._field(f, columns).unsqueeze(1))  # [rows, 1 or length, D]
            here = vectors[-1]
            masks.append(columns[f.name] != PADDING if f.many else torch.ones(len(here), 1, dtype=torch.bool, device=here.device))
        return torch.cat(vectors, dim=1), torch.cat(masks, dim=1)

    def _values(self, f: Feature, column: Tensor) -> Tensor:
        """A list's values [rows, length] -> their vectors, as wide as a field.  # [rows, length, D]"""
        vectors = self._rows(f, column)
        return self.resize[_key(f)](vectors) if _key(f) in self.resize else vectors

    def _rows(self, f: Feature, column: Tensor) -> Tensor:
        """The table's rows of a column's values, of the table's width."""
        return self._gather(self.table_of[f.name], column.long() + self.offset[f.name])

    def _field(self, f: Feature, columns: Columns) -> Tensor:
        """A feature's field [rows, D], from its column or from the module that is attached for it."""
        if f.name in self._ids_of:
            made: Tensor = self.attached[f.name](columns[self._ids_of[f.name]])
            return made
        return self._one(f, columns[f.name])

    def _one(self, f: Feature, column: Tensor) -> Tensor:
        """One feature's column -> its field [rows, D]."""
        key = _key(f)
        if not f.embedded:
            value = column.unsqueeze(1) if column.dim() == 1 else column
            return F.pad(value, (0, self.width - 1)) if f.encoding == "raw" else self.dense[key](value)
        vectors = self._rows(f, column)
        if f.many:
            mask = column != PADDING  # [rows, max_length]
            vectors = self.attention[key](vectors, mask) if key in self.attention else masked_mean(vectors, mask)
        return self.resize[key](vectors) if key in self.resize else vectors

    def _gather(self, table: str, rows: Tensor) -> Tensor:
        return F.embedding(rows, self.tables[table], sparse=f"tables.{table}" in self.sparse)

    def row_counts(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Train counts of each vocabulary -> {parameter name: train count of each of its rows}."""
        return {
            f"tables.{table}": torch.cat([torch.as_tensor(counts[v])[:n].float() for v, _, n in spans])
            for table, spans in self.spans.items()
        }

    def held_rows(self) -> dict[str, list[tuple[str, int, int]]]:
        """Whose rows each table holds: {parameter name: [(vocabulary, first row, rows)]}."""
        return {f"tables.{table}": list(spans) for table, spans in self.spans.items()}

    @torch.no_grad()
    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """Rows for 'missing' and 'unknown' that training never touched become the average value.

        The mean weighted by train counts (our choice): a new user is then the average user, not noise.
        """
        for table, spans in self.spans.items():
            for vocabulary, first, n in spans:
                fill_cold(self.tables[table][first : first + n], torch.as_tensor(counts[vocabulary])[:n])


class AttentionPooling(nn.Module):
    """Weights list entries by a learned query: softmax_t(q . tanh(W e_t)), padding left out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[rows, length, D], [rows, length] -> [rows, D]; an empty list gives zeros."""
        scores = self.query(torch.tanh(self.key(vectors))).squeeze(-1).masked_fill(~mask, -1e9)
        weights = torch.softmax(scores, dim=1) * mask
        return torch.einsum("bl,bld->bd", weights, vectors)


class _ById(nn.Module):
    """A table with a row for every id of a vocabulary."""

    def __init__(self, rows: int, vocabulary: str, width: int, std: float) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width of an id's vector: must be at least 1; got {width}")
        self.vocabulary = vocabulary
        self.sparse: frozenset[str] = frozenset()  # as in Embeddings
        self.table = nn.Parameter(torch.randn(rows, width) * std)

    def row_counts(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Train counts of each vocabulary -> {parameter name: train count of each of its rows}."""
        own = torch.as_tensor(counts[self.vocabulary]).float()
        return {name: own for name, _ in self.named_parameters()}

    def held_rows(self) -> dict[str, list[tuple[str, int, int]]]:
        """As `Embeddings.held_rows`."""
        return {name: [(self.vocabulary, 0, len(table))] for name, table in self.named_parameters()}

    @torch.no_grad()
    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """As `Embeddings.fill_cold_rows`."""
        for table in self.parameters():
            fill_cold(table, torch.as_tensor(counts[self.vocabulary]))


class IdVectors(_ById):
    """A vector for every id.

    rows    size of the id's vocabulary, reserved rows included
    """

    def __init__(self, rows: int, vocabulary: str, width: int, std: float = 0.05) -> None:
        super().__init__(rows, vocabulary, width, std)

    def forward(self, ids: Tensor) -> Tensor:
        """[rows] -> [rows, K]."""
        return F.embedding(ids.long(), self.table, sparse="table" in self.sparse)


class IdTable(_ById):
    """A vector and biases for every id: matrix factorisation's half, and the id head.

    rows         size of the id's vocabulary, reserved rows included
    width        K of the vector; one vector an objective
    """

    def __init__(self, rows: int, vocabulary: str, width: int, objectives: int = 1, std: float = 0.05) -> None:
        super().__init__(rows, vocabulary, objectives * width, std)
        self.bias = nn.Parameter(torch.zeros(rows, objectives))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """[rows] -> vectors [rows, T * K], biases [rows, T]."""
        index = ids.long()
        return F.embedding(index, self.table, sparse="table" in self.sparse), F.embedding(index, self.bias, sparse="bias" in self.sparse)


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """[rows, length, D], [rows, length] -> [rows, D]; an empty list gives zeros.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    weights = mask.to(vectors.dtype).unsqueeze(2)  # [rows, length, 1]
    return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _key(feature: Feature) -> str:
    """A feature's name as a module's, which may hold no dot and may not be an attribute of ModuleDict ('type', 'items', ..)."""
    name = feature.name.replace("%", "%25").replace(".", "%2E")
    return f"{name}%" if name in _TAKEN else name


def fill_cold(table: Tensor, counts: Tensor) -> None:
    """Rows that training never saw ('missing', 'unknown', items that were never shown) become the table's mean weighted by counts."""
    seen = counts[FIRST:].to(table)  # its type and device
    if seen.sum() == 0:
        return
    mean = (seen.unsqueeze(1) * table[FIRST:]).sum(dim=0) / seen.sum()
    cold = (counts == 0).to(table.device)
    cold[PADDING] = False
    table[cold] = mean
