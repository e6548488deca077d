"""The users and items that a stream knows: those of the prepared data, then whoever it meets, a bounded number of them.

    catalogue = Catalogue(dataset, remember=1_000_000)
    rows = catalogue.of_items.rows(ids)         # int64 [n]; ids that nobody has met get a row, with missing features

Of those that it met, the least recently used make room, and their rows are used again. Nothing goes with one but that it is listed: its
features were missing, and its weights lie in the vocabulary's row, where that grows.

It is what export reads of prepared data, so that a generation holds the new ones, too. Columns of features whose vocabulary grows are made
of the ids when they are asked for: a row of such a vocabulary may have another id by then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data import Dataset
from prerank.data.encoder import Encoder
from prerank.data.errors import DataError
from prerank.data.growing import GrowingVocabulary
from prerank.schema import Schema


class Entities:
    """One side's ids and columns.

    remember   most ids that the prepared data did not have
    """

    def __init__(self, ids: pl.Series, columns: Mapping[str, NDArray[Any]], encoders: Mapping[str, Encoder], id_feature: str,
                 remember: int) -> None:  # fmt: skip
        self._prepared, self._columns, self._encoders, self._id = ids, dict(columns), encoders, id_feature
        self._row = {value: row for row, value in enumerate(ids.to_list())}
        self._type = str if ids.dtype == pl.String else int
        self._remember = remember
        self._used: OrderedDict[Any, int] = OrderedDict()  # rows of ids that the stream met, the least recently used first
        self._met: list[Any] = []  # these ids by their rows
        self._growing = [n for n in columns if isinstance(getattr(encoders[n], "vocabulary", None), GrowingVocabulary)]

    def rows(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        """ids [n] -> rows; new ones are taken in. Raises DataError for an id of another type; then none is.  # int64 [n]"""
        for value in ids:
            if type(value) is not self._type:
                raise DataError(f"feature '{self._id}': ids must be {self._type.__name__}, as in the log; got {value!r:.60}")
        return np.array([self._row[value] if value in self._row else self._use(value) for value in ids], np.int64)

    def held(self, ids: Iterable[Any]) -> list[Any]:
        """Those that have a row, ascending."""
        return sorted(value for value in ids if value in self._row or value in self._used)

    def places(self, held: Sequence[Any]) -> NDArray[np.int64]:
        """Rows of ids that have one; they are not used by it.  # int64 [n]"""
        return np.array([self._row[value] if value in self._row else self._used[value] for value in held], np.int64)

    def _use(self, value: Any) -> int:
        """The row of an id that the prepared data does not have: its own, a new one, or that of the one which was used longest ago."""
        used = self._used
        if value in used:
            used.move_to_end(value)
            return used[value]
        if len(self._met) < self._remember:
            row = len(self._prepared) + len(self._met)
            self._met.append(value)
        else:
            _, row = used.popitem(last=False)
            self._met[row - len(self._prepared)] = value
        used[value] = row
        return row

    def strangers(self, ids: Iterable[Any]) -> list[Any]:
        """Those that the prepared data does not have, each once; values of another type are no ids."""
        return [value for value in dict.fromkeys(i for i in ids if type(i) is self._type) if value not in self._row]

    def column(self, feature: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A feature's column of rows [n]; of those that the stream met it is missing, but for the id itself.  # [n, ...]"""
        prepared = self._columns[feature]
        before = rows < len(prepared)
        if feature == self._id and (feature in self._growing or not before.all()):
            return self._encoders[feature].encode(self.ids.gather(rows))
        if before.all():
            return np.asarray(prepared[rows])
        out = np.repeat(self._encoders[feature].missing(), len(rows), axis=0)
        out[before] = prepared[rows[before]]
        return out

    @property
    def ids(self) -> pl.Series:
        """Raw ids of all rows."""
        return pl.concat([self._prepared, pl.Series("id", self._met, self._prepared.dtype)]) if self._met else self._prepared

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Of all rows."""
        every = np.arange(len(self))
        return {name: self.column(name, every) for name in self._columns}

    @property
    def met(self) -> dict[str, list[Any]]:
        """For a checkpoint: ids by their rows, and in the order of their use."""
        return {"ids": list(self._met), "used": list(self._used)}

    def load(self, met: Mapping[str, Sequence[Any]]) -> None:
        """Those that were met before a stop. Raises DataError when they are more than may be remembered."""
        if len(met["ids"]) > self._remember:
            raise DataError(f"online.remember: must be at least {len(met['ids']):,}, as many '{self._id}' as the run has met; "
                            f"got {self._remember:,}")  # fmt: skip
        self._met = list(met["ids"])
        rows = {value: len(self._prepared) + n for n, value in enumerate(self._met)}
        self._used = OrderedDict((value, rows[value]) for value in met["used"])

    def __len__(self) -> int:
        return len(self._prepared) + len(self._met)


class Catalogue:
    """Both sides; see the module's first lines. What `serving.export` reads: schema, sizes, encoders, users, items, ids.

    growing    {feature: its vocabulary} of those that grow
    remember   most users, and most items, that the prepared data did not have; at least as many as there are in a batch
    """

    def __init__(self, dataset: Dataset, remember: int = 1_000_000) -> None:
        self.schema: Schema = dataset.schema
        self.sizes, self.encoders = dataset.sizes, dataset.encoders
        vocabularies = {n: getattr(e, "vocabulary", None) for n, e in dataset.encoders.items()}
        self.growing = {n: v for n, v in vocabularies.items() if isinstance(v, GrowingVocabulary)}
        self.of_users = Entities(dataset.user_ids, dataset.users, dataset.encoders, dataset.schema.user_id, remember)
        self.of_items = Entities(dataset.item_ids, dataset.items, dataset.encoders, dataset.schema.item_id, remember)

    @property
    def users(self) -> dict[str, NDArray[Any]]:
        return self.of_users.columns

    @property
    def items(self) -> dict[str, NDArray[Any]]:
        return self.of_items.columns

    @property
    def user_ids(self) -> pl.Series:
        return self.of_users.ids

    @property
    def item_ids(self) -> pl.Series:
        return self.of_items.ids
