"""The users and items that a stream knows: those of the prepared data, then whoever it meets, in the order they came.

    catalogue = Catalogue(dataset)
    rows = catalogue.of_items.rows(ids)         # int64 [n]; ids that nobody has met get a row, with missing features

It is what export reads of prepared data, so that a generation holds the new ones, too. Columns of features whose vocabulary grows are made
of the ids when they are asked for: a row of such a vocabulary may have another id by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    met   raw ids that the prepared data did not have, in order
    """

    def __init__(self, ids: pl.Series, columns: Mapping[str, NDArray[Any]], encoders: Mapping[str, Encoder], id_feature: str) -> None:
        self._prepared, self._columns, self._encoders, self._id = ids, dict(columns), encoders, id_feature
        self._row = {value: row for row, value in enumerate(ids.to_list())}
        self._type = str if ids.dtype == pl.String else int
        self.met: list[Any] = []
        self._growing = [n for n in columns if isinstance(getattr(encoders[n], "vocabulary", None), GrowingVocabulary)]

    def rows(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        """ids [n] -> rows; new ones are taken in. Raises DataError for an id of another type; then none is.  # int64 [n]"""
        known = self._row
        for value in ids:
            if type(value) is not self._type:
                raise DataError(f"feature '{self._id}': ids must be {self._type.__name__}, as in the log; got {value!r:.60}")
        for value in ids:
            if value not in known:
                known[value] = len(known)
                self.met.append(value)
        return np.array([known[value] for value in ids], np.int64)

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
        return pl.concat([self._prepared, pl.Series("id", self.met, self._prepared.dtype)]) if self.met else self._prepared

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Of all rows."""
        every = np.arange(len(self._row))
        return {name: self.column(name, every) for name in self._columns}

    def load(self, met: Sequence[Any]) -> None:
        """Those that were met before a stop."""
        self.rows(met)

    def __len__(self) -> int:
        return len(self._row)


class Catalogue:
    """Both sides; see the module's first lines. What `serving.export` reads: schema, sizes, encoders, users, items, ids.

    growing   {feature: its vocabulary} of those that grow
    """

    def __init__(self, dataset: Dataset) -> None:
        self.schema: Schema = dataset.schema
        self.sizes, self.encoders = dataset.sizes, dataset.encoders
        vocabularies = {n: getattr(e, "vocabulary", None) for n, e in dataset.encoders.items()}
        self.growing = {n: v for n, v in vocabularies.items() if isinstance(v, GrowingVocabulary)}
        self.of_users = Entities(dataset.user_ids, dataset.users, dataset.encoders, dataset.schema.user_id)
        self.of_items = Entities(dataset.item_ids, dataset.items, dataset.encoders, dataset.schema.item_id)

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
