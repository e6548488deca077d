"""The log read for its running statistics: keys from the log or the tables, labels, times; then `asof` for each setting.

Key columns that are numbers may be cut into bins (`AsOf.bins`): equally many train rows in each, edges at their quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import AsOf, milliseconds
from prerank.data.asof import Bools, Keys, Log, Running, running
from prerank.data.derive import Floats, Ints
from prerank.data.errors import DataError
from prerank.data.fit import Walk
from prerank.data.hashing import combine, of_values
from prerank.data.lookup import Lookup
from prerank.data.sources import Entity, Sources
from prerank.data.split import NAMES
from prerank.data.values import as_type, value_type

SIDES: tuple[Entity, Entity] = ("item", "user")


def statistics(walk: Walk) -> dict[str, Running]:
    """Every statistic of `data.asof`, for the kept rows in the log's order. Raises DataError."""
    settings = walk.sources.data.asof
    log, columns, order = _read(walk)
    for s in settings:
        y = log.labels[s.label] if s.label else np.zeros(1)
        if y.min() < 0 or y.max() > 1:
            raise DataError(f"statistic '{s.name}': label '{s.label}' must lie in [0, 1]; its values go from {y.min():g} to {y.max():g}")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    keys: dict[tuple[tuple[str, ...], int | None], tuple[Keys, dict[str, list[float]]]] = {}
    found = {}
    for s in settings:
        if (s.by, s.bins) not in keys:
            edges = _edges(s, columns, log.train)
            keys[s.by, s.bins] = Keys(_codes(s, columns, edges)), {c: e.tolist() for c, e in edges.items()}
        keyed, cuts = keys[s.by, s.bins]
        r = running(s, keyed, log)
        found[s.name] = Running(r.rows[back], r.frozen[back], r.final[back], r.unknown, s.label is not None, cuts)
    return found


def key_hash(columns: Mapping[str, pl.Series], by: tuple[str, ...]) -> tuple[Ints, Bools]:
    """One number a row for the values of its key columns, and where none of them is missing.  # [n], [n]"""
    there = np.ones(len(columns[by[0]]), bool)
    parts: list[NDArray[np.generic]] = []
    for c in by:
        values = columns[c]
        there &= values.is_not_null().to_numpy()
        if values.dtype == pl.Float64:
            parts.append(values.fill_null(0.0).to_numpy().astype(np.float64).view(np.int64))
        else:
            parts.append(of_values(values.fill_null(0 if values.dtype == pl.Int64 else "")).view(np.int64))
    return combine(parts), there


def cut(values: pl.Series, edges: Floats) -> pl.Series:
    """Numbers [n] -> the bins they lie in."""
    x = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return pl.Series(np.searchsorted(edges, x, side="right").astype(np.int64)).set(pl.Series(np.isnan(x)), None)


def _edges(setting: AsOf, columns: Mapping[str, pl.Series], train: Bools) -> dict[str, Floats]:
    """Inner edges of each numeric key column's bins: equally many train rows in each."""
    found = {}
    for c in setting.by if setting.bins else ():
        if columns[c].dtype.is_numeric():
            known = columns[c].filter(pl.Series(train)).drop_nulls().cast(pl.Float64).to_numpy()
            parts = np.arange(1, setting.bins or 2) / (setting.bins or 2)
            found[c] = np.unique(np.quantile(known, parts)) if len(known) else np.zeros(0)
    return found


def _codes(setting: AsOf, columns: Mapping[str, pl.Series], edges: Mapping[str, Floats]) -> Ints:
    own = {c: cut(columns[c], edges[c]) if c in edges else columns[c] for c in setting.by}
    hashes, there = key_hash(own, setting.by)
    _, code = np.unique(hashes, return_inverse=True)
    return np.where(there, code, -1).astype(np.int64)


def _read(walk: Walk) -> tuple[Log, dict[str, pl.Series], Ints]:
    """The log in order of time, its key columns in that order, and the order."""
    sources, data = walk.sources, walk.sources.data
    wanted = {c for s in data.asof for c in s.by}
    of_log = {c for c in wanted if c in sources.log.columns}
    raw: dict[str, list[pl.Series]] = {c: [] for c in (*of_log, data.user_id, data.item_id)}
    ts, splits, labels, shown = [], [], [], []
    for events in walk.log.walk(sources.log_columns()):
        for column, parts in raw.items():
            own = value_type(sources.log.columns[column])
            parts.append(as_type(events.frame[column], own, f"key column '{column}'", events.place))
        times = walk.log.times(events)
        assert times is not None
        ts.append(times)
        splits.append(walk.split(events, walk.ids(events, "user")))
        stage = walk.stages(events)
        labels.append(sources.labels.compute(events.frame, events.place, stage))
        shown.append(np.ones(len(times), bool) if stage is None else stage == Stage.IMPRESSION)
    if not splits:
        raise DataError(f"log '{sources.log.path}': nothing to learn from, no row is kept")
    when, split, y = np.concatenate(ts), np.concatenate(splits), np.concatenate(labels)
    order = np.argsort(when, kind="stable")
    columns = {c: pl.concat(parts).gather(order) for c, parts in raw.items()}
    for side in SIDES:
        columns |= _of_table(sources, side, wanted - columns.keys(), columns)
    log = Log(when[order], np.concatenate(shown)[order], (split == NAMES["train"])[order], (split == NAMES["test"])[order],
              {n: y[order, t].astype(np.float64) for t, n in enumerate(data.labels)},
              milliseconds(data.label_delay) if data.label_delay else 0)  # fmt: skip
    return log, columns, order


def _of_table(sources: Sources, side: Entity, wanted: set[str], columns: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """Columns of a table of entities, for each row of the log; ids that the table does not have miss them."""
    table = sources.table(side)
    mine = [c for c in wanted if table is not None and c in table.columns]
    if table is None or not mine:
        return {}
    column = sources.data.user_id if side == "user" else sources.data.item_id
    frame = table.read(dict.fromkeys([column, *mine]))
    dtype = columns[column].dtype
    at = Lookup(as_type(frame[column], dtype, f"{side} id '{column}'")).find(columns[column])
    found = {}
    for c in mine:
        values = as_type(frame[c], value_type(table.columns[c]), f"key column '{c}'")
        found[c] = values.gather(pl.Series(np.where(at < 0, 0, at))).set(pl.Series(at < 0), None)
    return found
