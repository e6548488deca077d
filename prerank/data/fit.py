"""The first walk over the log: who occurs, what train rows hold, and the encoders that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data import fitting
from prerank.data.derive import History, Statistic
from prerank.data.encoder import Encoder
from prerank.data.entities import Entities
from prerank.data.errors import DataError
from prerank.data.labels import LabelCheck
from prerank.data.log import Events, Log
from prerank.data.sources import Entity, Sources
from prerank.data.split import NAMES, Splitter, by_column
from prerank.data.statistics import Counts
from prerank.data.values import as_type, not_null
from prerank.schema import Feature

Tick = Callable[[int], None]  # rows done


@dataclass(frozen=True)
class Walk:
    """What both walks need of a batch: ids, time, split and labels, and each feature's raw values."""

    sources: Sources
    log: Log
    splitter: Splitter
    derived: dict[str, Statistic | History]

    def ids(self, events: Events, side: Entity) -> pl.Series:
        """Raw ids [n]. Raises DataError when one is missing or of another type."""
        column = self.sources.data.user_id if side == "user" else self.sources.data.item_id
        what = f"{side} id '{column}'"
        return not_null(as_type(events.frame[column], self.sources.id_type(side), what, events.place), what, events.place)

    def split(self, events: Events, users: pl.Series) -> NDArray[np.uint8]:
        if self.sources.data.split.column:
            return by_column(events.frame[self.sources.data.split.column], events.place)
        return self.splitter.assign(events.numbers, users, self.log.times(events) if self.sources.data.split.kind == "time" else None)

    def values(self, events: Events, feature: Feature) -> pl.Series:
        """Raw values [n] of a feature that varies by log row."""
        if self.sources.place[feature.name] == "derived":
            return self.derived[feature.source].part(events.first, len(events.frame))
        return events.frame[feature.source]

    def dtype(self, feature: Feature) -> pl.DataType:
        """Type of a feature's raw values."""
        place = self.sources.place[feature.name]
        if place == "id":
            return self.sources.id_type("user" if feature.side == "user" else "item")
        if place == "derived":
            return self.derived[feature.source].dtype
        table = self.sources.log if place == "log" else self.sources.users if feature.side == "user" else self.sources.items
        assert table is not None
        return table.columns[feature.source]


@dataclass(frozen=True)
class Fitted:
    """splits   rows of train, validation, test;   users, items   the entity tables;   encoders   of every feature"""

    splits: list[int]
    users: Entities
    items: Entities
    encoders: dict[str, Encoder]

    @property
    def rows(self) -> int:
        return sum(self.splits)

    def entities(self, side: Entity) -> Entities:
        return self.users if side == "user" else self.items


def fit(walk: Walk, tick: Tick) -> Fitted:
    """Raises DataError for ids or labels that are missing, constant labels, or no row to train on."""
    sources = walk.sources
    fitters = {f.name: fitter for f in sources.schema.features if (fitter := fitting.fitter(f, walk.dtype(f)))}
    sides: tuple[Entity, Entity] = ("user", "item")
    seen = {s: Counts(sources.id_type(s)) for s in sides}
    train_seen = {s: Counts(sources.id_type(s)) for s in sides}
    by_row = [f for f in sources.by_row() if f.name in fitters]
    check = LabelCheck(tuple(sources.data.labels))
    splits = np.zeros(3, np.int64)
    for events in walk.log.walk(sources.log_columns()):
        ids = {s: walk.ids(events, s) for s in sides}
        split = walk.split(events, ids["user"])
        splits += np.bincount(split, minlength=3)
        train = np.flatnonzero(split == NAMES["train"])
        check.update(sources.labels.compute(events.frame, events.place)[train])
        for side in sides:
            seen[side].update(ids[side])
            train_seen[side].update(ids[side].gather(train))
        for f in by_row:
            place = _at(events, train)
            fitters[f.name].update(walk.values(events, f).gather(train), events.numbers[train], place=place)
        tick(len(events.frame))
    _some_rows(splits, walk)
    check.get()
    entities = {s: _entities(walk, s, seen[s], train_seen[s]) for s in sides}
    for f in sources.schema.features:
        if f.name not in fitters or f in by_row:
            continue
        known = entities["user" if f.side == "user" else "item"]
        if sources.place[f.name] == "id":
            fitters[f.name].update(known.ids, np.arange(len(known)), known.train)
        else:
            values = known.values(f.source)
            fitters[f.name].update(values, np.arange(len(values)), known.weights())
    return Fitted([int(n) for n in splits], entities["user"], entities["item"], fitting.encoders(sources.schema, fitters))


def _entities(walk: Walk, side: Entity, seen: Counts, train: Counts) -> Entities:
    sources = walk.sources
    columns = [f.source for f in sources.features("table") if f.side == side]
    column = sources.data.user_id if side == "user" else sources.data.item_id
    return Entities(sources.table(side), column, columns, seen.get(), train.get())


def _at(events: Events, positions: NDArray[np.int64]) -> Callable[[int], str]:
    return lambda i: events.place(int(positions[i]))


def _some_rows(splits: NDArray[np.int64], walk: Walk) -> None:
    if not splits.sum():
        why = "every row is dropped by data.drop" if walk.sources.data.drop else "it has no rows"
        raise DataError(f"log '{walk.sources.log.path}': nothing to learn from, {why}")
    if not splits[0]:
        s = walk.sources.data.split
        raise DataError(f"split: no row is left to train on (kind {s.kind}, validation {s.validation}, test {s.test})")
