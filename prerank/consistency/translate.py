"""Batches for a model whose data set encodes users and items otherwise: the same pairs, with the columns that its own tables have of them.

    other = ByIds(own, theirs)
    other.batch(batch, users, items)

A vocabulary is fitted on train rows, so two data sets of one log differ as soon as one of them knows more candidates. Where users and
items alone decide all of a model's columns, it can be asked about any pair of ids; whom its data set has never seen is missing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from prerank.batch import Batch, Columns
from prerank.data import Dataset, Lookup
from prerank.data.dataset import Side

Ints = NDArray[np.int64]


def by_ids_alone(dataset: Dataset) -> bool:
    """True when user and item decide every column that a model of this data set reads."""
    return dataset.user_key is None and dataset.item_key is None and not dataset.log


class ByIds:
    """See the module's first lines. own: whose batches they are; theirs: whose columns are wanted."""

    def __init__(self, own: Dataset, theirs: Dataset) -> None:
        self.theirs = theirs
        self._user, self._item = _places(own.user_ids, theirs.user_ids), _places(own.item_ids, theirs.item_ids)

    def batch(self, batch: Batch, users: Ints, items: Ints) -> Batch:
        """The same lists.

        users   [B] rows of own.users;   items   rows of own.items, one a candidate in the order of batch.where
        """
        user, of_user = np.unique(users, return_inverse=True)
        item, of_item = np.unique(items, return_inverse=True)
        item_index = np.zeros(batch.where.shape, np.int64)
        item_index[batch.where.numpy()] = of_item
        return replace(batch, user=self._columns("user", self._user[user]), item=self._columns("item", self._item[item]),
                       user_index=torch.from_numpy(of_user.astype(np.int64)), item_index=torch.from_numpy(item_index))  # fmt: skip

    def _columns(self, side: Side, rows: Ints) -> Columns:
        """Their columns of rows of their table; -1: never seen."""
        table, found = self.theirs.entity(side), {}
        for feature in self.theirs.schema.on(side):
            column = np.repeat(self.theirs.encoders[feature.name].missing(), len(rows), axis=0)
            column[rows >= 0] = table[feature.name][rows[rows >= 0]]
            found[feature.name] = torch.from_numpy(column)
        return found


def _places(own: pl.Series, theirs: pl.Series) -> Ints:
    """Row of each of our ids in their table, -1 where they have none.  # [n]"""
    return Lookup(theirs).find(own) if own.dtype == theirs.dtype else np.full(len(own), -1, np.int64)
