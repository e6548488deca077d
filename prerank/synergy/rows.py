"""The rows of a batch that memory learns of: impressions whose id is known."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from prerank.batch import Batch, Columns, Stage
from prerank.schema import FIRST

Side = Literal["user", "item"]


class Rows(NamedTuple):
    """Impressions of a batch, P of them.

    lists, places   [P] where they stand: batch.labels[lists, places]
    users, items    [P] rows of batch.user and batch.item
    """

    lists: Tensor
    places: Tensor
    users: Tensor
    items: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Rows:
        """Candidates of other stages were not seen and taught nobody anything; padding is no row."""
        shown = batch.where if batch.stage is None else batch.where & (batch.stage == Stage.IMPRESSION)
        lists, places = shown.nonzero(as_tuple=True)
        return cls(lists, places, batch.user_index[lists], batch.item_index[lists, places])

    def at(self, chosen: Tensor) -> Rows:
        """Those of a mask or of indices."""
        return Rows(*(part[chosen] for part in self))

    def on(self, side: Side) -> Tensor:
        """[P] rows of the batch's columns of a side."""
        return self.users if side == "user" else self.items

    def known(self, side: Side, ids: Tensor) -> Rows:
        """Those whose id has a row of its own: 'missing' and 'unknown' are nobody."""
        return self.at(ids[self.on(side)] >= FIRST)

    def ts(self, batch: Batch) -> Tensor | None:
        """[P] milliseconds, where there are times."""
        return None if batch.ts is None else batch.ts[self.lists, self.places]


def ids_of(batch: Batch, side: Side, name: str) -> Tensor:
    """The id column of a side, [U] or [N]."""
    columns: Columns = batch.user if side == "user" else batch.item
    return columns[name]
