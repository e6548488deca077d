"""The second walk over the log: encoded columns, written batch by batch into a folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.data import stages
from prerank.data.asof import Running
from prerank.data.columns import Writer, file_of
from prerank.data.encoder import Column
from prerank.data.fit import Fitted, Tick, Walk
from prerank.data.hashing import combine, of_values
from prerank.data.log import Events
from prerank.data.sources import Entity
from prerank.data.split import NAMES
from prerank.data.values import as_type, value_type
from prerank.schema import Feature

Counts = dict[str, NDArray[np.int64]]  # {vocabulary: train occurrences of each row}
IMPRESSIONS, EVERY = "counts", "counts-every"  # folders: in impressions; in rows of every stage, where there are others
SIDES: tuple[Entity, Entity] = ("user", "item")


class Latest:
    """The value of each entity's last log row (by time, else by position), for features that only the log has."""

    def __init__(self, entities: int, missing: dict[str, Column]) -> None:
        self.columns: dict[str, Column] = {name: np.repeat(value, entities, axis=0) for name, value in missing.items()}
        self._ts = np.full(entities, np.iinfo(np.int64).min)

    def update(self, rows: NDArray[np.int32], ts: NDArray[np.int64] | None, columns: dict[str, Column]) -> None:
        """Entity rows [n], times [n], encoded columns [n, ...] of a batch; of equal times the later row counts."""
        if not self.columns:
            return
        order = np.arange(len(rows)) if ts is None else np.argsort(ts, kind="stable")
        entities, last = np.unique(rows[order][::-1], return_index=True)
        at = order[len(order) - 1 - last]  # position of each entity's last row
        if ts is not None:
            newer = ts[at] >= self._ts[entities]
            entities, at = entities[newer], at[newer]
            self._ts[entities] = ts[at]
        for name, column in self.columns.items():
            column[entities] = columns[name][at]


def write(walk: Walk, fitted: Fitted, folder: Path, tick: Tick) -> None:
    """Write log/, users/, items/, the row arrays, and counts/: the train counts of every vocabulary row."""
    counts = {name: _empty_counts(walk, fitted) for name in (IMPRESSIONS, EVERY)[: 2 if walk.sources.staged else 1]}
    for name in ("log", "users", "items", "rows", *counts, *(["frozen"] if walk.sources.data.asof else ())):
        (folder / name).mkdir()
    latest = {s: Latest(len(fitted.entities(s)), _missing_of(walk, fitted, s)) for s in SIDES}
    with ExitStack() as stack:
        writers = {name: stack.enter_context(w) for name, w in _writers(walk, fitted, folder).items()}
        first = 0
        for events in walk.log.walk(walk.sources.log_columns()):
            columns = _batch(walk, fitted, events, counts, latest)
            for split, number in NAMES.items():
                every = columns[f"rows/{split}-every"] = np.flatnonzero(columns["split"] == number) + first
                columns[f"rows/{split}"] = every if "stage" not in columns else every[columns["stage"][every - first] == Stage.IMPRESSION]
            for name, writer in writers.items():
                writer.append(columns[name])
            first += len(events.frame)
            tick(len(events.frame))
    for side in SIDES:
        _write_entities(walk, fitted, side, latest[side].columns, folder, counts)
    for name, found in counts.items():
        for vocabulary, array in found.items():
            np.save(folder / name / file_of(vocabulary), array)


def _writers(walk: Walk, fitted: Fitted, folder: Path) -> dict[str, Writer]:
    """{column: writer}; the names are the files' own."""
    data, n = walk.sources.data, fitted.rows
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "user_row": (np.int32, (n,)),
        "item_row": (np.int32, (n,)),
        "labels": (np.float32, (n, len(data.labels))),
        "split": (np.uint8, (n,)),
    }
    kinds |= {name: (np.int64, (n,)) for name, given in (("ts", data.time), ("request", data.request)) if given}
    kinds |= {f"rows/{split}": (np.int64, (rows,)) for split, rows in zip(NAMES, fitted.shown, strict=True)}
    if walk.sources.staged:
        kinds |= {"stage": (np.int8, (n,))}
        kinds |= {f"rows/{split}-every": (np.int64, (rows,)) for split, rows in zip(NAMES, fitted.splits, strict=True)}
    kinds |= {name: (np.float32, (n,)) for name, given in (("teacher", data.teacher), ("bid", data.bid)) if given}
    for f in walk.sources.by_row():
        like = fitted.encoders[f.name].missing()
        kinds[f"log/{f.name}"] = (like.dtype, (n, *like.shape[1:]))
        if isinstance(walk.derived.get(f.source), Running) and walk.sources.place[f.name] == "derived":
            kinds[f"frozen/{f.name}"] = kinds[f"log/{f.name}"]
        kinds["item_key" if f.side == "item" else "user_key"] = (np.int64, (n,))
    return {
        name: Writer(folder / _file(name), dtype, shape)
        for name, (dtype, shape) in kinds.items()
    }


def _file(name: str) -> str:
    """A writer's file: features of the user's may have any name."""
    head, _, feature = name.partition("/")
    return f"{head}/{file_of(feature)}" if head in ("log", "frozen") else f"{name}.npy"


def _batch(walk: Walk, fitted: Fitted, events: Events, counts: dict[str, Counts], latest: dict[Entity, Latest]) -> dict[str, Any]:
    """All columns of one batch by the names of their writers; counts and latest values are brought up to date."""
    sources, data = walk.sources, walk.sources.data
    ids = {s: walk.ids(events, s) for s in SIDES}
    ts = walk.log.times(events)
    out: dict[str, Any] = {f"{s}_row": fitted.entities(s).lookup.find(ids[s]).astype(np.int32) for s in SIDES}
    stage = walk.stages(events)
    out["labels"] = sources.labels.compute(events.frame, events.place, stage)
    out["split"] = walk.split(events, ids["user"])
    train = (out["split"] == NAMES["train"]) & (not events.made)
    counted = {IMPRESSIONS: train if stage is None else train & (stage == Stage.IMPRESSION), EVERY: train}
    if ts is not None:
        out["ts"] = ts
    if data.request:
        out["request"] = _numbers(walk.requests(events))
    if stage is not None:
        out["stage"] = stage
    if data.teacher:
        out["teacher"] = stages.teacher(data.teacher, events.frame, events.place)
    if data.bid:
        out["bid"] = stages.bid(events.frame[data.bid], events.place)
    encoded = {f.name: fitted.encoders[f.name].encode(walk.values(events, f), events.place) for f in sources.by_row()}
    out |= {f"log/{name}": column for name, column in encoded.items()}
    for f in sources.features("derived"):
        if isinstance(made := walk.derived[f.source], Running):
            out[f"frozen/{f.name}"] = fitted.encoders[f.name].encode(made.frozen_part(events.first, len(events.frame)))
    for name, found in counts.items():
        for vocabulary in encoded.keys() & found.keys():
            found[vocabulary] += _bincount(encoded[vocabulary][counted[name]], len(found[vocabulary]))
    for side in SIDES:
        varying = [encoded[f.name] for f in sources.by_row() if (f.side == "item") == (side == "item")]
        if varying:
            out[f"{side}_key"] = combine([out[f"{side}_row"], *varying])
        last = {n: encoded[n] for n in latest[side].columns if sources.place[n] == "log"}
        last |= {f.name: _serving(walk, fitted, f, events) for f in sources.features("derived") if f.name in latest[side].columns}
        if not events.made:
            latest[side].update(out[f"{side}_row"], ts, last)
    return out


def _serving(walk: Walk, fitted: Fitted, feature: Feature, events: Events) -> Column:
    """A derived feature by a column other than the entity's id: the value after all of train of each row's key."""
    made = walk.derived[feature.source]
    if isinstance(made, Running):
        return fitted.encoders[feature.name].encode(made.after(events.first, len(events.frame)))
    by = walk.sources.derived[feature.source].by
    keys = as_type(events.frame[by], value_type(walk.sources.log.columns[by]), f"derived column '{feature.source}'", events.place)
    return fitted.encoders[feature.name].encode(made.serving(keys))


def _missing_of(walk: Walk, fitted: Fitted, side: Entity) -> dict[str, Column]:
    """Features of the side that take the value of the entity's last row, with what an entity without rows gets."""
    found = {}
    for f in walk.sources.entity_features(side):
        if walk.sources.place[f.name] == "log":
            found[f.name] = fitted.encoders[f.name].missing()
        elif walk.sources.place[f.name] == "derived" and not _by_id(walk, f):
            derived = walk.derived[f.source]
            found[f.name] = fitted.encoders[f.name].encode(derived.never())
    return found


def _by_id(walk: Walk, feature: Feature) -> bool:
    made = walk.sources.derived.get(feature.source)
    return made is not None and made.by == (walk.sources.data.user_id if feature.side == "user" else walk.sources.data.item_id)


def _write_entities(walk: Walk, fitted: Fitted, side: Entity, latest: dict[str, Column], folder: Path,
                    counts: dict[str, Counts]) -> None:  # fmt: skip
    """users/ or items/: one column a feature, and the raw ids."""
    known = fitted.entities(side)
    for f in walk.sources.entity_features(side):
        encoder = fitted.encoders[f.name]
        if f.name in latest:
            column = latest[f.name]
        elif walk.sources.place[f.name] == "id":
            column = encoder.encode(known.ids)
        elif walk.sources.place[f.name] == "derived":
            derived = walk.derived[f.source]
            assert not isinstance(derived, Running)
            column = encoder.encode(derived.serving(known.ids))
        else:
            column = known.encoded(f.source, encoder)
        for name, found in counts.items():
            if f.name in found and walk.sources.place[f.name] in ("id", "table"):
                times = known.shown if name == IMPRESSIONS else known.train
                weights = times if column.ndim == 1 else np.repeat(times, column.shape[1])
                found[f.name] += _bincount(column, len(found[f.name]), weights)
        np.save(folder / f"{side}s" / file_of(f.name), column)
    pl.DataFrame({"id": known.ids}).write_parquet(folder / f"{side}_ids.parquet")


def _empty_counts(walk: Walk, fitted: Fitted) -> Counts:
    owners = [f.name for f in walk.sources.schema.features if f.embedded and f.share is None]
    return {name: np.zeros(fitted.encoders[name].size or 0, np.int64) for name in owners}


def _bincount(column: Column, size: int, weights: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Occurrences of each row but padding, which no one trains."""
    found = np.bincount(column.reshape(-1), weights, minlength=size).astype(np.int64)
    found[0] = 0
    return found


def _numbers(requests: pl.Series) -> NDArray[np.int64]:
    """Integers as they are; text by a 64-bit hash."""
    return requests.to_numpy() if requests.dtype == pl.Int64 else of_values(requests).view(np.int64)
