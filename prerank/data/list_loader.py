"""Batches of lists from a prepared data set: candidates of all stages side by side, padded and masked, by slices of columns.

    loader = ListLoader(dataset, "train", config.training.lists, batch_size=64, seed=0)
    for batch in loader.epoch(3): ...

Lists are shuffled; what a batch holds is a function of (seed, epoch, its number) alone, so that `epoch(n, start=k)` resumes with the very
same batches. A user is held once a list, an item once a batch. The user's columns are those of the list's first row, an impression where
it has one; a drawn item, and a row of the table of candidates, has the item's columns as they were last, and the first row's time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from prerank.batch import Batch, Columns, Stage
from prerank.config import ConfigError
from prerank.config import Lists as Settings
from prerank.data.dataset import Dataset
from prerank.data.errors import DataError
from prerank.data.lists import Ints, open_lists
from prerank.data.loader import Distinct
from prerank.data.sampling import Drawn, Sampler
from prerank.schema import Schema


class ListLoader:
    """Lists of a split in batches; `batch_size` counts lists.

    sampler   draws the candidates, and knows what is to be said of them
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        settings: Settings,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        dedup: bool = True,
        where: str = "training.lists",
    ) -> None:
        """Raises ConfigError or DataError when such lists cannot be made. where   the settings' name, for messages"""
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        check_lists(dataset.schema, settings, dataset.request is not None, where)
        self.dataset, self.settings, self.batch_size = dataset, settings, batch_size
        self.seed, self.shuffle, self.dedup = seed, shuffle, dedup
        self.lists = open_lists(dataset, split, settings.by, filtered=settings.filter)
        self.sampler = Sampler(dataset, self.lists, settings, where)
        self._users, self._items = Distinct(len(dataset.user_ids)), Distinct(len(dataset.item_ids))

    def __len__(self) -> int:
        return -(-len(self.sampler.kept) // self.batch_size)

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        """Batches of epoch n from batch `start` on."""
        order = self._order(n)
        for k in range(start, len(self)):
            yield self._batch(order[k * self.batch_size : (k + 1) * self.batch_size], np.random.default_rng([self.seed, n, k]))

    def entities(self, n: int, k: int) -> tuple[Ints, Ints]:
        """Whom batch k of epoch n holds: rows of dataset.users [B], and of dataset.items, one a candidate in the order of `where`."""
        lists = self._order(n)[k * self.batch_size : (k + 1) * self.batch_size]
        first = self.lists.order[self.lists.offsets[lists]]
        items = self.sampler.draw(lists, np.random.default_rng([self.seed, n, k])).item
        return np.asarray(self.dataset.user_row[first]).astype(np.int64), items

    def _order(self, n: int) -> Ints:
        kept = self.sampler.kept
        return np.random.default_rng([self.seed, n]).permutation(kept) if self.shuffle else kept

    def _batch(self, lists: Ints, random: np.random.Generator) -> Batch:
        """Lists [B]."""
        data, drawn = self.dataset, self.sampler.draw(lists, random)
        first = self.lists.order[self.lists.offsets[lists]]  # [B] log row
        lengths = np.bincount(drawn.of, minlength=len(lists))
        width = int(lengths.max())
        starts = np.cumsum(lengths) - lengths
        at = np.arange(len(drawn.of)) + np.repeat(np.arange(len(lists)) * width - starts, lengths)  # place in [B, width], flat
        shape = (len(lists), width)
        logged = np.flatnonzero(drawn.row >= 0)
        rows = drawn.row[logged]

        def padded(column: NDArray[np.generic] | None, fill: float, dtype: DTypeLike) -> Tensor | None:
            """A column of the log in the lists' places; padding and drawn items have `fill`."""
            if column is None:
                return None
            out = np.full((shape[0] * width, *column.shape[1:]), fill, dtype)
            out[at[logged]] = column[rows]
            return torch.from_numpy(out.reshape(*shape, *column.shape[1:]))

        user, user_index = self._user(first)
        item, index = self._item(drawn)
        item_index, where = np.zeros(shape[0] * width, np.int64), np.zeros(shape[0] * width, bool)
        item_index[at], where[at] = index, True
        labels = padded(data.labels, 0.0, np.float32)
        assert labels is not None
        return Batch(
            user=user,
            item=item,
            user_index=torch.from_numpy(user_index),
            item_index=torch.from_numpy(item_index.reshape(shape)),
            labels=labels,
            where=torch.from_numpy(where.reshape(shape)),
            stage=self._stage(drawn, at, shape),
            teacher=padded(data.teacher, np.nan, np.float32),
            bid=padded(data.bid, 0.0, np.float32),
            ts=self._time(drawn, first, at, shape),
            request=torch.from_numpy(first if data.request is None or self.settings.by == "user" else data.request[first]),
        )

    def _stage(self, drawn: Drawn, at: Ints, shape: tuple[int, int]) -> Tensor | None:
        """[B, C]; padding has the last stage, which nobody may look at. None where every candidate is an impression."""
        if self.dataset.stage is None and Stage.RANDOM not in self.sampler.takes:
            return None
        out = np.full(shape[0] * shape[1], Stage.RANDOM, np.int8)
        out[at] = drawn.stage
        return torch.from_numpy(out.reshape(shape))

    def _time(self, drawn: Drawn, first: Ints, at: Ints, shape: tuple[int, int]) -> Tensor | None:
        """[B, C]; of what was not logged, and of padding, the first row's."""
        if self.dataset.ts is None:
            return None
        out = np.repeat(self.dataset.ts[first], shape[1])
        logged = np.flatnonzero((drawn.row >= 0) & (drawn.row < self.dataset.logged))
        out[at[logged]] = self.dataset.ts[drawn.row[logged]]
        return torch.from_numpy(out.reshape(shape))

    def _user(self, first: Ints) -> tuple[Columns, Ints]:
        """Columns of the distinct users [U, ..] of the lists' first rows [B], and the index [B] into them."""
        if self.dataset.user_key is not None:
            _, at, index = np.unique(self.dataset.user_key[first], return_index=True, return_inverse=True)
        else:
            at, index = self._users(self.dataset.user_row[first])
        if not self.dedup:
            at = index = np.arange(len(first))
        return self.dataset.columns("user", first[at]), index

    def _item(self, drawn: Drawn) -> tuple[Columns, Ints]:
        """Columns of the distinct items [N, ..] of the candidates [n], and the index [n] into them."""
        data = self.dataset
        if not self.dedup:
            at, index = np.arange(len(drawn.item)), np.arange(len(drawn.item))
        elif data.item_key is None:
            at, index = self._items(drawn.item)
        else:
            return self._items_of_rows(drawn)
        if data.item_key is None:
            return self._of_entities(drawn.item[at]), index
        return self._items_of_rows(drawn)

    def _items_of_rows(self, drawn: Drawn) -> tuple[Columns, Ints]:
        """Where columns of items vary by log row: those of logged rows as they were logged, the others' as they were last."""
        data = self.dataset
        assert data.item_key is not None
        logged = (drawn.row >= 0) & (drawn.row < data.logged)
        rows = drawn.row[logged]
        _, at, index = np.unique(data.item_key[rows], return_index=True, return_inverse=True)
        others, other_index = self._items(drawn.item[~logged])
        out = np.empty(len(drawn.row), np.int64)
        out[logged], out[~logged] = index, other_index + len(at)
        seen, last = data.columns("item", rows[at]), self._of_entities(drawn.item[~logged][others])
        return {name: torch.cat([column, last[name]]) for name, column in seen.items()}, out

    def _of_entities(self, items: Ints) -> Columns:
        return {f.name: torch.from_numpy(self.dataset.items[f.name][items]) for f in self.dataset.schema.on("item")}

    def __repr__(self) -> str:
        return f"<ListLoader {len(self.sampler.kept)} lists in {len(self)} batches of {self.batch_size}, {self.settings.pool()}>"


def check_lists(schema: Schema, settings: Settings, has_request: bool, where: str = "training.lists") -> None:
    """Raise ConfigError when no data of this schema can be put into such lists."""
    if settings.by == "request" and not has_request:
        raise ConfigError(f"{where}.by: request needs data.request, the column that names it; or make lists by user")
    context = [f.name for f in schema.features if f.side == "context"]
    if settings.by == "user" and context:
        raise ConfigError(f"{where}.by: user: context features vary inside a user's list: {', '.join(context)}; make lists by request, or "
                          "leave them out")  # fmt: skip
