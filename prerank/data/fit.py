"""The first walk over the log: who occurs, what train rows hold, and the encoders that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.data import fitting
from prerank.data.asof import Running
from prerank.data.derive import History, Statistic
from prerank.data.encoder import Encoder
from prerank.data.entities import Entities
from prerank.data.errors import DataError
from prerank.data.labels import LabelCheck
from prerank.data.log import Events, Log
from prerank.data.sources import Entity, Sources
from prerank.data.split import NAMES, TRAIN, Splitter, by_column
from prerank.data.stages import StageReader
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
    derived: dict[str, Statistic | History | Running]

    def ids(self, events: Events, side: Entity) -> pl.Series:
        """Raw ids [n]. Raises DataError when one is missing or of another type."""
        column = self.sources.data.user_id if side == "user" else self.sources.data.item_id
        what = f"{side} id '{column}'"
        return not_null(as_type(events.frame[column], self.sources.id_type(side), what, events.place), what, events.place)

    def split(self, events: Events, users: pl.Series) -> NDArray[np.uint8]:
        """[n]. Candidates that were made are shared out as the log's rows (their numbers follow the log's); where they do not say
        what decides that, they are train rows."""
        data = self.sources.data
        kind = data.split.kind
        decides = {"column": data.split.column, "time": data.time, "request": data.request}.get(kind)
        if events.made and decides is not None and events.frame[decides].dtype == pl.Null:
            return np.full(len(events.frame), TRAIN, np.uint8)
        if data.split.column:
            return by_column(events.frame[data.split.column], events.place)
        times = self.log.times(events) if kind == "time" else None
        return self.splitter.assign(events.numbers, users, times, self.requests(events) if kind == "request" else None)

    def requests(self, events: Events) -> pl.Series:
        """What names each row's request [n], integers or text. Raises DataError when one is missing."""
        column = self.sources.data.request or ""
        own, what = self.sources.log.columns[column], f"request '{column}'"
        values = not_null(events.frame[column], what, events.place)
        return as_type(values, pl.Int64() if own.is_integer() else pl.String(), what, events.place)

    def stages(self, events: Events) -> NDArray[np.int8] | None:
        """int8 [n]; None when every row of the log is an impression and nothing was added to it. Raises DataError."""
        data = self.sources.data
        if events.made:
            assert self.sources.candidates is not None
            reader = StageReader.of_candidates(data.stage, self.sources.candidates.columns)
            found = reader.read(events.frame[reader.column], events.place)
            shown = np.flatnonzero(found == Stage.IMPRESSION)
            if len(shown):
                raise DataError(f"candidates: impressions belong to the log; {len(shown)} rows are, first {events.place(int(shown[0]))}")
            return found
        if data.stage is not None:
            return StageReader.of_log(data.stage).read(events.frame[data.stage.column], events.place)
        return np.zeros(len(events.frame), np.int8) if self.sources.staged else None

    def values(self, events: Events, feature: Feature) -> pl.Series:
        """Raw values [n] of a feature that varies by log row."""
        if self.sources.place[feature.name] == "derived":
            return self.derived[feature.source].part(events.first, len(events.frame))
        return events.frame[feature.source]

    def as_is(self, feature: Feature) -> bool:
        """Whether the numbers are encoded as they are: those of running labels."""
        made = self.derived.get(feature.source)
        return isinstance(made, Running) and made.labelled

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
    """splits, shown   rows and impressions of train, validation, test;   made   rows of the table of candidates, the last ones
    users, items    the entity tables;   encoders   of every feature
    """

    splits: list[int]
    shown: list[int]
    made: int
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
    fitters = {f.name: fitter for f in sources.schema.features
               if (fitter := fitting.fitter(f, walk.dtype(f), walk.as_is(f), sources.data.growth.get(f.name)))}  # fmt: skip
    sides: tuple[Entity, Entity] = ("user", "item")
    seen = {s: Counts(sources.id_type(s)) for s in sides}
    train_seen = {s: Counts(sources.id_type(s)) for s in sides}
    train_shown = {s: Counts(sources.id_type(s)) for s in sides} if sources.staged else train_seen
    by_row = [f for f in sources.by_row() if f.name in fitters]
    check = LabelCheck(tuple(sources.data.labels))
    splits, shown, made = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
    for events in walk.log.walk(sources.log_columns()):
        ids = {s: walk.ids(events, s) for s in sides}
        split = walk.split(events, ids["user"])
        stage = walk.stages(events)
        splits += np.bincount(split, minlength=3)
        shown += np.bincount(split if stage is None else split[stage == Stage.IMPRESSION], minlength=3)
        made += len(split) if events.made else 0
        train = np.flatnonzero(split == NAMES["train"])
        check.update(sources.labels.compute(events.frame, events.place, stage)[train])
        for side in sides:
            seen[side].update(ids[side])
            train_seen[side].update(ids[side].gather(train))
            if stage is not None:
                train_shown[side].update(ids[side].gather(train[stage[train] == Stage.IMPRESSION]))
        for f in by_row if not events.made else ():
            place = _at(events, train)
            fitters[f.name].update(walk.values(events, f).gather(train), events.numbers[train], place=place)
        tick(len(events.frame))
    _some_rows(splits, shown, walk)
    check.get()
    entities = {s: _entities(walk, s, seen[s], train_seen[s], train_shown[s]) for s in sides}
    for f in sources.schema.features:
        if f.name not in fitters or f in by_row:
            continue
        known = entities["user" if f.side == "user" else "item"]
        if sources.place[f.name] == "id":
            fitters[f.name].update(known.ids, np.arange(len(known)), known.train)
        else:
            values = known.values(f.source)
            fitters[f.name].update(values, np.arange(len(values)), known.weights())
    encoders = fitting.encoders(sources.schema, fitters)
    return Fitted(splits.tolist(), shown.tolist(), made, entities["user"], entities["item"], encoders)


def _entities(walk: Walk, side: Entity, seen: Counts, train: Counts, shown: Counts) -> Entities:
    sources = walk.sources
    columns = [f.source for f in sources.features("table") if f.side == side]
    column = sources.data.user_id if side == "user" else sources.data.item_id
    return Entities(sources.table(side), column, columns, seen.get(), train.get(), shown.get())


def _at(events: Events, positions: NDArray[np.int64]) -> Callable[[int], str]:
    return lambda i: events.place(int(positions[i]))


def _some_rows(splits: NDArray[np.int64], shown: NDArray[np.int64], walk: Walk) -> None:
    if not splits.sum():
        why = "every row is dropped by data.drop" if walk.sources.data.drop else "it has no rows"
        raise DataError(f"log '{walk.sources.log.path}': nothing to learn from, {why}")
    if not splits[0]:
        s = walk.sources.data.split
        raise DataError(f"split: no row is left to train on (kind {s.kind}, validation {s.validation}, test {s.test})")
    if not shown[0]:
        raise DataError(f"stage: none of the {splits[0]} train rows is an impression, and only they have labels to learn from")
