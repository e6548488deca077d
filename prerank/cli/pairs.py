"""Rows of a stranger's file, each a user and an item, as a batch for the model: what `prerank predict` scores.

A feature is read from the file when it has the column, else from what preparation kept of the user or
the item; what neither knows is missing. Each distinct user and item of a batch is encoded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from prerank.batch import Batch, Columns
from prerank.config import Data, nearest
from prerank.data import DataError, Dataset, Lookup
from prerank.data.dataset import Side
from prerank.data.values import Place, as_type


@dataclass
class Pairs:
    """Makes batches; `unknown` counts rows whose user (item) the run has never seen.

    columns   of the file
    """

    dataset: Dataset
    data: Data
    columns: list[str]
    unknown: dict[Side, int] = field(default_factory=lambda: {"user": 0, "item": 0})

    def __post_init__(self) -> None:
        """Raises DataError naming every id column that the file lacks."""
        problems = [
            f"input: no column '{c}', the {side} id{nearest(c, self.columns)}" for side, c in self._ids().items() if c not in self.columns
        ]
        if problems:
            raise DataError("\n".join(problems))
        self._lookups = {"user": Lookup(self.dataset.user_ids), "item": Lookup(self.dataset.item_ids)}

    def missing(self) -> list[str]:
        """Context features that the file does not have: they are scored as missing."""
        return [f.name for f in self.dataset.schema.features if f.side == "context" and f.source not in self.columns]

    def needed(self) -> list[str]:
        """The file's columns that batches read."""
        return [c for c in self.columns if c in self._ids().values() or c in {f.source for f in self.dataset.schema.features}]

    def batch(self, frame: pl.DataFrame, place: Place) -> Batch:
        """[n] rows with the `needed` columns -> a batch of n lists of one candidate.

        place   position -> where the user finds the row
        """
        user, user_index = self._side("user", frame, place)
        item, item_index = self._side("item", frame, place)
        n, t = len(frame), len(self.dataset.schema.objectives)
        return Batch(
            user=user,
            item=item,
            user_index=torch.from_numpy(user_index),
            item_index=torch.from_numpy(item_index)[:, None],
            labels=torch.zeros(n, 1, t),
            where=torch.ones(n, 1, dtype=torch.bool),
        )

    def _side(self, side: Side, frame: pl.DataFrame, place: Place) -> tuple[Columns, NDArray[np.int64]]:
        """Columns of the distinct users (items), and the distinct row of each row."""
        ids, features = self._ids()[side], list(self.dataset.schema.on(side))
        read = list(dict.fromkeys([ids, *(f.source for f in features if f.source in self.columns)]))
        distinct, first, index = _distinct(frame.select(read))

        def where(position: int) -> str:
            return place(int(first[position]))

        known = self.dataset.user_ids if side == "user" else self.dataset.item_ids
        raw = as_type(distinct[ids], known.dtype, f"input, column '{ids}'", where)
        rows = self._lookups[side].find(raw)  # [distinct], -1: never seen
        self.unknown[side] += int((rows[index] < 0).sum())
        columns = {}
        for f in features:
            encoder = self.dataset.encoders[f.name]
            if f.source in read:
                column = encoder.encode(distinct[f.source], where)
            else:
                column = np.repeat(encoder.missing(), len(distinct), axis=0)
                table = self.dataset.entity(side)
                if f.name in table:
                    column[rows >= 0] = table[f.name][rows[rows >= 0]]
            columns[f.name] = torch.from_numpy(np.ascontiguousarray(column))
        return columns, index

    def _ids(self) -> dict[Side, str]:
        return {"user": self.data.user_id, "item": self.data.item_id}


def _distinct(frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows, where each occurs first, and the distinct row of each row; rows with lists are not compared."""
    n = len(frame)
    if any(dtype.is_nested() for dtype in frame.dtypes):
        return frame, np.arange(n), np.arange(n)
    numbered = frame.with_row_index("·first")
    distinct = numbered.unique(subset=frame.columns, keep="first", maintain_order=True).with_row_index("·row")
    index = frame.join(distinct, on=frame.columns, how="left", nulls_equal=True, maintain_order="left")["·row"]
    return distinct.select(frame.columns), distinct["·first"].to_numpy().astype(np.int64), index.to_numpy().astype(np.int64)
