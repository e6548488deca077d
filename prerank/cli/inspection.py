"""A log read from end to end, with every problem it has: what `prerank validate` says of the data.

Preparation stops at the first wrong value; here each column is checked on its own, by the very code
that preparation uses, and a column that failed is left out of the rest of the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.cli.findings import Findings, means_beside_their_key, open_sources, outcome_features
from prerank.cli.leaks import SUSPICIOUS, Sample, column_auc
from prerank.config import Data
from prerank.data import stages
from prerank.data.encoder import Vector
from prerank.data.entities import Entities
from prerank.data.fit import Walk
from prerank.data.fitting import fitter
from prerank.data.labels import LabelCheck, Labels
from prerank.data.log import Events, Log
from prerank.data.sources import Entity
from prerank.data.split import NAMES, Splitter, time_cuts
from prerank.data.statistics import Counts
from prerank.data.values import Place, as_type
from prerank.schema import Feature

SIDES: tuple[Entity, Entity] = ("user", "item")
Reading = Callable[[Events], Any]


def inspect(data: Data) -> Findings:
    """Check the tables that the settings name (recipes are resolved before)."""
    found = Findings()
    sources = open_sources(data, found)
    if sources is None:
        return found
    outcome_features(sources, found)
    means_beside_their_key(sources, found)
    kept = sources.data.model_copy(update={"drop": None})
    log = found.attempt(lambda: Log(sources.log, sources.data, sources.candidates)) or Log(sources.log, kept, sources.candidates)
    walk = Walk(sources, log, Splitter(data.split), {})
    splitter = found.attempt(lambda: _splitter(walk))
    _Inspector(walk, splitter, found).run()
    return found


def _splitter(walk: Walk) -> Splitter:
    """The splitter; a split by time needs all times first."""
    data = walk.sources.data
    if data.split.kind != "time" or not data.time:
        return walk.splitter
    column = data.time
    chunks = [t for e in walk.log.walk({column: walk.sources.log.typed(column)}) if (t := walk.log.times(e)) is not None]

    def again() -> Iterator[NDArray[np.int64]]:
        yield from chunks

    return Splitter(data.split, time_cuts(data.split, walk.log.clock, again) if chunks else (0.0, 0.0))


class _Inspector:
    """One walk over the log with a check a column, then the entity tables, then the search for leaks."""

    def __init__(self, walk: Walk, splitter: Splitter | None, found: Findings) -> None:
        """splitter   None when the times could not be read: all rows then count as train."""
        self.walk = replace(walk, splitter=splitter or walk.splitter)
        self.sources, self.found, self.by_split = walk.sources, found, splitter is not None
        names = tuple(self.sources.data.labels)
        self.constant = {n: LabelCheck((n,)) for n in names}
        self.positives = dict.fromkeys(names, 0)
        self.ids = {s: Counts(self.sources.id_type(s)) for s in SIDES}
        self.splits = np.zeros(3, np.int64)
        self.by_stage = np.zeros(len(Stage), np.int64)
        self.sample = Sample()
        self.readings: dict[str, Reading] = {s: partial(self.walk.ids, side=s) for s in SIDES}
        self.readings |= {"stage": self.walk.stages} if self.sources.staged else {}
        self.readings |= self._beside_labels()
        self.of_candidates = set(self.readings)
        self.readings |= {f"label {n}": self._label(n) for n in names}
        self.readings |= {f"feature {f.name}": self._feature(f) for f in self.sources.features("log")}

    def run(self) -> None:
        self.found.attempt(self._read_log)
        if not self.splits.sum() and not self.found.errors:
            self.found.errors.append(f"log '{self.sources.log.path}': no row is left (every one is dropped by data.drop)")
        elif not self.splits[0] and not self.found.errors:
            s = self.sources.data.split
            self.found.errors.append(f"split: no row is left to train on (kind {s.kind}, validation {s.validation}, test {s.test})")
        self._empty_splits()
        for check in self.constant.values():
            self.found.attempt(check.get)
        entities = {s: self.found.attempt(partial(self._entities, s)) for s in SIDES}
        self._facts()
        self._leaks(entities)

    def _read_log(self) -> None:
        columns: dict[str, pl.DataType | None] = dict.fromkeys(self.sources.log_columns())
        for events in self.walk.log.walk(columns):
            values = {name: self._read(name, events) for name in list(self.readings) if not events.made or name in self.of_candidates}
            stage = values.get("stage")
            self.by_stage += np.bincount(np.zeros(len(events.frame), np.int8) if stage is None else stage, minlength=len(Stage))
            ids = {s: values[s] for s in SIDES}
            split = self._split(events, ids["user"])
            self.splits += np.bincount(split, minlength=3)
            for side in SIDES:
                if ids[side] is not None:
                    self.ids[side].update(ids[side])
            labels = {n: values[f"label {n}"] for n in self.positives if values.get(f"label {n}") is not None}
            for name, label in labels.items():
                self.constant[name].update(label[split == NAMES["train"]])
                self.positives[name] += int((label > 0).sum())
            on = {f"label {n}": pl.Series(label[:, 0]) for n, label in labels.items()}
            if not events.made:
                self.sample.add(events.frame.with_columns(**on))

    def _read(self, name: str, events: Events) -> Any:
        """What a reading gives of a batch; after its first failure it is never asked again."""
        if name not in self.readings:
            return None
        before = len(self.found.errors)
        value = self.found.attempt(lambda: self.readings[name](events))
        if len(self.found.errors) > before:
            del self.readings[name]
            return None
        return value

    def _empty_splits(self) -> None:
        """A part that was asked for and got no row is most likely a moment outside the log."""
        wanted = self.sources.data.split
        for name, asked, rows in zip(("validation", "test"), (wanted.validation, wanted.test), self.splits[1:], strict=True):
            if self.splits.sum() and not rows and asked != 0 and wanted.kind != "column":
                self.found.warnings.append(f"split: no row is for {name}, though {asked} was asked for")

    def _split(self, events: Events, users: pl.Series | None) -> NDArray[np.uint8]:
        if not self.by_split or (users is None and self.sources.data.split.kind == "user"):
            return np.zeros(len(events.frame), np.uint8)
        typed = {c: self.sources.log.typed(c) for c in [self.sources.data.time] if c}
        return self.walk.split(_typed(events, typed), pl.Series() if users is None else users)

    def _label(self, name: str) -> Reading:
        label = Labels({name: self.sources.data.labels[name]}, self.sources.log)
        types = {c: self.sources.log.typed(c) for c in label.columns}
        return lambda events: label.compute(_typed(events, types).frame, events.place, self._stage_of(events))

    def _stage_of(self, events: Events) -> NDArray[np.int8] | None:
        """Stages of a batch; where they could not be read no row is taken for an impression, which would need labels."""
        if "stage" in self.readings:
            return self.walk.stages(events)
        return np.full(len(events.frame), Stage.RECALL, np.int8) if self.sources.staged else None

    def _beside_labels(self) -> dict[str, Reading]:
        """The teacher's scores and the bids, where there are any."""
        data = self.sources.data
        found: dict[str, Reading] = {}
        if (teacher := data.teacher) is not None:
            found["teacher"] = lambda events: stages.teacher(teacher, events.frame, events.place)
        if (bid := data.bid) is not None:
            found["bid"] = lambda events: stages.bid(events.frame[bid], events.place)
        return found

    def _feature(self, feature: Feature) -> Reading:
        check = self._check(feature)
        return lambda events: check(events.frame[feature.source], events.place)

    def _check(self, feature: Feature) -> Callable[[pl.Series, Place], None]:
        """Reads raw values as preparation would, for the errors alone."""
        if feature.kind == "vector":
            vector = Vector(feature.name, feature.dim or 0, feature.separator)
            return lambda values, place: void(vector.encode(values, place))
        owner = self.sources.schema[feature.share] if feature.share else feature
        dtype = self.walk.dtype(owner) if self.sources.place[owner.name] != "derived" else pl.String()
        fit = fitter(feature.model_copy(update={"share": None}), dtype)
        assert fit is not None
        return lambda values, place: fit.update(values, np.arange(len(values)), place=place)

    def _entities(self, side: Entity) -> Entities | None:
        """The users (items) table, read and checked as preparation would."""
        table = self.sources.table(side)
        if table is None:
            return None
        features = [f for f in self.sources.features("table") if f.side == side]
        frame = self.found.attempt(lambda: table.read(dict.fromkeys(f.source for f in features))) if features else None
        if frame is not None:
            for f in features:
                self.found.attempt(partial(self._check(f), frame[f.source], lambda i: f"row {i + 1} of {table.path}"))
        counts = self.ids[side].get()
        column = self.sources.data.user_id if side == "user" else self.sources.data.item_id
        entities = Entities(table, column, list(dict.fromkeys(f.source for f in features)), counts, counts.clear())
        unknown = len(entities) - len(entities.weights())
        if unknown > 0.05 * max(len(counts), 1):
            self.found.warnings.append(
                f"{table.role} '{table.path}': {unknown:,} of the log's {len(counts):,} {side}s are not in it; their features are missing"
            )
        return entities

    def _facts(self) -> None:
        rows = int(self.splits.sum())
        users, items = (len(self.ids[s].get()) for s in SIDES)
        self.found.facts.append(f"{rows:,} rows, {users:,} users, {items:,} items")
        if self.by_split and rows:
            self.found.facts.append("split " + ", ".join(f"{n} {c:,}" for n, c in zip(NAMES, self.splits.tolist(), strict=True)))
        if "stage" in self.readings:
            held = zip(Stage, self.by_stage.tolist(), strict=True)
            self.found.facts.append("stages " + ", ".join(f"{stage.name.lower()} {n:,}" for stage, n in held if n))
        shown = int(self.by_stage[Stage.IMPRESSION])
        self.found.facts += [
            f"label {n}: {p / shown:.1%} positive" for n, p in self.positives.items() if shown and f"label {n}" in self.readings
        ]

    def _leaks(self, entities: dict[Entity, Entities | None]) -> None:
        """Warn of every column that alone tells a label too well."""
        frame = self.sample.get()
        for name in (n for n in self.positives if frame is not None and f"label {n}" in frame.columns):
            assert frame is not None
            label = frame[f"label {name}"].to_numpy()
            for f in self.sources.schema.features:
                values = self._values(f, frame, entities)
                area = 0.5 if values is None else column_auc(values, label > label.min())
                if area >= SUSPICIOUS:
                    what = f"feature '{f.name}': column '{f.source}' alone reaches AUC {area:.3f} on label '{name}'"
                    self.found.warnings.append(f"{what}: a leak until proved otherwise")

    def _values(self, feature: Feature, frame: pl.DataFrame, entities: dict[Entity, Entities | None]) -> pl.Series | None:
        """A feature's raw values of the sampled rows; None when it is derived by the house or could not be read."""
        place = self.sources.place[feature.name]
        values = frame[feature.source] if place in ("log", "id") else None
        if place == "table":
            side: Entity = "user" if feature.side == "user" else "item"
            known = entities[side]
            if known is None:
                return None
            key = self.sources.data.user_id if side == "user" else self.sources.data.item_id
            ids = self.found.attempt(lambda: as_type(frame[key], self.sources.id_type(side), key))
            rows = known.lookup.find(ids)
            table = known.values(feature.source)
            values = table.gather(np.where((rows >= 0) & (rows < len(table)), rows, 0))
        if values is not None and feature.kind == "numeric":
            return values.cast(pl.Float64, strict=False)
        return values


def void(_: Any) -> None:
    """Forget a value that was made for its errors alone."""


def _typed(events: Events, types: dict[str, pl.DataType | None]) -> Events:
    """The batch with some columns as the types that conditions and times read."""
    log = [as_type(events.frame[c], t, f"log, column '{c}'", events.place).alias(c) for c, t in types.items() if t is not None]
    return replace(events, frame=events.frame.with_columns(log))
