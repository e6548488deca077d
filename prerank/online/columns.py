"""Training rows of a stream -> a Batch: what was served is what is learned from.

    batch = Columns(catalogue, config.data).batch(rows)

A feature that the impression carries is taken as it was served; one that it does not carry comes from the prepared table of users or
items, and is missing for those that the table does not have, and for nobody (user null). Labels follow the same rules as in the log: a
kind of feedback is a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from prerank.batch import Batch
from prerank.config import ConfigError, Data
from prerank.data.errors import DataError
from prerank.data.growing import Changes
from prerank.data.labels import Labels
from prerank.online.catalogue import Catalogue, Entities
from prerank.schema import UNKNOWN
from prerank.stream import Row

NOBODY = -1  # the row of no user
_ENCODE = msgspec.json.Encoder().encode


class Columns:
    """See the module's first lines. dedup: distinct users and items are encoded once a batch."""

    def __init__(self, catalogue: Catalogue, data: Data, dedup: bool = True) -> None:
        """Raises ConfigError for settings that a stream cannot follow."""
        if data.asof:
            raise ConfigError("data.asof: a stream of rows has no running statistics of its own yet; serve them and let the impression "
                              "carry them, as features of the log")  # fmt: skip
        self.dedup = dedup
        self.catalogue, self.labels = catalogue, Labels(data.labels, _AnyColumn())
        ids = (catalogue.schema.user_id, catalogue.schema.item_id)
        self._growing = {n: v for n, v in catalogue.growing.items() if n in ids}

    def admit(self, rows: Sequence[Row]) -> dict[str, Changes]:
        """Let growing vocabularies see the ids of rows [n]; returns {vocabulary: whose weights begin anew, and who is gone}."""
        changed = {}
        for name, vocabulary in self._growing.items():
            of_user, kind = name == self.catalogue.schema.user_id, str if vocabulary.dtype == pl.String else int
            seen = [(r.impression.user if of_user else r.impression.item, r.impression.ts) for r in rows]
            ids, ts = [i for i, _ in seen if type(i) is kind], [t for i, t in seen if type(i) is kind]  # `batch` tells of the others
            vocabulary.assign(pl.Series(ids, dtype=vocabulary.dtype), np.array(ts, np.int64))
            found = vocabulary.changes()
            if len(found.admitted) or len(found.released):
                changed[name] = found
        return changed

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows [B] -> a click row each, distinct users and items once. Raises DataError for values of a wrong type."""
        n = len(rows)
        served: dict[str, list[Any]] = {}
        for at, row in enumerate(rows):
            for name, value in row.impression.features.items():
                if name not in served:
                    served[name] = [_NOT_SERVED] * n
                served[name][at] = value
        user, user_index = self._side("user", self.catalogue.of_users, [r.impression.user for r in rows], served, rows)
        item, item_index = self._side("item", self.catalogue.of_items, [r.impression.item for r in rows], served, rows)
        for kind in self.labels.columns:
            if any(kind not in r.labels for r in rows):
                waited = sorted({k for r in rows for k in r.labels})
                raise DataError(f"label column '{kind}': rows carry no such feedback; label waiting must wait for it "
                                f"(--kind {kind}=..); it waits for {', '.join(waited)}")
        frame = pl.DataFrame({c: [float(r.labels[c]) for r in rows] for c in self.labels.columns})
        return Batch(
            user=user, item=item, user_index=torch.from_numpy(user_index), item_index=torch.from_numpy(item_index).unsqueeze(1),
            labels=torch.from_numpy(self.labels.compute(frame)).unsqueeze(1), where=torch.ones(n, 1, dtype=torch.bool),
            ts=torch.tensor([[r.impression.ts] for r in rows]),
        )  # fmt: skip

    def _side(self, side: str, entities: Entities, ids: Sequence[Any], served: dict[str, list[Any]],
              rows: Sequence[Row]) -> tuple[Any, NDArray[np.int64]]:  # fmt: skip
        """Columns of the distinct rows, and the index [B] into them; rows of one entity that were served differently are distinct."""
        features = list(self.catalogue.schema.on("user" if side == "user" else "item"))
        known = [i for i, value in enumerate(ids) if value is not None]  # null is nobody
        at = np.full(len(ids), NOBODY)
        at[known] = entities.rows([ids[i] for i in known])
        index = np.arange(len(at))
        if self.dedup:
            differently = any(f.name in served for f in features)
            told = [_ENCODE(row.impression.features) if differently else b"" for row in rows]
            places: dict[tuple[int, bytes], int] = {}
            index = np.array([places.setdefault(key, len(places)) for key in zip(at.tolist(), told, strict=True)])
        _, first = np.unique(index, return_index=True)
        distinct, columns = at[first], {}
        for f in features:
            encoder = self.catalogue.encoders[f.name]
            column = np.repeat(encoder.missing(), len(distinct), axis=0)
            if f.name == self.catalogue.schema.user_id:
                column[:] = UNKNOWN  # as serving has it
            if f.side != "context":  # no table has it
                column[distinct >= 0] = entities.column(f.name, distinct[distinct >= 0])
            if f.name in served:
                values = [served[f.name][i] for i in first]
                there = np.array([v is not _NOT_SERVED for v in values])
                column[there] = encoder.encode([v for v in values if v is not _NOT_SERVED])
            columns[f.name] = torch.from_numpy(column)
        return columns, index


class _NotServed:
    """Differs from None, which says that the feature is missing."""


_NOT_SERVED = _NotServed()


class _AnyColumn:
    """The log that labels are checked against: which feedback a stream has shows in its rows."""

    def __init__(self) -> None:
        self.columns: Any = {}

    def problem(self, column: str, what: str) -> str | None:
        return None
